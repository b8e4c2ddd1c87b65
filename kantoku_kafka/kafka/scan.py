"""Reads a topic from given offsets to fixed ends, or on and on; without a group, and committing nothing.

Only records of committed transactions are seen. An *end* is a high watermark: what is still undecided below it is
waited for, so that nothing that had been written by then is missed, and nothing of an aborted transaction appears.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, IsolationLevel, KafkaError, TopicPartition
from confluent_kafka import Message as Record
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]  # re-exported without __all__

from kantoku_kafka.errors import WaitTimeout
from kantoku_kafka.job import Place
from kantoku_kafka.kafka.clients import Clients
from kantoku_kafka.kafka.codes import NO_MEMBER, NO_TOPIC, PASSING
from kantoku_kafka.kafka.topics import partition_count

__all__ = [
    "Offsets",
    "Record",
    "Scan",
    "beginnings",
    "decided_ends",
    "delete_before",
    "ends",
    "ends_of",
    "first_at",
    "pick",
    "stable_ends",
]

Offsets = dict[int, int]
"""By partition of one topic."""

_GROUP = "kantoku-scan"  # librdkafka wants one; nothing is ever committed
_BATCH = 2_000
_FAR = 5_000
_POLL_SECONDS = 0.1
_BUFFER_KBYTES = 32 << 10


def beginnings(clients: Clients, topic: str) -> Offsets:
    """The first offset that each partition still holds. Raises TopicMismatch, AccessDenied, BrokerUnavailable."""
    earliest: Any = OffsetSpec.earliest  # confluent_kafka leaves it untyped
    return _offsets(clients, topic, earliest())


def ends(clients: Clients, topic: str) -> Offsets:
    """The offset that each partition's next record will get: the high watermark. Raises as :func:`beginnings`."""
    latest: Any = OffsetSpec.latest
    return _offsets(clients, topic, latest())


def stable_ends(clients: Clients, topic: str) -> Offsets:
    """The offset up to which each partition is decided: the last stable one. Raises as :func:`beginnings`."""
    latest: Any = OffsetSpec.latest
    return _offsets(clients, topic, latest(), IsolationLevel.READ_COMMITTED)


def decided_ends(clients: Clients, topic: str, patience_seconds: float = 60.0) -> Offsets:
    """As :func:`ends`, once all below them is decided: other topics then have all that is of the same transactions.

    Raises:
        WaitTimeout: a transaction stays open for longer than the patience.
        TopicMismatch, AccessDenied, BrokerUnavailable.
    """
    present, deadline = ends(clients, topic), time.monotonic() + patience_seconds
    while open_in := [p for p, stable in stable_ends(clients, topic).items() if stable < present.get(p, 0)]:
        if time.monotonic() > deadline:
            raise WaitTimeout(
                f"In {topic}[{open_in[0]}] a transaction has been open for {patience_seconds:g} s. Try again later."
            )
        time.sleep(_POLL_SECONDS)
    return present


def ends_of(clients: Clients, places: Iterable[Place], seconds: float) -> dict[Place, int]:
    """The high watermark of each of these. (A consumer that reads what is committed is told the last stable offset.)

    Asks for so long: a partition that was added just now is known to some brokers before others. Raises AccessDenied,
    BrokerUnavailable; TopicMismatch if there is no such partition.
    """
    latest: Any = OffsetSpec.latest
    wanted = {TopicPartition(topic, number): latest() for topic, number in places}
    return _asked(clients, wanted, "reading the ends of partitions", NO_TOPIC, seconds)


def first_at(clients: Clients, topic: str, time_ms: int) -> Offsets:
    """Of each partition the first record stamped with this time or a later one, or its end. Raises as before."""
    present = ends(clients, topic)  # first: what is written between the two answers is later than the time, or counts
    found = _offsets(clients, topic, OffsetSpec.for_timestamp(time_ms))
    return {partition: found[partition] if found[partition] >= 0 else end for partition, end in present.items()}


def _offsets(
    clients: Clients, topic: str, spec: Any, isolation: IsolationLevel = IsolationLevel.READ_UNCOMMITTED
) -> Offsets:
    wanted = {TopicPartition(topic, number): spec for number in range(partition_count(clients, topic))}
    found = _asked(clients, wanted, f"reading the offsets of {topic}", isolation=isolation)
    return {number: offset for (_, number), offset in found.items()}


