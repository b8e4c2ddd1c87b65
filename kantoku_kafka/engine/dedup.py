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

    Attributes:
        past: of the partition.
    """

    __slots__ = ("_seen", "past")

    def __init__(self, past: Past = NO_PAST) -> None:
        self.past = past
        self._seen: dict[bytes, tuple[int, int]] = {}  # in the order of the offsets

    def is_duplicate(self, task_id: str, offset: int, until_us: int, now_us: int) -> bool:
        """Whether it was spawned before, at another offset; else it is remembered until then."""
        self._forget(now_us)
        first, _ = self._seen.setdefault(packed_id(task_id), (offset, until_us))
        return first != offset

    def first_offset(self, now_us: int) -> int | None:
        """Of the oldest spawn that is remembered; None if there is none."""
        self._forget(now_us)
        for offset, _ in self._seen.values():
            return offset
        return None

    def _forget(self, now_us: int) -> None:
        seen = self._seen
        while seen:
            oldest = next(iter(seen))
            if seen[oldest][1] > now_us:
                return
            del seen[oldest]

    def __len__(self) -> int:
        return len(self._seen)
