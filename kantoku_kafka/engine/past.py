"""What had become of a partition's tasks before the group's offset was set back, or lost: told by results and events.

Where an offset is not one that a checkpoint committed, nobody knows from the group what was done beyond it. But what
was done has left a result, or an event that says where its task went on; each names the record it came from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import NamedTuple

from kantoku_kafka.errors import EnvelopeError
from kantoku_kafka.ids import packed_id
from kantoku_kafka.job import Place
from kantoku_kafka.model import EventName
from kantoku_kafka.protocols import Codec

__all__ = ["NO_PAST", "History", "Past", "Recollection"]

_MOVED = tuple(f"/{name}".encode() for name in (EventName.DELAYED, EventName.RETRY_SCHEDULED, EventName.DUPLICATE))


class Past(NamedTuple):
    """Of one partition.

    ``ended``: by the packed id of each task that has a result the offset of its last record that ended so; ``moved``:
    packed ids and offsets of records whose task went on elsewhere, or was a duplicate (offsets alone would speak of
    whatever stands there in a mirror, or in a topic that was created anew); all from ``begin`` on and before ``end``.
    """

    ended: Mapping[bytes, int] = {}
    moved: Set[tuple[bytes, int]] = frozenset()
    begin: int = 0
    end: int = 0

    def tells_of(self, task_id: str, offset: int) -> bool:
        """Whether it is known what became of this record. Of a later spawn of the same id that is not told."""
        if offset >= self.end:
            return False
        packed = packed_id(task_id)
        return (packed, offset) in self.moved or self.ended.get(packed, -1) >= offset


NO_PAST = Past()
History = Callable[[Sequence[Place]], Mapping[Place, Past]]
"""Tells the past of partitions, given by topic and number; of those without one it says nothing. May block."""


@dataclass(slots=True)
class _Gathered:
    ended: dict[bytes, int] = field(default_factory=dict)
    moved: set[tuple[bytes, int]] = field(default_factory=set)


class Recollection:
    """Gathers the past of some partitions, record by record. Pure.

    Parameters:
        codec: of the envelopes; what it cannot read tells nothing.
        places: the partitions.
    """

    def __init__(self, codec: Codec, places: Iterable[Place]) -> None:
        self._codec = codec
        self._gathered = {place: _Gathered() for place in places}

    def result(self, value: bytes) -> None:
        """A record of the results."""
        try:
            result = self._codec.decode_result(value)
        except EnvelopeError:
            return
        if gathered := self._gathered.get(result.source[:2]):
            key, offset = packed_id(result.task_id), result.source[2]
            gathered.ended[key] = max(gathered.ended.get(key, -1), offset)

    def event(self, key: bytes, value: bytes) -> None:
        """A record of the events; most need not be read."""
        if not key.endswith(_MOVED):
            return
        try:
            event = self._codec.decode_event(value)
        except EnvelopeError:
            return
        source = event.source
        if source is not None and (gathered := self._gathered.get(source[:2])):
            gathered.moved.add((packed_id(event.task_id), source[2]))

    @property
    def pasts(self) -> dict[Place, Past]:
        """Of the partitions that have one."""
        return {place: past for place, g in self._gathered.items() if (past := _past(g)) is not NO_PAST}


def _past(gathered: _Gathered) -> Past:
    offsets = {offset for _, offset in gathered.moved}.union(gathered.ended.values())
    if not offsets:
        return NO_PAST
    return Past(gathered.ended, gathered.moved, min(offsets), max(offsets) + 1)