def _asked(
    clients: Clients,
    wanted: Mapping[TopicPartition, Any],
    doing: str,
    passing: frozenset[int] = frozenset(),
    seconds: float | None = None,
    isolation: IsolationLevel = IsolationLevel.READ_UNCOMMITTED,
) -> dict[Place, int]:
    def asked() -> dict[Place, int]:
        admin = clients.admin()
        answers = admin.list_offsets(dict(wanted), isolation_level=isolation)
        most = clients.connection.timeout_seconds if seconds is None else seconds
        return {(p.topic, p.partition): future.result(most).offset for p, future in answers.items()}

    return clients.insist(asked, doing, passing, seconds)


def delete_before(clients: Clients, topic: str, time_ms: int | None) -> int:
    """Delete what was written before a time, or all; returns by how many offsets the partitions are shorter.

    Raises:
        TopicMismatch, AccessDenied, BrokerUnavailable.
    """
    first = beginnings(clients, topic)
    until = ends(clients, topic) if time_ms is None else first_at(clients, topic, time_ms)
    wanted = [TopicPartition(topic, number, offset) for number, offset in until.items() if offset > first[number]]
    if not wanted:
        return 0
    seconds = clients.connection.timeout_seconds

    def deleted() -> None:
        admin = clients.admin()
        for future in admin.delete_records(wanted).values():
            future.result(seconds)

    clients.insist(deleted, f"deleting records of {topic}")
    return sum(place.offset - first[place.partition] for place in wanted)


def pick(
    clients: Clients,
    topic: str,
    wanted: Mapping[int, Sequence[int]],
    patience_seconds: float = 10.0,
    *,
    insist: bool = False,
) -> Iterator[Record]:
    """Single records: of each partition the first one at or behind each of these offsets, if there is one.

    There is none where the partition ends before it, for readers of committed records: at its last stable offset.

    Parameters:
        patience_seconds: how long the reading may stand still.
        insist: raise if it does; default: leave out what has not come.

    Raises:
        WaitTimeout: the reading stood still, which says nothing of what there is.
        AccessDenied, BrokerUnavailable, TopicMismatch: as the connection has it.
    """
    pending = {p: deque(sorted(set(offsets))) for p, offsets in wanted.items() if offsets}
    consumer = clients.consumer(
        **{
            "group.id": _GROUP,
            "enable.partition.eof": True,
            "queued.max.messages.kbytes": 1 << 10,
            "fetch.message.max.bytes": 64 << 10,
        }
    )
    try:
        consumer.assign([TopicPartition(topic, p, offsets[0]) for p, offsets in pending.items()])
        moved_at = time.monotonic()
        while pending:
            moved = False
            for record in consumer.consume(_BATCH, _POLL_SECONDS):
                partition, offset = record.partition() or 0, record.offset() or 0
                offsets = pending.get(partition)
                if offsets is None:
                    continue
                if record.error() is not None:
                    if _is_end(clients, topic, record):
                        del pending[partition]
                        moved = True
                    continue
                moved = True
                if offset >= offsets[0]:
                    while offsets and offsets[0] <= offset:
                        offsets.popleft()
                    if not offsets:
                        del pending[partition]
                    elif offsets[0] - offset > _FAR:
                        consumer.seek(TopicPartition(topic, partition, offsets[0]))
                    yield record
            if moved:  # behind the yields: whoever takes a record may take long
                moved_at = time.monotonic()
            elif time.monotonic() - moved_at > patience_seconds:
                if insist:
                    partition = min(pending)
                    raise WaitTimeout(
                        f"{topic}[{partition}] has not told what stands at offset {pending[partition][0]} within "
                        f"{patience_seconds:g} s: no broker answers in time, or the partition has no leader. Try again."
                    )
                return
    finally:
        consumer.close()


