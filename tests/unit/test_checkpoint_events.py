"""Which events a checkpoint logs, and that a failed attempt leaves none of its own."""

from __future__ import annotations

import pytest
from recording import NOW_US, Broker, Inputs, checkpoint, publish

from kantoku_kafka.engine.checkpoint import Checkpoint
from kantoku_kafka.job import Job, Message
from kantoku_kafka.model import Event, EventName, Status
from kantoku_kafka.protocols import CheckpointRefused
from kantoku_kafka.settings import EventDetail


def outcomes(target: Checkpoint, inputs: Inputs) -> None:
    """One task of every kind of ending, and one that still runs."""
    ok, failed, expired, unknown = (inputs.job(name) for name in ("ok", "failed", "expired", "unknown"))
    running = inputs.job("running")
    target.start([ok, failed, running])
    for job in (ok, failed):
        job.events = [
            Event(job.task_id, "work", "image.loaded", 1, NOW_US),
            Event("child", "work", EventName.SPAWNED, 1, NOW_US),
        ]
        job.effects = [Message("side", None, job.task_id.encode())]
    inputs.end(target, ok)
    inputs.fail(target, failed)
    expired.started_at_us = None
    inputs.fail(target, expired, Status.EXPIRED)
    unknown.started_at_us = None
    unknown.letter = Message("dlq", b"k", b"v")
    inputs.fail(target, unknown, Status.REJECTED)


EXPECTED: dict[EventDetail, dict[str, list[str]]] = {
    EventDetail.FULL: {
        "ok": ["received_task", "executed_task", "image.loaded", "sent_outputs"],
        "failed": ["received_task", "executed_task", "sent_outputs"],
        "expired": ["received_task", "error", "sent_outputs"],
        "unknown": ["received_task", "error", "dead_lettered", "sent_outputs"],
        "running": ["received_task"],
        "child": ["spawned"],
    },
    EventDetail.TERMINAL: {
        "ok": ["image.loaded", "sent_outputs"],
        **{name: ["sent_outputs"] for name in ("failed", "expired", "unknown")},
        "running": [],
        "child": [],
    },
    EventDetail.OFF: {name: [] for name in ("ok", "failed", "expired", "unknown", "running", "child")},
}


@pytest.mark.parametrize("detail", EventDetail)
def test_events_by_detail(detail: EventDetail) -> None:
    broker, inputs = Broker(), Inputs()
    target = checkpoint(broker, detail)
    outcomes(target, inputs)
    publish(target, inputs)
    names = {task_id: [event.name for event in broker.events(task_id)] for task_id in EXPECTED[detail]}
    assert names == EXPECTED[detail]
    statuses = {e.task_id: e.attributes for e in broker.durable if isinstance(e, Event) and e.name == "sent_outputs"}
    if detail is not EventDetail.OFF:
        ended = {"ok": "OK", "failed": "FAILED", "expired": "EXPIRED", "unknown": "REJECTED"}
        assert statuses == {name: {"status": status} for name, status in ended.items()}


def test_a_failed_attempt_publishes_nothing_of_what_it_staged() -> None:
    broker, inputs = Broker(), Inputs()
    target = checkpoint(broker)
    outcomes(target, inputs)
    late = inputs.fail(target, inputs.job("late"))
    late.effects = [Message("side", None, b"of a thread that outlived its task")]
    late.events = [Event("late", "work", "image.loaded", 1, NOW_US)]
    publish(target, inputs)
    assert [message.value for message in broker.messages()] == [b"ok", b"v"]
    assert "image.loaded" not in [event.name for event in broker.events("late")]
    assert len(broker.results()) == 5


def test_received_is_announced_once_also_when_the_task_ends_later() -> None:
    broker, inputs = Broker(), Inputs()
    target = checkpoint(broker)
    job = inputs.job("a")
    target.start([job])
    publish(target, inputs)
    assert [event.name for event in broker.events("a")] == ["received_task"]
    inputs.end(target, job)
    publish(target, inputs)
    assert [event.name for event in broker.events("a")] == ["received_task", "executed_task", "sent_outputs"]


def test_an_announcement_that_was_refused_is_made_up_for() -> None:
    broker, inputs = Broker(refuse=["commit"]), Inputs()
    target = checkpoint(broker)
    job = inputs.job("a")
    target.start([job])
    batch = target.take(inputs.windows)
    with pytest.raises(CheckpointRefused):
        target.publish(batch)
    target.restore(batch)
    inputs.end(target, job)
    publish(target, inputs)
    assert [event.name for event in broker.events("a")] == ["received_task", "executed_task", "sent_outputs"]


def say(target: Checkpoint, job: Job, progress: str) -> None:
    job.beat({"at": progress})
    target.note([job])


def test_of_what_a_running_task_says_the_last_counts_and_nothing_behind_its_end() -> None:
    broker, inputs = Broker(refuse=["commit"] * 3), Inputs()
    target = checkpoint(broker)
    running, ending = inputs.job("runs"), inputs.job("ends")
    for number in range(4):
        say(target, running, str(number))
        say(target, ending, str(number))
        batch = target.take(inputs.windows)
        if number < 3:
            with pytest.raises(CheckpointRefused):
                target.publish(batch)
            target.restore(batch)
        if number == 2:
            inputs.end(target, ending)
    target.publish(batch)
    assert [event.attributes for event in broker.events("runs")] == [{"at": "3"}]
    assert [event.name for event in broker.events("ends")][-1] == "sent_outputs"
    assert not target.due


def test_what_no_broker_takes_of_a_running_task_is_left_out() -> None:
    broker, inputs = Broker(poison=["noisy"]), Inputs()
    target = checkpoint(broker)
    noisy = inputs.job("noisy")
    say(target, noisy, "x" * 2_000_000)
    inputs.end(target, inputs.job("neighbour"))
    publish(target, inputs)
    assert [result.task_id for result in broker.results()] == ["neighbour"]
    assert broker.events("noisy") == []
    assert not target.due
