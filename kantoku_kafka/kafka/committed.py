"""What the group has committed, and whether that is what this process knows of it."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Sequence

from confluent_kafka import KafkaException, TopicPartition

from kantoku_kafka.job import Offset, Place
from kantoku_kafka.kafka.clients import Clients
from kantoku_kafka.kafka.membership import writer_of

__all__ = ["CommittedOffsets"]


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

    def watch(self, found: Iterable[TopicPartition]) -> None:
        """We hold these from now on, and this is how we have found them."""
        with self._lock:
            self._known |= _by_place(found)

    def forget(self, places: Iterable[Place]) -> None:
        """We hold these no longer."""
        with self._lock:
            for place in places:
                self._known.pop(place, None)

    def note(self, offsets: Sequence[Offset]) -> None:
        """We have committed these."""
        with self._lock:
            for o in offsets:
                if (o.topic, o.partition) in self._known:
                    self._known[o.topic, o.partition] = o

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
        found = self._read([(o.topic, o.partition) for o in offsets])
        happened = any(found[o.topic, o.partition] == o for o in offsets)
        if happened:
            self.note(offsets)
        return happened

    def _read(self, places: Collection[Place], *, settled: bool = True) -> dict[Place, Offset]:
        isolation = "read_committed" if settled else "read_uncommitted"
        observer = self._clients.consumer(**{"group.id": self._group, "isolation.level": isolation})
        try:
            found = observer.committed([TopicPartition(*place) for place in places], self._timeout_seconds)
        except KafkaException as error:
            raise self._clients.error(error.args[0], "reading the committed offsets") from error
        finally:
            observer.close()
        if failed := next((f.error for f in found if f.error is not None), None):
            raise self._clients.error(failed, "reading the committed offsets") from KafkaException(failed)
        return _by_place(found)


def _by_place(committed: Iterable[TopicPartition]) -> dict[Place, Offset]:
    return {(c.topic, c.partition): Offset(c.topic, c.partition, c.offset, c.metadata or "") for c in committed}