class Scan:
    """One pass over a topic. One thread uses it.

    Parameters:
        clients: the connection.
        topic: what is read.
        starts: where to begin; partitions that are not named are not read.
        ends: where to stop, None: never. What lies behind an end is not delivered.
        patience_seconds: how long the reading may stand still before an end; default 60.

    Attributes:
        offsets: of each partition the first offset that has not been delivered: where another scan goes on.
        stamped_ms: the time of the last record that was delivered.
    """

    def __init__(
        self,
        clients: Clients,
        topic: str,
        starts: Mapping[int, int],
        ends: Mapping[int, int] | None = None,
        patience_seconds: float = 60.0,
    ) -> None:
        self._clients = clients
        self._topic = topic
        self._ends = None if ends is None else {p: ends[p] for p in starts}
        self._patience_seconds = patience_seconds
        self.offsets: Offsets = dict(starts)

    def batches(self, timeout_seconds: float | None = None) -> Iterator[Sequence[Record]]:
        """Records as they come, each partition's in the order of its offsets; ends at the ends.

        Parameters:
            timeout_seconds: without ends, how long to wait for a record before an empty batch; default: for ever.

        Raises:
            WaitTimeout: an open transaction holds an end back for longer than the patience.
            AccessDenied, BrokerUnavailable, TopicMismatch: as the connection has it.
        """
        unread = {p for p, start in self.offsets.items() if self._ends is None or start < self._ends[p]}
        if not unread:
            return
        consumer = self._clients.consumer(
            **{
                "group.id": _GROUP,
                "enable.partition.eof": self._ends is not None,
                "queued.max.messages.kbytes": _BUFFER_KBYTES,
            }
        )
        try:
            consumer.assign([TopicPartition(self._topic, p, self.offsets[p]) for p in sorted(unread)])
            moved_at = time.monotonic()
            while unread:
                records = consumer.consume(_BATCH, _POLL_SECONDS if timeout_seconds is None else timeout_seconds)
                delivered = self._up_to_ends(consumer, records, unread) if self._ends else self._all_of(records)
                if delivered or timeout_seconds is not None:
                    yield delivered
                    moved_at = time.monotonic()  # behind the yield: whoever takes a batch may take long
                elif unread and self._ends is not None and time.monotonic() - moved_at > self._patience_seconds:
                    raise self._stuck(unread)
        finally:
            consumer.close()

    def _all_of(self, records: Sequence[Record]) -> Sequence[Record]:
        delivered = []
        for record in records:
            if record.error() is None:
                self.offsets[record.partition() or 0] = (record.offset() or 0) + 1
                delivered.append(record)
            else:
                _is_end(self._clients, self._topic, record)
        return delivered

    def _up_to_ends(self, consumer: Consumer, records: Sequence[Record], unread: set[int]) -> Sequence[Record]:
        """What lies before the ends; partitions that have reached theirs leave ``unread``."""
        assert self._ends is not None
        delivered, reached, offsets, ends = [], set(), self.offsets, self._ends
        for record in records:
            partition, offset = record.partition() or 0, record.offset() or 0
            if record.error() is None:
                end = ends[partition]
                if offset < end:
                    offsets[partition] = offset + 1
                    delivered.append(record)
                if offset + 1 >= end:
                    reached.add(partition)
            elif _is_end(self._clients, self._topic, record) and offset >= ends[partition]:
                reached.add(partition)
        for partition in reached & unread:
            offsets[partition] = ends[partition]
            unread.discard(partition)
            consumer.incremental_unassign([TopicPartition(self._topic, partition)])
        return delivered

    def _stuck(self, unread: set[int]) -> WaitTimeout:
        assert self._ends is not None
        partition = min(unread)
        return WaitTimeout(
            f"{self._topic}[{partition}] does not go on from offset {self.offsets[partition]} to "
            f"{self._ends[partition]} within {self._patience_seconds:g} s: a transaction is open there, or the "
            "partition has no leader. Try again later."
        )


def _is_end(clients: Clients, topic: str, record: Record) -> bool:
    """Whether what came instead of a record says that a partition's end was reached. Raises what does not pass."""
    error = record.error()
    if error is not None and error.code() not in PASSING | NO_MEMBER | {KafkaError._PARTITION_EOF}:
        raise clients.error(error, f"reading {topic}")
    return error is not None and error.code() == KafkaError._PARTITION_EOF
