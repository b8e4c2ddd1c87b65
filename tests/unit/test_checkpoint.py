"""The checkpoint: everything that ended becomes durable once, together with the offsets, or nothing does."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kantoku_kafka.engine import doneset
from kantoku_kafka.engine.checkpoint import Batch, Checkpoint
from kantoku_kafka.engine.window import Window
from kantoku_kafka.job import Job, Message, Offset, Partition
from kantoku_kafka.model import ErrorInfo, Event, EventName, Result, Status
from kantoku_kafka.protocols import CheckpointRefused
from kantoku_kafka.settings import EventDetail

NOW_US = 1_800_000_000_000_000
REFUSED = CheckpointRefused("the broker says no")


class Broker:
    """Outputs, Events and Transaction in one, over lists; what is committed stands in ``durable``.

    ``poison``: task ids whose results no broker takes. ``refuse``: raises at the steps named, once each.
    """

    promise = "exactly-once"
    max_data_bytes = 1_000_000

    def __init__(self, poison: Sequence[str] = (), refuse: Sequence[str] = ()) -> None:
        self.poison = set(poison)
        self.refuse = list(refuse)
        self.calls: list[str] = []
        self.staged: list[Result | Event | Message] = []
        self.durable: list[Result | Event | Message] = []
        self.offsets: dict[tuple[str, int], Offset] = {}
        self.open = False

    def begin(self) -> None:
        assert not self.open, "the last transaction is still open"
        self._step("begin")
        self.open, self.staged = True, []

    def stage(self, items: Sequence[Result] | Sequence[Event]) -> None:
        assert self.open
        self._step("events" if items and isinstance(items[0], Event) else "results")
        self.staged += items

    def produce(self, messages: Sequence[Message]) -> None:
        assert self.open
        self._step("produce")
        self.staged += messages

    def probe(self) -> None:
        assert self.open
        if self._poisoned():
            raise CheckpointRefused("too large", culprit=True)

    def commit(self, offsets: Sequence[Offset]) -> None:
        assert self.open
        self._step("commit")
        self.open = False
        if self._poisoned():
            raise CheckpointRefused("too large", culprit=True)
        self.durable += self.staged
        self.offsets |= {(o.topic, o.partition): o for o in offsets}

    def abort(self) -> None:
        self.calls.append("abort")
        self.open = False

    def close(self) -> None:
        self.abort()

    def _step(self, name: str) -> None:
        self.calls.append(name)
        if name in self.refuse:
            self.refuse.remove(name)
            self.open = False if name == "commit" else self.open
            raise REFUSED

    def _poisoned(self) -> bool:
        return any(isinstance(item, Result) and item.task_id in self.poison and item.data for item in self.staged)

    def results(self) -> list[Result]:
        return [item for item in self.durable if isinstance(item, Result)]

    def events(self, task_id: str) -> list[Event]:
        return [item for item in self.durable if isinstance(item, Event) and item.task_id == task_id]

    def messages(self) -> list[Message]:
        return [item for item in self.durable if isinstance(item, Message)]


def checkpoint(broker: Broker, detail: EventDetail = EventDetail.FULL) -> Checkpoint:
    return Checkpoint(
        outputs=broker, events=broker, transaction=broker, detail=detail, executor_id="host-1-ab", slot="host.0"
    )


class Inputs:
    """Partitions with windows, and jobs out of them."""

    def __init__(self, *numbers: int) -> None:
        self.partitions = [Partition("tasks", number, 1) for number in numbers or (0,)]
        self.windows = {partition: Window(0) for partition in self.partitions}

    def job(self, name: str, of: int = 0) -> Job:
        partition = self.partitions[of]
        window = self.windows[partition]
        job = Job(partition, window.next_offset, b"key", b"the record", [("a", b"1")])
        job.task_id, job.type, job.data, job.attempt = name, "work", b"", 1
        job.received_at_us, job.started_at_us = NOW_US, NOW_US + 1
        assert window.admit(job.offset)
        return job

    def end(self, target: Checkpoint, job: Job, output: bytes = b"done") -> Job:
        job.succeed(output)
        return self.settle(target, job)

    def fail(self, target: Checkpoint, job: Job, status: Status = Status.FAILED) -> Job:
        job.fail(status, ErrorInfo("E", "m"))
        return self.settle(target, job)

    def settle(self, target: Checkpoint, job: Job) -> Job:
        self.windows[job.partition].finish(job.offset)
        target.end(job)
        return job


def publish(target: Checkpoint, inputs: Inputs) -> Batch:
    batch = target.take(inputs.windows)
    target.publish(batch)
    return batch


def test_the_order_is_begin_stage_commit() -> None:
    broker, inputs = Broker(), Inputs()
    target = checkpoint(broker)
    job = inputs.job("a")
    job.effects = [Message("side", None, b"x")]
    inputs.end(target, job)
    publish(target, inputs)
    assert broker.calls == ["begin", "results", "produce", "events", "commit"]
    assert [result.task_id for result in broker.results()] == ["a"]
    assert broker.offsets["tasks", 0].offset == 1


def test_the_offsets_tell_who_wrote_them_and_what_is_done_beyond() -> None:
    broker, inputs = Broker(), Inputs()
    target = checkpoint(broker)
    jobs = [inputs.job(name) for name in "abcd"]
    inputs.end(target, jobs[1])
    inputs.end(target, jobs[3])
    publish(target, inputs)
    offset = broker.offsets["tasks", 0]
    assert offset.offset == 0
    assert doneset.decode(offset.metadata, 0) == doneset.DoneSet("host.0", [(1, 2), (3, 4)])


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
    assert target.size_bytes == len(b"done") * 2
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
        action = data.draw(st.sampled_from(["start", "start", "end", "take", "publish", "refuse"]))
        if action == "start":
            job = inputs.job(f"t{step}", data.draw(st.integers(0, 2)))
            target.start([job])
            running.append(job)
        elif action == "end" and running:
            job = running.pop(data.draw(st.integers(0, len(running) - 1)))
            ended.append(inputs.end(target, job).task_id)
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
def test_culprits_are_found_by_halving_and_their_neighbours_published(bad: set[int]) -> None:
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
    EventDetail.OFF: dict.fromkeys(("ok", "failed", "expired", "unknown", "running", "child"), []),
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
    publish(target, inputs)
    assert [message.value for message in broker.messages()] == [b"ok", b"v"]
    assert len(broker.results()) == 4


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


@pytest.mark.parametrize("raised", [RuntimeError("a bug"), KeyboardInterrupt()])
def test_whatever_staging_raises_the_transaction_is_given_up(raised: BaseException) -> None:
    broker, inputs = Broker(), Inputs()
    target = checkpoint(broker)
    inputs.end(target, inputs.job("a"))

    def fail(_: object) -> None:
        raise raised

    broker.stage: Callable[[object], None] = fail  # type: ignore[method-assign,misc]
    with pytest.raises(type(raised)):
        publish(target, inputs)
    assert broker.calls[-1] == "abort"
    assert not broker.open
