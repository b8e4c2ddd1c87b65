"""The loop over in-memory parts, with an executor whose jobs end when the test says so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from queue import SimpleQueue

import pytest

from kantoku_kafka.avro.codec import AvroCodec
from kantoku_kafka.engine.checkpoint import Checkpoint
from kantoku_kafka.engine.loop import Loop, PoolBinding
from kantoku_kafka.engine.scheduler import Scheduler, TypeLimits
from kantoku_kafka.errors import AccessDenied
from kantoku_kafka.job import Job, Message, Offset
from kantoku_kafka.kafka.outputs import EventWriter
from kantoku_kafka.model import TaskEnvelope, Topics, new_task_id, now_us
from kantoku_kafka.settings import EventDetail, ExecutorSettings
from kantoku_kafka.testing import InMemoryEvents, InMemoryInputs, InMemoryLog, InMemoryOutputs, InMemoryTransaction

CODEC, TOPICS = AvroCodec(), Topics(namespace="epochs")


class ByHand:
    """An executor whose jobs the test ends."""

    backlog = 0

    def __init__(self) -> None:
        self.submitted: SimpleQueue[Job] = SimpleQueue()
        self.deliver: Callable[[Job], None] = lambda _: None

    def start(self, deliver: Callable[[Job], None]) -> None:
        self.deliver = deliver

    def submit(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self.submitted.put(job)

    def cancel(self, jobs: Iterable[Job], reason: str) -> None:
        """It goes on regardless, as a thread may."""

    def close(self, timeout_seconds: float) -> None:
        """Nothing to stop."""

    def end(self, job: Job, output: bytes) -> None:
        job.started_at_us = now_us()
        job.succeed(output)
        self.deliver(job)


class Broken(InMemoryTransaction):
    """The installation fails in a way that no retry mends."""

    def commit(self, offsets: Sequence[Offset]) -> None:
        raise AccessDenied("ACL")


class Rig:
    """A loop that takes tasks of type ``t`` from a log."""

    def __init__(self, transactions: type[InMemoryTransaction] = InMemoryTransaction) -> None:
        self.log = InMemoryLog()
        self.inputs = InMemoryInputs(self.log, TOPICS)
        self.by_hand = ByHand()
        transaction = transactions(self.log, self.inputs)
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
            pools={"t": PoolBinding(self.by_hand, Scheduler({"t": TypeLimits()}), 10)},
            dead_letter_topic=TOPICS.dlq,
            settings=ExecutorSettings(drain_seconds=0.0),
        )
        task = TaskEnvelope(new_task_id(), "t", b"", now_us())
        self.log.append(Message(TOPICS.of_type("t"), task.id.encode(), CODEC.encode_task(task)))

    def results(self) -> list[bytes]:
        return [CODEC.decode_result(record.value).data for record in self.log.read(TOPICS.results)]


def test_what_ends_after_its_partition_was_lost_is_dropped() -> None:
    rig = Rig()
    thread = threading.Thread(target=rig.loop.run)
    thread.start()
    try:
        old = rig.by_hand.submitted.get(timeout=10)
        rig.log.expel(rig.inputs)
        new = rig.by_hand.submitted.get(timeout=10)
        assert (old.offset, old.task_id) == (new.offset, new.task_id)
        assert old.partition.epoch < new.partition.epoch
        rig.by_hand.end(old, b"old")
        rig.by_hand.end(new, b"new")
        assert rig.log.wait_until_done([TOPICS.of_type("t")], 10)
    finally:
        rig.loop.stop()
        thread.join(10)
    assert rig.results() == [b"new"]


def test_after_a_failure_the_inputs_are_left_and_nothing_is_published() -> None:
    rig = Rig(Broken)
    with pytest.raises(AccessDenied):
        rig.loop.run()
    rig.inputs.close()
    assert rig.results() == []
