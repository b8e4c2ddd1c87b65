"""A Kafka over lists, as far as readers without a group need one; its clock goes on while they wait."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from confluent_kafka import IsolationLevel, KafkaError, TopicPartition
from confluent_kafka.admin import OffsetSpec

from kantoku_kafka import Kantoku
from kantoku_kafka.job import Message
from kantoku_kafka.kafka import scan
from kantoku_kafka.settings import Connection


@dataclass
class Stored:
    """A record, or with ``failure`` what comes instead of one."""

    _topic: str
    _partition: int
    _offset: int
    _key: bytes | None = None
    _value: bytes | None = None
    _headers: Sequence[tuple[str, bytes | None]] = ()
    failure: KafkaError | None = None

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> list[tuple[str, bytes | None]]:
        return list(self._headers)

    def timestamp(self) -> tuple[int, int]:
        return 1, self._offset

    def error(self) -> KafkaError | None:
        return self.failure


class _Answer(NamedTuple):
    offset: int

    def result(self, timeout_seconds: float) -> _Answer:
        return self


class FakeKafka:
    """Stands where a connection's ``Clients`` do.

    ``stable``: last stable offsets by topic and partition, where a transaction is open. ``reading``: called before each
    time that a consumer asks for records; ``silent``: none comes, nor an end.
    """

    def __init__(self, **partitions: int) -> None:
        self.connection = Connection(bootstrap_servers="nowhere:1")
        self.now = 0.0
        self.logs: defaultdict[tuple[str, int], list[Stored | None]] = defaultdict(list)
        self.partitions = {name.replace("_", "."): count for name, count in partitions.items()}
        self.stable: dict[tuple[str, int], int] = {}
        self.committed: dict[tuple[str, int], int] = {}
        self.reading: Callable[[], None] = lambda: None
        self.silent = False

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def put(self, message: Message) -> None:
        """A committed record, in partition 0 if the message names none."""
        topic, key, value, headers, partition = message
        log = self.logs[topic, max(partition, 0)]
        log.append(Stored(topic, max(partition, 0), len(log), key, value, headers))

    def mark(self, topic: str, partition: int = 0) -> None:
        """The marker of a transaction."""
        self.logs[topic, partition].append(None)

    def end(self, topic: str, partition: int) -> int:
        return len(self.logs[topic, partition])

    def stable_end(self, topic: str, partition: int) -> int:
        return self.stable.get((topic, partition), self.end(topic, partition))

    def insist(self, request: Callable[[], Any], *_: Any, **__: Any) -> Any:
        return request()

    def admin(self) -> FakeKafka:
        return self

    def metadata(self, *_: Any, **__: Any) -> Any:
        return self.list_topics()

    def list_topics(self, *_: Any, **__: Any) -> Any:
        found = {
            t: SimpleNamespace(partitions=dict.fromkeys(range(n), SimpleNamespace(replicas=[1])), error=None)
            for t, n in self.partitions.items()
        }
        return SimpleNamespace(topics=found, brokers=[1])

    def list_offsets(
        self, wanted: Mapping[TopicPartition, Any], isolation_level: IsolationLevel
    ) -> dict[TopicPartition, _Answer]:
        latest = self.stable_end if isolation_level is IsolationLevel.READ_COMMITTED else self.end
        first = isinstance(next(iter(wanted.values())), type(OffsetSpec.earliest()))
        return {p: _Answer(0 if first else latest(p.topic, p.partition)) for p in wanted}

    def consumer(self, **_: Any) -> _Consumer:
        return _Consumer(self)


def made_for(monkeypatch: pytest.MonkeyPatch, **partitions: int) -> FakeKafka:
    """One by whose clock scans wait."""
    made = FakeKafka(**partitions)
    monkeypatch.setattr(scan, "time", made)
    return made


def app_on(kafka: FakeKafka) -> Kantoku:
    """An app whose connection it is."""
    made = Kantoku("shop")
    clients: Any = kafka
    made._clients = clients
    return made


class _Consumer:
    def __init__(self, kafka: FakeKafka) -> None:
        self._kafka = kafka
        self._positions: dict[tuple[str, int], int] = {}
        self._ended: set[tuple[str, int]] = set()

    def assign(self, places: Sequence[TopicPartition]) -> None:
        self._positions = {(place.topic, place.partition): place.offset for place in places}

    def incremental_unassign(self, places: Sequence[TopicPartition]) -> None:
        for place in places:
            del self._positions[place.topic, place.partition]

    def seek(self, place: TopicPartition) -> None:
        self._positions[place.topic, place.partition] = place.offset

    def committed(self, places: Sequence[TopicPartition], _: float) -> list[TopicPartition]:
        return [TopicPartition(p.topic, p.partition, self._kafka.committed[p.topic, p.partition]) for p in places]

    def consume(self, most: int, timeout_seconds: float) -> list[Stored]:
        kafka, found = self._kafka, list[Stored]()
        kafka.reading()
        for place, position in () if kafka.silent else tuple(self._positions.items()):
            end = kafka.stable_end(*place)
            if position < end:
                self._positions[place] = end
                found += [record for record in kafka.logs[place][position:end] if record is not None]
            elif place not in self._ended:
                self._ended.add(place)
                found.append(Stored(*place, end, failure=KafkaError(KafkaError._PARTITION_EOF)))
            if found:  # a fetch is of one partition
                return found
        kafka.now += timeout_seconds
        return found

    def close(self) -> None:
        self._positions.clear()
