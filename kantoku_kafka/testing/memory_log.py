"""What a Kafka cluster is to one group, in memory: topics, committed offsets, and who owns which partition."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import NamedTuple

from kantoku_kafka.errors import KantokuError
from kantoku_kafka.job import Message, Offset, Place
from kantoku_kafka.kafka.partitioner import partition_of
from kantoku_kafka.model import Headers, now_us
from kantoku_kafka.protocols import CheckpointRefused

__all__ = ["InMemoryLog", "Record"]


class Record(NamedTuple):
    """One committed record. A tombstone has an empty value here."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: Headers
    timestamp_us: int


class InMemoryLog:
    """Topics, committed offsets and the members of one group. Thread-safe.

    Readers are read_committed: what stands in an open or aborted transaction is never here. As in Kafka, a
    transaction leaves a gap in the offsets, and a member of an old generation commits nothing.

    Parameters:
        partitions: of every topic; default 4. Topics come to be when they are written to.
        max_record_bytes: what one record may have, key, value and headers; default 1,048,588, as in Kafka.
        clock: the time of the records, in microseconds; default the wall clock.
    """

    def __init__(
        self, *, partitions: int = 4, max_record_bytes: int = 1_048_588, clock: Callable[[], int] = now_us
    ) -> None:
        self.partitions = partitions
        self.max_record_bytes = max_record_bytes
        self._clock = clock
        self._changed = threading.Condition()
        self._version = 0
        self._topics: dict[str, list[Record]] = defaultdict(list)
        self._places: dict[Place, list[Record]] = defaultdict(list)
        self._ends: dict[Place, int] = defaultdict(int)
        self._blocked: dict[Place, int] = {}
        self._committed: dict[Place, Offset] = {}
        self._generation = 0
        self._members: dict[object, frozenset[str]] = {}
        self._joined: dict[object, int] = {}
        self._owners: dict[Place, object] = {}

    # --- for tests

    def append(self, *messages: Message) -> list[Record]:
        """Write records outside of any transaction; answers them as they stand now."""
        with self._changed:
            return self._append(messages)

    def read(self, topic: str) -> list[Record]:
        """All records of a topic, in the order in which they were written."""
        with self._changed:
            return list(self._topics.get(topic, ()))

    def committed(self, topic: str, partition: int) -> Offset:
        """Where the group stands; offset 0 and no metadata where it has not committed."""
        with self._changed:
            return self._position((topic, partition))

    def is_done(self, topics: Iterable[str]) -> bool:
        """Whether the group has committed every record of the topics as finished."""
        with self._changed:
            return self._is_done(set(topics))

    def wait_until_done(self, topics: Iterable[str], timeout_seconds: float) -> bool:
        """Wait for :meth:`is_done`; False if it takes longer than that."""
        names = set(topics)
        with self._changed:
            return self._changed.wait_for(lambda: self._is_done(names), timeout_seconds)

    def expel(self, member: object) -> None:
        """Throw Inputs out of the group, as after a session that timed out: they learn it at their next poll."""
        self.leave(member)

    def reset(self, topic: str) -> None:
        """Set the group back to the beginning of a topic, as an administrator does.

        Raises:
            KantokuError: it has members.
        """
        with self._changed:
            if self._members:
                raise KantokuError(
                    f"The group has {len(self._members)} members: its offsets can be set when it is empty."
                )
            self._committed = {place: offset for place, offset in self._committed.items() if place[0] != topic}

    def block(self, place: Place) -> None:
        """As a transaction that is open does: nobody sees what is written there from now on, until :meth:`unblock`."""
        with self._changed:
            self._blocked.setdefault(place, self._ends[place])

    def unblock(self, place: Place) -> None:
        """That transaction has ended."""
        with self._changed:
            self._blocked.pop(place, None)
            self._notify()

    # --- for the Transaction

    def publish(self, member: object, messages: Sequence[Message], offsets: Sequence[Offset]) -> None:
        """All of it or nothing.

        Raises:
            CheckpointRefused: a record is too large, or the member has missed a rebalance.
        """
        self.check(messages)
        with self._changed:
            if self._joined.get(member) != self._generation:
                raise CheckpointRefused("the group has a new generation, of which this member knows nothing yet")
            for offset in offsets:
                if self._owners.get((offset.topic, offset.partition)) is not member:
                    raise CheckpointRefused(f"{offset.topic}[{offset.partition}] is not assigned to this member")
            for place in {(record.topic, record.partition) for record in self._append(messages)}:
                self._ends[place] += 1  # where Kafka has the marker of the transaction
            self._committed |= {(offset.topic, offset.partition): offset for offset in offsets}
            self._notify()

    def check(self, messages: Iterable[Message]) -> None:
        """Raise CheckpointRefused, with ``culprit`` set, if one of the records is too large."""
        for message in messages:
            if self.is_too_large(message):
                raise CheckpointRefused(f"a record for {message.topic} is too large", culprit=True)

    def is_too_large(self, message: Message) -> bool:
        """Whether the log takes no record of this size."""
        headers = sum(len(name) + len(value or b"") for name, value in message.headers)
        return len(message.key or b"") + len(message.value or b"") + headers > self.max_record_bytes

    def end(self, place: Place) -> int:
        """The offset that comes next."""
        with self._changed:
            return self._ends[place]

    def stable_end(self, place: Place) -> int:
        """The last stable offset: nothing from there on can be seen now."""
        with self._changed:
            return self._blocked.get(place, self._ends[place])

    # --- for the Inputs, which are the members

    def join(self, member: object, topics: Iterable[str]) -> set[Place]:
        """Take part in the present generation; answers the places that are due to the member."""
        with self._changed:
            if member not in self._members:
                self._members[member] = frozenset(topics)
                self._generation += 1
                self._notify()
            self._joined[member] = self._generation
            return {place for topic in self._members[member] for place in self._share(member, topic)}

    def leave(self, member: object) -> None:
        """Go, and let go of every partition."""
        with self._changed:
            if self._members.pop(member, None) is not None:
                self._generation += 1
            self._joined.pop(member, None)
            self._owners = {place: owner for place, owner in self._owners.items() if owner is not member}
            self._notify()

    def owned(self, member: object) -> set[Place]:
        """What belongs to the member."""
        with self._changed:
            return {place for place, owner in self._owners.items() if owner is member}

    def claim(self, member: object, places: Iterable[Place]) -> list[Offset]:
        """Take those that nobody owns; answers where the group stands in each."""
        with self._changed:
            free = sorted(place for place in places if place not in self._owners)
            self._owners |= dict.fromkeys(free, member)
            return [self._position(place) for place in free]

    def release(self, places: Iterable[Place]) -> None:
        """Let others have these."""
        with self._changed:
            for place in places:
                self._owners.pop(place, None)
            self._notify()

    def fetch(self, place: Place, offset: int, limit: int) -> list[Record]:
        """Up to ``limit`` records from ``offset`` on."""
        with self._changed:
            records = self._places.get(place, [])
            first = bisect_left(records, offset, key=attrgetter("offset"))
            last = bisect_left(records, self.stable_end(place), key=attrgetter("offset"))
            return records[first : min(last, first + limit)]

    @property
    def version(self) -> int:
        """Changes with everything that is written, committed or handed over."""
        with self._changed:
            return self._version

    def wait(self, version: int, timeout_seconds: float) -> None:
        """Until the version is another one, or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._version != version, timeout_seconds)

    # --- below: under the lock

    def _append(self, messages: Iterable[Message]) -> list[Record]:
        now = self._clock()
        records = []
        for message in messages:
            place = message.topic, self._partition_of(message)
            record = Record(*place, self._ends[place], message.key, message.value or b"", message.headers, now)
            self._ends[place] += 1
            self._places[place].append(record)
            self._topics[message.topic].append(record)
            records.append(record)
        self._notify()
        return records

    def _partition_of(self, message: Message) -> int:
        if message.partition >= 0:
            return message.partition
        if message.key is None:  # in turn, as good as at random
            return len(self._topics[message.topic]) % self.partitions
        return partition_of(message.key, self.partitions)

    def _is_done(self, topics: set[str]) -> bool:
        return all(
            self._position(place).offset > records[-1].offset
            for place, records in self._places.items()
            if place[0] in topics and records
        )

    def _share(self, member: object, topic: str) -> list[Place]:
        takers = [other for other, topics in self._members.items() if topic in topics]
        return [(topic, p) for p in range(self.partitions) if takers[p % len(takers)] is member]

    def _position(self, place: Place) -> Offset:
        return self._committed.get(place) or Offset(*place, 0, "")

    def _notify(self) -> None:
        self._version += 1
        self._changed.notify_all()
