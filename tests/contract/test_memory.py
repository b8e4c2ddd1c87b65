"""The in-memory parts keep the contract."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest

from kantoku_kafka.avro.codec import AvroCodec
from kantoku_kafka.job import Message
from kantoku_kafka.kafka.outputs import EventWriter
from kantoku_kafka.model import Event, Headers, Result
from kantoku_kafka.names import Topics
from kantoku_kafka.testing import (
    InMemoryEvents,
    InMemoryInputs,
    InMemoryLog,
    InMemoryOutputs,
    InMemoryTransaction,
)
from kantoku_kafka.testing.contract import LogContract, LogRig, Member

CODEC, TOPICS = AvroCodec(), Topics(namespace="memory")


class MemoryRig(LogRig):
    side_topic = "side"
    too_large_bytes = 2_000_000

    def __init__(self) -> None:
        self.input_topic = TOPICS.of_type(self.task_type)
        self.log = InMemoryLog()

    def member(self) -> Member:
        inputs = InMemoryInputs(self.log)
        transaction = InMemoryTransaction(self.log, inputs)
        return Member(
            inputs,
            transaction,
            InMemoryOutputs(transaction, TOPICS.results, CODEC, max_data_bytes=1_000_000),
            InMemoryEvents(transaction, EventWriter(TOPICS.events, self.log.partitions, CODEC)),
        )

    def put(self, records: Iterable[tuple[bytes | None, bytes, Headers]]) -> None:
        topic = TOPICS.of_type(self.task_type)
        self.log.append(*(Message(topic, key, value, headers) for key, value, headers in records))

    @contextmanager
    def behind_a_transaction(self, partition: int) -> Iterator[None]:
        """Somebody's transaction is open in the input meanwhile."""
        self.log.block((self.input_topic, partition))
        yield
        self.log.unblock((self.input_topic, partition))

    def results(self) -> list[tuple[bytes | None, Result]]:
        return [(r.key, CODEC.decode_result(r.value)) for r in self.log.read(TOPICS.results)]

    def events(self) -> list[Event]:
        return [CODEC.decode_event(r.value) for r in self.log.read(TOPICS.events)]

    def side(self) -> list[bytes]:
        return [r.value for r in self.log.read(self.side_topic)]


class TestMemory(LogContract):
    @pytest.fixture
    def rig(self) -> LogRig:
        return MemoryRig()


def test_two_members_share_and_a_partition_moves_with_its_offset() -> None:
    rig = MemoryRig()
    rig.put([(b"k%d" % n, b"%d" % n, ()) for n in range(40)])
    first = rig.join()
    jobs = first.poll(40)
    first.transaction.begin()
    first.transaction.commit(first.positions(jobs))
    second = rig.join()
    assert second.poll(1, timeout_seconds=0.05) == []
    assert first.poll(1, timeout_seconds=0.05) == []
    assert second.poll(1, timeout_seconds=0.05) == []
    assert sorted((p.topic, p.number) for p in first.partitions + second.partitions) == [
        (TOPICS.of_type(rig.task_type), n) for n in range(4)
    ]
    assert len(first.partitions) == len(second.partitions) == 2
    rig.put([(b"k%d" % n, b"again", ()) for n in range(40)])
    assert len(first.poll(40, 0.2)) + len(second.poll(40, 0.2)) == 40
