"""What the group has committed, and whether that is what this process knows of it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from confluent_kafka import Consumer, KafkaException, TopicPartition

from kantoku_kafka.job import Offset, Place
from kantoku_kafka.kafka.clients import Clients
from kantoku_kafka.kafka.codes import UNSTABLE
from kantoku_kafka.kafka.membership import writer_of

__all__ = ["CommittedOffsets", "committed_offsets", "observer", "offsets_of"]


@contextmanager
def observer(clients: Clients, group: str, *, settled: bool) -> Iterator[Consumer]:
    """A consumer that knows the group's offsets and is no member of it.

    Parameters:
        settled: wait for what open transactions may change; else they say what was committed before.
    """
    isolation = "read_committed" if settled else "read_uncommitted"
    consumer = clients.consumer(**{"group.id": group, "isolation.level": isolation})
    try:
        yield consumer
    finally:
        consumer.close()


def offsets_of(consumer: Consumer, places: Iterable[Place], timeout_seconds: float) -> list[Offset]:
    """What the consumer's group has committed, negative where nothing. Raises KafkaException, also for one of them."""
    found = consumer.committed([TopicPartition(*place) for place in places], timeout_seconds)
    for one in found:
        if one.error is not None:
            raise KafkaException(one.error)
    return [Offset(one.topic, one.partition, one.offset, one.metadata or "") for one in found]


def committed_offsets(
    clients: Clients, group: str, places: Iterable[Place], *, settled: bool, seconds: float | None = None
) -> list[Offset]:
    """As :func:`offsets_of` of an :func:`observer`, asked until it answers.

    Parameters:
        seconds: how long, default: the connection's timeout.

    Raises:
        AccessDenied, BrokerUnavailable, KantokuError.
    """
    wanted, timeout_seconds = list(places), clients.connection.timeout_seconds
    with observer(clients, group, settled=settled) as consumer:
        return clients.insist(
            lambda: offsets_of(consumer, wanted, timeout_seconds),
            f"reading the committed offsets of {group}",
            UNSTABLE,
            seconds,
        )


class CommittedOffsets:
    """The group's offsets, and those that we know of: of partitions that others may commit in our name.

    A producer that is replaced ends the epoch of whoever took its transactional id meanwhile, and learns nothing of
    it. What that one has committed shows here: each commit names the slot of its writer. Thread-safe; what reads blocks
    for a request.

    Parameters:
        clients: the connection.
        group: whose offsets these are.
        slot: of this process.
        timeout_seconds: for one request to Kafka.
    """

    def __init__(self, clients: Clients, group: str, slot: str, timeout_seconds: float) -> None:
        self._clients = clients
        self._group = group
        self._slot = slot
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        self._known: dict[Place, Offset] = {}

    def watch(self, found: Iterable[Offset]) -> None:
        """We hold these from now on, and this is how we have found them."""
        with self._lock:
            self._known |= {offset.place: offset for offset in found}

    def forget(self, places: Iterable[Place]) -> None:
        """We hold these no longer."""
        with self._lock:
            for place in places:
                self._known.pop(place, None)

    def note(self, offsets: Sequence[Offset]) -> None:
        """We have committed these."""
        with self._lock:
            self._known |= {offset.place: offset for offset in offsets if offset.place in self._known}

    def by_a_twin(self, *, settled: bool = True) -> bool:
        """Whether another process of our slot has committed what we hold. Raises KantokuError if nobody tells.

        What was inherited may have gone to another slot meanwhile: that is no twin, and the group fences our commits.
        ``settled``: wait for what open transactions may change. One of our own ends only with its producer's epoch.
        """
        with self._lock:
            known = dict(self._known)
        found = self._read(known, settled=settled) if known else {}
        writers = (writer_of(offset) for place, offset in found.items() if offset != known[place])
        return any(writer is not None and writer.slot == self._slot for writer in writers)

    def happened(self, offsets: Sequence[Offset]) -> bool:
        """Whether a commit of these did, as its producer's next epoch has begun. Raises KantokuError.

        Each names its checkpoint, so one that is found is enough: a partition that went elsewhere may name another.
        """
        found = self._read([offset.place for offset in offsets])
        happened = any(found[offset.place] == offset for offset in offsets)
        if happened:
            self.note(offsets)
        return happened

    def _read(self, places: Iterable[Place], *, settled: bool = True) -> dict[Place, Offset]:
        try:
            with observer(self._clients, self._group, settled=settled) as consumer:
                found = offsets_of(consumer, places, self._timeout_seconds)
        except KafkaException as error:
            raise self._clients.error(error.args[0], "reading the committed offsets") from error
        return {offset.place: offset for offset in found}
