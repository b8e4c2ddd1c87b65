"""The checkpoint: everything that ended becomes durable once, together with the offsets, or nothing does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recording import NOW_US, REFUSED, Broker, Inputs, checkpoint, publish

from kantoku_kafka.engine import doneset
from kantoku_kafka.engine.checkpoint import Batch
from kantoku_kafka.engine.reply import Reply
from kantoku_kafka.errors import KantokuError
from kantoku_kafka.formats import Json
from kantoku_kafka.job import Job, Message, Move
from kantoku_kafka.model import ErrorInfo, Event, EventName, Status, Trail
from kantoku_kafka.protocols import CheckpointRefused


def test_the_order_is_begin_stage_commit() -> None:
    broker, inputs = Broker(), Inputs()
    target = checkpoint(broker)
    job = inputs.job("a")
    job.effects = [Message("side", None, b"x")]
    inputs.end(target, job)
    publish(target, inputs)
    assert broker.calls == ["begin", "produce", "results", "events", "commit"]
    assert [result.task_id for result in broker.results()] == ["a"]
    assert broker.offsets["tasks", 0].offset == 1


def test_without_a_transaction_a_timer_stays_until_its_task_is_there() -> None:
    broker, inputs = Broker(), Inputs()
    broker.promise = "at-least-once"
    target = checkpoint(broker)
    job = inputs.job("a")
    job.carry_on(Move((Message("tasks", b"a", b"task"),), marks=(Message("timers", b"a", None),)))
    inputs.settle(target, job)
    publish(target, inputs)
    assert broker.calls == ["begin", "produce", "probe", "produce", "results", "commit"]
    assert [message.topic for message in broker.messages()] == ["tasks", "timers"]


def test_the_offsets_tell_who_wrote_them_and_what_is_done_beyond() -> None:
    broker, inputs = Broker(), Inputs()
    target = checkpoint(broker)
    jobs = [inputs.job(name) for name in "abcd"]
    inputs.end(target, jobs[1])
    inputs.end(target, jobs[3])
    publish(target, inputs)
    offset = broker.offsets["tasks", 0]
    assert offset.offset == 0
    assert doneset.decode(offset.metadata, "tasks/0", 0) == doneset.DoneSet("host.0", [(1, 2), (3, 4)])


def test_a_claim_alone_is_committed_for_its_metadata() -> None:
    broker, inputs = Broker(), Inputs(0, 1)
    target = checkpoint(broker)
    assert not target.due
    target.claim(inputs.partitions[1])
    assert target.due
    publish(target, inputs)
    assert list(broker.offsets) == [("tasks", 1)]
    assert not target.due


@pytest.mark.parametrize("step", ["begin", "results", "produce", "events", "commit"])
def test_a_refusal_at_any_step_loses_nothing_and_repeats_nothing(step: str) -> None:
    broker, inputs = Broker(refuse=[step]), Inputs()
    target = checkpoint(broker)
    waiting, first, second = inputs.job("w"), inputs.job("a"), inputs.job("b")
    target.start([waiting])
    target.claim(inputs.partitions[0])
    first.effects = [Message("side", None, b"x")]
    inputs.end(target, first)
    batch = target.take(inputs.windows)
    with pytest.raises(CheckpointRefused):
        target.publish(batch)
    assert broker.durable == []
    assert broker.offsets == {}
    assert not broker.open
    inputs.end(target, second)
    target.restore(batch)
    assert target.size_bytes == len(b"done") * 2 + len(b"x")
    publish(target, inputs)
    assert [result.task_id for result in broker.results()] == ["a", "b"]
    assert broker.messages() == [Message("side", None, b"x")]
    assert [event.name for event in broker.events("w")] == [EventName.RECEIVED_TASK]
    assert not target.due
    assert not target.unannounced


@given(st.data())
def test_whatever_is_refused_every_job_is_published_once(data: st.DataObject) -> None:
    broker, inputs = Broker(), Inputs(0, 1, 2)
    target = checkpoint(broker)
    running: list[Job] = []
    ended: list[str] = []
    pending: Batch | None = None
    for step in range(data.draw(st.integers(1, 40))):
        action = data.draw(st.sampled_from(["start", "start", "end", "prepare", "take", "publish", "refuse"]))
        if action == "start":
            job = inputs.job(f"t{step}", data.draw(st.integers(0, 2)))
            target.start([job])
            running.append(job)
        elif action == "end" and running:
            job = running.pop(data.draw(st.integers(0, len(running) - 1)))
            ended.append(inputs.end(target, job).task_id)
        elif action == "prepare":
            target.prepare(data.draw(st.integers(1, 3)))
        elif action == "take" and pending is None:
            pending = target.take(inputs.windows)
        elif action == "publish" and pending is not None:
            target.publish(pending)
            pending = None
        elif action == "refuse" and pending is not None:
            broker.refuse = ["commit"]
            with pytest.raises(CheckpointRefused):
                target.publish(pending)
            target.restore(pending)
            pending = None
    if pending is not None:
        target.publish(pending)
    publish(target, inputs)
    assert sorted(result.task_id for result in broker.results()) == sorted(ended)
    for task_id in ended:
        names = [event.name for event in broker.events(task_id)]
        assert names == ["received_task", "executed_task", "sent_outputs"]


@given(st.sets(st.integers(0, 19), max_size=6))
def test_culprits_are_found_and_their_neighbours_published(bad: set[int]) -> None:
    broker, inputs = Broker(poison=[f"t{number}" for number in bad]), Inputs()
    target = checkpoint(broker)
    for number in range(20):
        inputs.end(target, inputs.job(f"t{number}"))
    publish(target, inputs)
    statuses = {result.task_id: result.status for result in broker.results()}
    assert statuses == {f"t{n}": Status.FAILED if n in bad else Status.OK for n in range(20)}
    assert len(broker.results()) == 20
    assert broker.offsets["tasks", 0].offset == 20
    for result in broker.results():
        assert (result.error is None) is (result.status is Status.OK)
        assert result.error is None or result.error.type == "result_too_large"


def test_the_effects_of_a_culprit_are_withheld_and_it_is_told_why() -> None:
    broker, inputs = Broker(poison=["bad"]), Inputs()
    target = checkpoint(broker)
    for name in ("good", "bad"):
        job = inputs.job(name)
        job.effects = [Message("side", None, name.encode())]
        job.events = [Event(name, "work", "image.loaded", 1, NOW_US)]
        inputs.end(target, job)
    publish(target, inputs)
    assert [message.value for message in broker.messages()] == [b"good"]
    bad = next(result for result in broker.results() if result.task_id == "bad")
    assert bad.error is not None
    assert (bad.error.type, bad.headers) == ("undeliverable", ())
    assert "image.loaded" not in [event.name for event in broker.events("bad")]


def test_a_dead_letter_that_is_refused_goes_without_the_bytes() -> None:
    class SmallDlq(Broker):
        def _poisoned(self) -> bool:
            return any(isinstance(item, Message) and len(item.value) > 5 for item in self.staged)

    broker, inputs = SmallDlq(), Inputs()
    target = checkpoint(broker)
    job = inputs.job("a")
    job.letter = Message("dlq", b"key", b"the record", (("h", b"1"),))
    inputs.settle(target, job)
    publish(target, inputs)
    assert broker.messages() == [Message("dlq", b"key", b"", (("h", b"1"), ("kantoku-truncated", b"true")))]
    assert broker.results() == []
    assert broker.events("a") == [], "of a record that no task was read from nothing is known"


def test_a_refusal_while_culprits_are_sought_keeps_everything() -> None:
    broker, inputs = Broker(poison=["bad"]), Inputs()
    target = checkpoint(broker)
    for name in ("good", "bad", "fine"):
        inputs.end(target, inputs.job(name))
    batch = target.take(inputs.windows)
    probe, broker.probe = broker.probe, _refusing  # type: ignore[method-assign]
    with pytest.raises(CheckpointRefused) as refused:
        target.publish(batch)
    assert not refused.value.culprit
    assert broker.durable == []
    broker.probe = probe  # type: ignore[method-assign]
    target.restore(batch)
    publish(target, inputs)
    assert {result.task_id: result.status.value for result in broker.results()} == {
        "good": "OK",
        "bad": "FAILED",
        "fine": "OK",
    }


def _refusing() -> None:
    raise REFUSED


def test_a_claim_that_was_refused_is_committed_later() -> None:
    broker, inputs = Broker(refuse=["commit"]), Inputs()
    target = checkpoint(broker)
    target.claim(inputs.partitions[0])
    batch = target.take(inputs.windows)
    with pytest.raises(CheckpointRefused):
        target.publish(batch)
    assert not target.due
    target.restore(batch)
    assert target.due
    publish(target, inputs)
    assert list(broker.offsets) == [("tasks", 0)]


def test_nothing_is_left_to_do_for_partitions_that_are_gone() -> None:
    inputs = Inputs()
    target = checkpoint(Broker())
    target.start([inputs.job("running")])
    target.claim(inputs.partitions[0])
    inputs.end(target, inputs.job("ended"))
    target.forget(inputs.partitions)
    assert not target.due
    assert not target.unannounced


def test_forget_drops_what_belongs_to_revoked_partitions_only() -> None:
    broker, inputs = Broker(), Inputs(0, 1)
    target = checkpoint(broker)
    for of in (0, 1):
        target.claim(inputs.partitions[of])
        target.start([inputs.job(f"running{of}", of)])
        inputs.end(target, inputs.job(f"ended{of}", of))
    gone = inputs.partitions[0]
    target.forget([gone])
    del inputs.windows[gone]
    assert len(target) == 1
    publish(target, inputs)
    assert [result.task_id for result in broker.results()] == ["ended1"]
    assert list(broker.offsets) == [("tasks", 1)]
    assert broker.events("running0") == []
    assert [event.name for event in broker.events("running1")] == ["received_task"]


def test_what_was_restored_can_still_be_forgotten() -> None:
    broker, inputs = Broker(refuse=["commit"]), Inputs(0, 1)
    target = checkpoint(broker)
    for of in (0, 1):
        inputs.end(target, inputs.job(f"ended{of}", of))
    batch = target.take(inputs.windows)
    with pytest.raises(CheckpointRefused):
        target.publish(batch)
    target.restore(batch)
    target.forget([inputs.partitions[0]])
    del inputs.windows[inputs.partitions[0]]
    publish(target, inputs)
    assert [result.task_id for result in broker.results()] == ["ended1"]


@pytest.mark.parametrize("raised", [RuntimeError("a bug"), KeyboardInterrupt()])
def test_whatever_staging_raises_the_transaction_is_given_up(raised: BaseException) -> None:
    broker, inputs = Broker(), Inputs()
    target = checkpoint(broker)
    inputs.end(target, inputs.job("a"))

    def fail(_: object) -> None:
        raise raised

    broker.stage = fail  # type: ignore[method-assign,assignment]
    with pytest.raises(type(raised)):
        publish(target, inputs)
    assert broker.calls[-1] == "abort"
    assert not broker.open


def test_every_checkpoint_is_told_from_the_one_before_it() -> None:
    broker, inputs = Broker(), Inputs(0, 1)
    target = checkpoint(broker)
    waiting = inputs.job("w", 1)
    seen = set()
    for name in "abc":
        target.claim(waiting.partition)
        inputs.end(target, inputs.job(name))
        publish(target, inputs)
        seen.add(broker.offsets["tasks", 1].metadata)
    assert {broker.offsets["tasks", 1].offset} == {0}
    assert len(seen) == 3, "a commit whose outcome is unknown would be taken for the one before it"


@pytest.mark.parametrize("prepared", [True, False])
def test_what_cannot_be_encoded_fails_its_own_job(prepared: bool) -> None:
    class Picky(Broker):
        def prepare(self, items: Sequence[Any]) -> Sequence[Any]:
            if any(isinstance(item, Trail) and any(step[3].get("size") == 5 for step in item.steps) for item in items):
                raise AttributeError("int has no attribute encode")
            return super().prepare(items)

    broker, inputs = Picky(), Inputs()
    target = checkpoint(broker)
    for name in ("good", "bad", "fine"):
        job = inputs.job(name)
        wrong: dict[str, Any] = {"size": 5 if name == "bad" else "5"}
        job.events = [Event(name, "work", "image.loaded", 1, NOW_US, attributes=wrong)]
        job.effects = [Message("side", None, name.encode())]
        inputs.end(target, job)
    if prepared:
        assert target.prepare(100)
        assert not target.prepare(100)
    publish(target, inputs)
    assert {r.task_id: r.error and r.error.type for r in broker.results()} == {
        "good": None,
        "bad": "unserialisable_effects",
        "fine": None,
    }
    assert [message.value for message in broker.messages()] == [b"good", b"fine"]


def test_an_event_that_no_broker_takes_is_found_as_well() -> None:
    class SmallEvents(Broker):
        def _poisoned(self) -> bool:
            return any(isinstance(item, Event) and len(item.attributes.get("text", "")) > 5 for item in self.staged)

    broker, inputs = SmallEvents(), Inputs()
    target = checkpoint(broker)
    for name, text in (("good", "short"), ("bad", "too long"), ("fine", "short")):
        job = inputs.job(name)
        job.events = [Event(name, "work", "image.loaded", 1, NOW_US, attributes={"text": text})]
        inputs.end(target, job)
    publish(target, inputs)
    assert [r.status.value for r in broker.results()] == ["OK", "FAILED", "OK"]


def test_a_dead_letter_whose_key_is_too_large_goes_without_it() -> None:
    class SmallDlq(Broker):
        def _poisoned(self) -> bool:
            return any(isinstance(item, Message) and len(item.value + (item.key or b"")) > 5 for item in self.staged)

    broker, inputs = SmallDlq(), Inputs()
    target = checkpoint(broker)
    job = inputs.job("a")
    job.letter = Message("dlq", b"a long key", b"the record", (("h", b"1"), ("kantoku-error-type", b"E")))
    inputs.settle(target, job)
    publish(target, inputs)
    cause = (("kantoku-error-type", b"E"), ("kantoku-truncated", b"true"))
    assert broker.messages() == [Message("dlq", None, b"", cause)]


def test_where_nothing_helps_the_executor_is_told() -> None:
    class Nothing(Broker):
        def _poisoned(self) -> bool:
            return bool(self.staged)

    inputs = Inputs()
    target = checkpoint(Nothing())
    inputs.end(target, inputs.job("a"))
    with pytest.raises(KantokuError, match="not even the shortest"):
        publish(target, inputs)


class Picky(Broker):
    """Takes nothing for some topics."""

    def __init__(self, refusing: set[str]) -> None:
        super().__init__()
        self.refusing = refusing

    def _poisoned(self) -> bool:
        topics = {item.topic for item in self.staged if isinstance(item, Message) and item.value}
        return not topics.isdisjoint(self.refusing)


@given(
    st.lists(
        st.tuples(st.sampled_from(["well", "effect", "failed", "letter", "retry"]), st.sampled_from([None, "a", "b"])),
        min_size=1,
        max_size=8,
    ),
    st.sets(st.sampled_from(["b", "side", "dlq", "timers"])),
)
def test_what_is_refused_costs_nothing_else_but_a_success(
    kinds: list[tuple[str, str | None]], refusing: set[str]
) -> None:
    broker, inputs = Picky(refusing), Inputs()
    target = checkpoint(broker)
    for number, (kind, topic) in enumerate(kinds):
        job = inputs.job(str(number))
        job.key = b"%d" % number
        job.reply = None if topic is None else Reply(topic, Json())
        if kind in ("well", "effect"):
            job.succeed(b"done")
            job.effects = [Message("side", job.key, b"effect")] if kind == "effect" else None
        else:
            job.fail(Status.FAILED, ErrorInfo("E", "m"))
            job.letter = Message("dlq", job.key, b"letter") if kind == "letter" else None
        if kind == "retry":
            job.carry_on(Move((Message("timers", job.key, b"timer"),), EventName.RETRY_SCHEDULED))
        inputs.settle(target, job)
    publish(target, inputs)
    results = {result.task_id: result for result in broker.results()}
    assert len(results) == len(broker.results())
    for number, (kind, topic) in enumerate(kinds):
        result, key = results.get(str(number)), b"%d" % number
        written = [(message.topic, message.value) for message in broker.messages() if message.key == key]
        if kind == "retry" and "timers" not in refusing:
            assert (result, written) == (None, [("timers", b"timer")])
            continue
        assert result is not None
        well = kind in ("well", "effect") and topic not in refusing and not (kind == "effect" and "side" in refusing)
        assert result.ok is well
        assert [place for place, _ in written].count(topic or "") == int(topic is not None and topic not in refusing)
        if kind == "failed" or (kind == "letter" and not {"dlq", topic} <= refusing):
            assert result.error is not None and result.error.type == "E"
        if kind == "letter":
            assert ("dlq", b"" if "dlq" in refusing else b"letter") in written
