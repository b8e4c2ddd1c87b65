"""The Kafka parts keep the contract, on a real broker."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Message as KafkaMessage
from confluent_kafka import Producer

from kantoku_kafka import Kantoku
from kantoku_kafka.avro.codec import AvroCodec
from kantoku_kafka.kafka import topics
from kantoku_kafka.kafka.committed import CommittedOffsets
from kantoku_kafka.kafka.inputs import KafkaInputs
from kantoku_kafka.kafka.outputs import EventWriter, KafkaEvents, KafkaOutputs
from kantoku_kafka.kafka.takeover import transactional_id
from kantoku_kafka.kafka.transaction import ExactlyOnceTransaction, PlainTransaction
from kantoku_kafka.model import Event, Headers, Result
from kantoku_kafka.settings import GroupProtocol
from kantoku_kafka.testing.broker import BrokerHandle
from kantoku_kafka.testing.contract import LogContract, LogRig, Member

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))
from accounting import read_all

CODEC = AvroCodec()


class KafkaRig(LogRig):
    too_large_bytes = 3_000_000

    def __init__(self, bootstrap: str, protocol: GroupProtocol, exactly_once: bool) -> None:
        self._bootstrap, self._protocol, self._exactly_once = bootstrap, protocol, exactly_once
        self._kan = Kantoku(f"c-{uuid.uuid4().hex[:8]}", bootstrap_servers=bootstrap)
        self._topics = self._kan.topics
        self.input_topic = self._topics.of_type(self.task_type)
        self.side_topic = self._topics.of_type("side")
        topics.create(self._kan.clients, topics.plan(self._topics, [self.task_type, "side"]))
        self._members: list[Member] = []

    def member(self) -> Member:
        slot = f"m{len(self._members)}"
        committed = CommittedOffsets(self._kan.clients, self._topics.group, slot, 15.0)
        inputs = KafkaInputs(
            self._kan.clients,
            self._topics.group,
            slot=slot,
            static=False,
            group_protocol=self._protocol,
            exactly_once=self._exactly_once,
            timeout_seconds=15,
            committed=committed,
        )
        common = {
            "own_topics": [self._topics.results, self._topics.events],
            "batch_size_bytes": 1_000_000,
            "timeout_seconds": 15.0,
        }
        transaction: ExactlyOnceTransaction | PlainTransaction
        if self._exactly_once:
            name = transactional_id(self._topics.group, slot)
            transaction = ExactlyOnceTransaction(
                self._kan.clients,
                group=self._topics.group,
                memberships=inputs.memberships,
                committed=committed,
                transactional_id=name,
                on_fenced=lambda: name,
                **common,  # type: ignore[arg-type]  # the values are of several types
            )
        else:
            transaction = PlainTransaction(self._kan.clients, store=inputs.store, **common)  # type: ignore[arg-type]  # as above
        writer = EventWriter(self._topics.events, 4, CODEC)
        outputs = KafkaOutputs(transaction, self._topics.results, CODEC, 1_000_000)
        member = Member(inputs, transaction, outputs, KafkaEvents(transaction, writer))
        self._members.append(member)
        return member

    def put(self, records: Iterable[tuple[bytes | None, bytes, Headers]]) -> None:
        producer = Producer({"bootstrap.servers": self._bootstrap, "partitioner": "murmur2_random"})
        for key, value, headers in records:
            producer.produce(self._topics.of_type(self.task_type), value, key, headers=list(headers))
        assert producer.flush(10) == 0

    @contextmanager
    def behind_a_transaction(self, partition: int) -> Iterator[None]:
        """Somebody's transaction is open in the input meanwhile; it is aborted."""
        producer = self._kan.clients.producer(**{"transactional.id": f"{self._topics.group}.stranger"})
        producer.init_transactions(15)
        producer.begin_transaction()
        producer.produce(self.input_topic, b"aborted", partition=partition)
        assert producer.flush(15) == 0
        yield
        producer.abort_transaction(15)

    def _visible(self, topic: str) -> list[KafkaMessage]:
        return read_all(self._bootstrap, topic, wait_for_open=False)

    def results(self) -> list[tuple[bytes | None, Result]]:
        return [(m.key(), CODEC.decode_result(m.value() or b"")) for m in self._visible(self._topics.results)]

    def events(self) -> list[Event]:
        return [CODEC.decode_event(m.value() or b"") for m in self._visible(self._topics.events)]

    def side(self) -> list[bytes]:
        return [m.value() or b"" for m in self._visible(self.side_topic)]

    def close(self) -> None:
        for member in self._members:
            member.transaction.close()
            if hasattr(member.inputs, "_rebalance"):
                member.inputs.close()


class TestKafka(LogContract):
    @pytest.fixture(params=GroupProtocol)
    def rig(self, kantoku_broker: BrokerHandle, request: pytest.FixtureRequest) -> Iterator[LogRig]:
        rig = KafkaRig(kantoku_broker.bootstrap_servers, request.param, exactly_once=True)
        yield rig
        rig.close()


class TestKafkaAtLeastOnce(LogContract):
    exactly_once = False

    @pytest.fixture
    def rig(self, kantoku_broker: BrokerHandle) -> Iterator[LogRig]:
        rig = KafkaRig(kantoku_broker.bootstrap_servers, GroupProtocol.CLASSIC, exactly_once=False)
        yield rig
        rig.close()
