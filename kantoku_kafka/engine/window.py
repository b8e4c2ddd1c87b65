"""Which offsets of one partition are unfinished: from that follows what a checkpoint commits. Pure.

Everything below ``next_offset`` that is not in ``_unfinished`` is done: finished, skipped because an earlier
checkpoint had it, or never a record at all (transaction markers, aborted and compacted records).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from kantoku_kafka.engine.dedup import Memory
from kantoku_kafka.engine.doneset import MAX_BITMAP_SPAN, MAX_RUNS, Run
from kantoku_kafka.engine.past import NO_PAST, Past

__all__ = ["Window"]


class Window:
    """The offsets of one assigned partition, from the committed one upwards. Not thread-safe.

    Parameters:
        offset: where the last checkpoint stood; the first record that may arrive.
        done: finished runs beyond ``offset``, as that checkpoint recorded them.
        history_end: records below it are read for their ids only.
        past: what had become of records beyond ``offset`` before the group was set back.

    Attributes:
        memory: the ids that were spawned here.
    """

    __slots__ = ("_begin", "_highest_done", "_history_end", "_restored", "_unfinished", "memory", "next_offset")

    def __init__(self, offset: int, done: Sequence[Run] = (), history_end: int = 0, past: Past = NO_PAST) -> None:
        self._begin, self._history_end = offset, history_end
        self.memory = Memory(past)
        self.next_offset = offset
        self._unfinished: dict[int, None] = {}  # admitted, ascending: a dict keeps the order and forgets in O(1)
        self._highest_done = -1
        self._restored = list(done)

    def admit(self, offset: int) -> bool:
        """Take note of a record that arrived, in ascending order; False if it was done before.

        An offset that was passed already comes back only where the log was truncated: these are other records then, and
        nothing that was known of the partition is true any more.
        """
        if offset < self.next_offset:
            self._unfinished.clear()
            self._restored.clear()
            self._highest_done = -1
            self.memory = Memory()
            self._history_end = 0
        self.next_offset = offset + 1
        if self._restored:
            while self._restored and self._restored[0][1] <= offset:
                self._restored.pop(0)
            if self._restored and self._restored[0][0] <= offset:
                self._highest_done = offset
                return False
        self._unfinished[offset] = None
        return True

    def finish(self, offset: int) -> None:
        """The task of an admitted record is terminal. Of any other offset nothing is taken note of."""
        if offset in self._unfinished:
            del self._unfinished[offset]
            if offset > self._highest_done:
                self._highest_done = offset

    @property
    def unfinished(self) -> int:
        """How many admitted records are not finished."""
        return len(self._unfinished)

    @property
    def base(self) -> int:
        """The offset to commit: everything below it is done."""
        if self._unfinished:
            return next(iter(self._unfinished))
        base = self.next_offset
        for start, end in self._restored:
            if start > base:
                break
            base = max(base, end)
        return base

    @property
    def limit(self) -> int:
        """Records below this offset may be admitted: whatever becomes of them fits the metadata as a bitmap."""
        restored_end = self._restored[-1][1] if self._restored else 0
        return max(self.base + MAX_BITMAP_SPAN, restored_end)

    def may_admit(self, offset: int) -> bool:
        """True if the record may be admitted; else it has to wait until older ones finish.

        Beyond the span of a bitmap it is the number of runs that counts, and there cannot be more runs than
        unfinished records to divide them.
        """
        return offset < self.limit or len(self._unfinished) < MAX_RUNS - 1

    @property
    def remembered_from(self) -> int | None:
        """From where on a successor has to know the ids; what we have not read again ourselves yet, it has to."""
        if self.next_offset < self._history_end:
            return self._begin
        return self.memory.first_offset

    @property
    def past_end(self) -> int | None:
        """Up to where a successor has to know the past, if there is one."""
        return self.memory.past.end or None

    def done_runs(self) -> list[Run]:
        """The finished runs beyond ``base``, ascending: what a checkpoint records besides ``base``."""
        runs: list[Run] = []
        base = self.base
        if self._highest_done > base:
            last = base
            for offset in takewhile(self._highest_done.__ge__, self._unfinished):
                if offset > last + 1:
                    runs.append((last + 1, offset))
                last = offset
            if self._highest_done > last:
                runs.append((last + 1, self._highest_done + 1))
        for start, end in self._restored:
            start = max(start, self.next_offset)
            if start > base and end > start:
                if runs and runs[-1][1] >= start:
                    runs[-1] = (runs[-1][0], end)
                else:
                    runs.append((start, end))
        return runs
