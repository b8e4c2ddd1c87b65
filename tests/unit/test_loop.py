"""The loop over in-memory parts, with an executor whose jobs end when the test says so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Event
from typing import Any

import pytest

from kantoku_kafka.avro.codec import AvroCodec
from kantoku_kafka.engine.checkpoint import Checkpoint
from kantoku_kafka.engine.loop import Loop
from kantoku_kafka.engine.pools import PoolBinding, Pools
from kantoku_kafka.engine.rules import Rules
from kantoku_kafka.engine.scheduler import Scheduler, TypeLimits
from kantoku_kafka.errors import AccessDenied, BrokerUnavailable
from kantoku_kafka.ids import new_task_id
from kantoku_kafka.job import Job, Message, Offset, Partition
from kantoku_kafka.kafka.outputs import EventWriter
from kantoku_kafka.model import ErrorInfo, Status, TaskEnvelope, now_us
from kantoku_kafka.names import Topics
from kantoku_kafka.protocols import CheckpointRefused
from kantoku_kafka.settings import EventDetail, ExecutorSettings
from kantoku_kafka.testing import InMemoryEvents, InMemoryInputs, InMemoryLog, InMemoryOutputs, InMemoryTransaction
from kantoku_kafka.verify.evidence import position

CODEC, TOPICS = AvroCodec(), Topics(namespace="epochs")


class ByHand:
    """An executor whose jobs the test ends."""

    backlog = 0

    def __init__(self) -> None:
        self.submitted: SimpleQueue[Job] = SimpleQueue()
        self.deliver: Callable[[Job], None] = lambda _: None
        self.told = Event()
        self.on_cancel: Callable[[], None] = lambda: None

    def start(self, deliver: Callable[[Job], None]) -> None:
        self.deliver = deliver

    def submit(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self.submitted.put(job)

    def cancel(self, jobs: Iterable[Job], reason: str) -> None:
        """It goes on regardless, as a thread may, unless the test has it end."""
        for job in jobs:
            job.cancelled = reason
            self.told.set()
            self.on_cancel()

    def close(self, timeout_seconds: float) -> None:
        """Nothing to stop."""

    def end(self, job: Job, output: bytes, *, fails: bool = False) -> None:
        job.started_at_us = now_us()
        job.succeed(output)
        if fails:
            job.fail(Status.FAILED, ErrorInfo("Stopped", "it was told to"))
        self.deliver(job)


class AtOnce(ByHand):
    """An executor whose jobs have ended when they are submitted."""

    def submit(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self.end(job, b"quick")


class Noting(InMemoryInputs):
    """Inputs that tell when the loop pauses partitions, leaves, or drains: it takes one job at a time then."""

    def __init__(self, log: InMemoryLog) -> None:
        super().__init__(log)
        self.draining, self.paused, self.left = Event(), Event(), Event()
        self.on_jobs: Callable[[], None] = lambda: None

    def poll(self, max_jobs: int, timeout_seconds: float) -> list[Job]:
        if max_jobs == 1:
            self.draining.set()
        if jobs := super().poll(max_jobs, timeout_seconds):
            self.on_jobs()
        return jobs

    def close(self) -> None:
        super().close()
        self.left.set()

    def pause(self, partitions: Iterable[Partition]) -> None:
        super().pause(partitions)
        self.paused.set()


class Broken(InMemoryTransaction):
    """The installation fails in a way that no retry mends."""

    def commit(self, offsets: Sequence[Offset]) -> None:
        raise AccessDenied("ACL")


class Hanging(InMemoryTransaction):
    """The client does not return."""

    def commit(self, offsets: Sequence[Offset]) -> None:
        Event().wait()


class Slow(InMemoryTransaction):
    """The commit of results waits for the test."""

    def __init__(self, log: InMemoryLog, inputs: InMemoryInputs) -> None:
        super().__init__(log, inputs)
        self.begun, self.go_on = Event(), Event()

    def commit(self, offsets: Sequence[Offset]) -> None:
        if any(message.topic == TOPICS.results for message in self._open()):
            self.begun.set()
            self.go_on.wait(10)
        super().commit(offsets)


class Picky(InMemoryTransaction):
    """Takes no result with data, and takes its time to say so: longer for all of them than a checkpoint may take."""

    def probe(self) -> None:
        Event().wait(0.03)
        results = (message.value or b"" for message in self._open() if message.topic == TOPICS.results)
        if any(CODEC.decode_result(result).data for result in results):
            raise CheckpointRefused("too large", culprit=True)

    def commit(self, offsets: Sequence[Offset]) -> None:
        try:
            self.probe()
        except CheckpointRefused:
            self.abort()
            raise
        super().commit(offsets)


class Rig:
    """A loop that takes tasks of type ``t``, which end by hand, and of type ``quick``, which end at once."""

    def __init__(self, transactions: type[InMemoryTransaction] = InMemoryTransaction, **settings: Any) -> None:
        self.log = InMemoryLog()
        self.inputs = Noting(self.log)
        self.by_hand = ByHand()
        self.transaction = transaction = transactions(self.log, self.inputs)
        checkpoint = Checkpoint(
            outputs=InMemoryOutputs(transaction, TOPICS.results, CODEC, max_data_bytes=1_000),
            events=InMemoryEvents(transaction, EventWriter(TOPICS.events, self.log.partitions, CODEC)),
            transaction=transaction,
            detail=EventDetail.FULL,
            executor_id="e",
            writer=lambda _: "s",
        )
        self.loop = Loop(
            inputs=self.inputs,
            checkpoint=checkpoint,
            codec=CODEC,
            pools=Pools(
                {
                    "t": PoolBinding(self.by_hand, Scheduler({"t": TypeLimits()}), 10),
                    "quick": PoolBinding(AtOnce(), Scheduler({"quick": TypeLimits()}), 10),
                },
                rates={},
            ),
            rules={"t": Rules(), "quick": Rules()},
            input_topics=[TOPICS.of_type(name) for name in ("t", "quick")],
            topics=TOPICS,
            settings=ExecutorSettings(**{"drain_seconds": 0.0, **settings}),
        )
        self.spawn("t")

    def spawn(self, task_type: str, count: int = 1) -> None:
        for _ in range(count):
            task = TaskEnvelope(new_task_id(), task_type, b"", now_us())
            self.log.append(Message(TOPICS.of_type(task_type), task.id.encode(), CODEC.encode_task(task)))

    def results(self) -> list[bytes]:
        return [CODEC.decode_result(record.value).data for record in self.log.read(TOPICS.results)]

    @contextmanager
    def running(self) -> Iterator[Future[None]]:
        """The loop in a thread; what it raises is raised again."""
        with ThreadPoolExecutor(1) as threads:
            ended = threads.submit(self.loop.run)
            try:
                yield ended
            finally:
                self.loop.stop()
                ended.result(20)


def test_what_ends_after_its_partition_was_lost_is_dropped() -> None:
    rig = Rig()
    with rig.running():
        old = rig.by_hand.submitted.get(timeout=10)
        rig.log.expel(rig.inputs)
        new = rig.by_hand.submitted.get(timeout=10)
        assert (old.offset, old.task_id) == (new.offset, new.task_id)
        assert old.partition.epoch < new.partition.epoch
        rig.by_hand.end(old, b"old")
        rig.by_hand.end(new, b"new")
        assert rig.log.wait_until_done([TOPICS.of_type("t")], 10)
    assert rig.results() == [b"new"]


def test_a_slow_type_does_not_keep_the_others_waiting() -> None:
    rig = Rig(max_waiting=40, max_batch=10)
    rig.spawn("t", 500)
    with rig.running():
        assert rig.inputs.paused.wait(10)
        rig.spawn("quick", 200)
        assert rig.log.wait_until_done([TOPICS.of_type("quick")], 10)
    assert rig.results() == [b"quick"] * 200


def test_what_ends_in_the_drain_is_published_though_the_group_has_moved_on() -> None:
    rig = Rig(drain_seconds=20.0)
    with rig.running():
        job = rig.by_hand.submitted.get(timeout=10)
        rig.loop.stop()
        assert rig.inputs.draining.wait(10)
        rig.log.join(object(), [TOPICS.of_type("quick")])
        rig.by_hand.end(job, b"done")
    assert rig.results() == [b"done"]


def test_what_comes_as_the_loop_goes_quiet_is_for_others() -> None:
    rig = Rig()
    rig.spawn("quick")
    rig.inputs.on_jobs = rig.loop.quiet
    with rig.running():
        assert rig.inputs.left.wait(10)
    assert rig.by_hand.submitted.empty()
    assert rig.results() == []


def test_a_job_that_a_pool_gives_back_without_an_outcome_is_crashed() -> None:
    rig = Rig()
    with rig.running():
        rig.by_hand.deliver(rig.by_hand.submitted.get(timeout=10))
        assert rig.log.wait_until_done([TOPICS.of_type("t")], 10)
    (record,) = rig.log.read(TOPICS.results)
    result = CODEC.decode_result(record.value)
    assert result.status is Status.CRASHED
    assert result.error is not None and result.error.type == "no_outcome"


@pytest.mark.parametrize("raises", [False, True])
def test_what_a_function_returns_when_it_was_told_to_stop_counts_for_nothing(raises: bool) -> None:
    """Though a checkpoint is under way as it does: its task runs again."""
    rig = Rig(Slow)
    with rig.running() as ended:
        job = rig.by_hand.submitted.get(timeout=10)
        rig.spawn("quick", 50)
        assert isinstance(rig.transaction, Slow) and rig.transaction.begun.wait(10)
        rig.by_hand.on_cancel = lambda: rig.by_hand.end(job, b"half", fails=raises)
        rig.loop.stop()
        assert rig.by_hand.told.wait(10)
        rig.transaction.go_on.set()
        ended.result(20)
    assert set(rig.results()) == {b"quick"}
    assert position(*rig.log.committed(TOPICS.of_type("t"), job.partition.number)).base <= job.offset


def test_a_checkpoint_that_looks_for_culprits_is_waited_for_as_long_as_it_is_answered() -> None:
    rig = Rig(Picky, timeout_seconds=0.1)
    rig.spawn("quick", 30)
    with rig.running():
        assert rig.log.wait_until_done([TOPICS.of_type("quick")], 30)
    assert rig.results() == [b""] * 30


def test_after_a_failure_the_inputs_are_left_and_nothing_is_published() -> None:
    rig = Rig(Broken)
    with pytest.raises(AccessDenied):
        rig.loop.run()
    rig.inputs.close()
    assert rig.results() == []


def test_a_checkpoint_that_never_ends_ends_the_executor() -> None:
    rig = Rig(Hanging, timeout_seconds=0.05)
    with pytest.raises(BrokerUnavailable, match="nothing has told"), rig.running() as ended:
        rig.by_hand.end(rig.by_hand.submitted.get(timeout=10), b"done")
        ended.result(10)
    assert rig.results() == []


def test_nor_does_a_rebalance_wait_for_it_for_ever() -> None:
    rig = Rig(Hanging, timeout_seconds=0.2)
    with pytest.raises(BrokerUnavailable, match="nothing has told"), rig.running() as ended:
        rig.by_hand.end(rig.by_hand.submitted.get(timeout=10), b"done")
        rig.log.expel(rig.inputs)
        ended.result(10)
