"""Which tasks of one partition were spawned before. Pure.

The same id always lands in the same partition, so the owner of the partition sees every spawn of it. How far back it
has to read to know them again, after a restart, stands in the commit metadata.
"""

from __future__ import annotations

from kantoku_kafka.engine.past import NO_PAST, Past
from kantoku_kafka.ids import packed_id

__all__ = ["Memory"]


class Memory:
    """Ids with the offset of their first spawn, for as long as each is remembered. One thread uses it.

    Time is that of the spawns, not of the clock: who is hours behind recognises what one that is not would.

    Attributes:
        past: of the partition.
    """

    __slots__ = ("_latest_us", "_seen", "past")

    def __init__(self, past: Past = NO_PAST) -> None:
        self.past = past
        self._seen: dict[bytes, tuple[int, int]] = {}  # in the order of the offsets
        self._latest_us = 0

    def is_duplicate(self, task_id: str, offset: int, until_us: int, made_us: int) -> bool:
        """Whether it was spawned before, at another offset; else it is remembered until something is made then."""
        self.pass_by(made_us)
        first, _ = self._seen.setdefault(packed_id(task_id), (offset, until_us))
        return first != offset

    def pass_by(self, made_us: int) -> None:
        """Something was spawned then, whatever it is: what is over by then is forgotten."""
        self._latest_us = max(self._latest_us, made_us)
        seen = self._seen
        while seen:
            oldest = next(iter(seen))
            if seen[oldest][1] > self._latest_us:
                return
            del seen[oldest]

    @property
    def first_offset(self) -> int | None:
        """Of the oldest spawn that is remembered; None if there is none."""
        for offset, _ in self._seen.values():
            return offset
        return None

    def __len__(self) -> int:
        return len(self._seen)
