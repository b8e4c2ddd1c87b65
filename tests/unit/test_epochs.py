"""A completion that belongs to an earlier assignment of the same partition never counts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from queue import SimpleQueue

from kantoku_kafka.avro.codec import AvroCodec
from kantoku_kafka.engine.checkpoint import Checkpoint
from kantoku_kafka.engine.loop import Loop, PoolBinding
from kantoku_kafka.engine.scheduler import Scheduler, TypeLimits
from kantoku_kafka.job import Job, Message
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


def test_what_ends_after_its_partition_was_lost_is_dropped() -> None:
    log = InMemoryLog()
    inputs = InMemoryInputs(log, TOPICS)
    transaction = InMemoryTransaction(log, inputs)
    checkpoint = Checkpoint(
        outputs=InMemoryOutputs(transaction, TOPICS.results, CODEC, max_data_bytes=1_000),
        events=InMemoryEvents(transaction, EventWriter(TOPICS.events, log.partitions, CODEC)),
        transaction=transaction,
        detail=EventDetail.FULL,
        executor_id="e",
        slot="s",
    )
    by_hand = ByHand()
    loop = Loop(
        inputs=inputs,
        checkpoint=checkpoint,
        codec=CODEC,
        pools={"t": PoolBinding(by_hand, Scheduler({"t": TypeLimits()}), 10)},
        dead_letter_topic=TOPICS.dlq,
        settings=ExecutorSettings(drain_seconds=0.0),
    )
    task = TaskEnvelope(new_task_id(), "t", b"", now_us())
    log.append(Message(TOPICS.of_type("t"), task.id.encode(), CODEC.encode_task(task)))
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        old = by_hand.submitted.get(timeout=10)
        log.expel(inputs)
        new = by_hand.submitted.get(timeout=10)
        assert (old.offset, old.task_id) == (new.offset, new.task_id)
        assert old.partition.epoch < new.partition.epoch
        by_hand.end(old, b"old")
        by_hand.end(new, b"new")
        assert log.wait_until_done([TOPICS.of_type("t")], 10)
    finally:
        loop.stop()
        thread.join(10)
    assert [CODEC.decode_result(record.value).data for record in log.read(TOPICS.results)] == [b"new"]
