"""The timers of one assigned partition: which are due, and from where a successor has to read.

They stand in a scratch database of SQLite's own on disk: memory stays bounded however many there are. It holds nothing
that the topic does not, and goes with the assignment.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from kantoku_kafka.engine.doneset import Run

__all__ = ["Entry", "TimerBook"]

_SCHEMA = """
CREATE TABLE timers (offset INTEGER PRIMARY KEY, key BLOB UNIQUE, due_at_us INTEGER, value BLOB);
CREATE INDEX timers_by_due_time ON timers (due_at_us, offset);
"""
_CACHE_KIB = 8 << 10
_LARGEST = (1 << 63) - 1


class Entry(NamedTuple):
    """A record of the partition. ``value`` None: a tombstone."""

    offset: int
    key: bytes
    due_at_us: int
    value: bytes | None


class TimerBook:
    """One thread uses it.

    Parameters:
        offset: where the last checkpoint stood: every timer that is pending stands there or behind.
        end: behind the last record that an earlier owner can have written. Nothing may fire before it was read.
    """

    def __init__(self, offset: int, end: int) -> None:
        self.end = end
        self.next_offset = offset
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._db.executescript(_SCHEMA)
        self._next_due_us: int | None = _LARGEST

    def take_in(self, entries: Iterable[Entry]) -> None:
        """Records in the order of the log. Of those with one key the last counts: it replaces, or a tombstone ends."""
        last = {}
        for entry in entries:
            last[entry.key] = entry
            self.next_offset = entry.offset + 1
        if not last:
            return
        self._db.execute("BEGIN")
        self._db.executemany("DELETE FROM timers WHERE key = ?", [(key,) for key, e in last.items() if e.value is None])
        pending = [entry for entry in last.values() if entry.value is not None]
        self._db.executemany("INSERT OR REPLACE INTO timers VALUES (?, ?, ?, ?)", pending)
        self._db.execute("COMMIT")
        self._next_due_us = None

    def was_read_up_to(self, offset: int) -> None:
        """There is nothing more below this offset."""
        self.next_offset = max(self.next_offset, offset)

    @property
    def is_whole(self) -> bool:
        """Whether everything was read that an earlier owner can have written."""
        return self.next_offset >= self.end

    @property
    def next_due_us(self) -> int:
        """When the next one is due; far in the future if there is none."""
        if self._next_due_us is None:
            (found,) = self._db.execute("SELECT min(due_at_us) FROM timers").fetchone()
            self._next_due_us = _LARGEST if found is None else int(found)
        return self._next_due_us

    def take_due(self, now_us: int, most: int) -> list[tuple[int, bytes, bytes]]:
        """Up to so many that are due, the longest overdue first, as (offset, key, value); they are gone here."""
        if self.next_due_us > now_us:
            return []
        found: list[tuple[int, bytes, bytes]] = self._db.execute(
            "SELECT offset, key, value FROM timers WHERE due_at_us <= ? ORDER BY due_at_us, offset LIMIT ?",
            (now_us, most),
        ).fetchall()
        self._remove([offset for offset, _, _ in found])
        return found

    def hasten(self, is_meant: Callable[[bytes], bool], keys: Sequence[bytes] | None) -> None:
        """Let timers be due at once, as their values say: of these keys, or of any if ``keys`` is None."""
        if keys is None:
            rows = self._db.execute("SELECT offset, value FROM timers")
        else:
            marks = ",".join("?" * len(keys))
            rows = self._db.execute(f"SELECT offset, value FROM timers WHERE key IN ({marks})", keys)
        meant = [(offset,) for offset, value in rows if is_meant(value)]
        if meant:
            self._db.execute("BEGIN")
            self._db.executemany("UPDATE timers SET due_at_us = 0 WHERE offset = ?", meant)
            self._db.execute("COMMIT")
            self._next_due_us = None

    def _remove(self, offsets: Sequence[int]) -> None:
        self._db.execute("BEGIN")
        self._db.executemany("DELETE FROM timers WHERE offset = ?", [(offset,) for offset in offsets])
        self._db.execute("COMMIT")
        self._next_due_us = None

    def __len__(self) -> int:
        (count,) = self._db.execute("SELECT count(*) FROM timers").fetchone()
        return int(count)

    @property
    def base(self) -> int:
        """The offset to commit: no timer is pending below it."""
        (found,) = self._db.execute("SELECT min(offset) FROM timers").fetchone()
        return self.next_offset if found is None else int(found)

    def remembered_from(self, now_us: int) -> int | None:  # noqa: ARG002 - as a window has it
        """Nothing: of one id the last record counts."""
        return None

    def done_runs(self) -> list[Run]:
        """None: what is done beyond :attr:`base` is known by its tombstone."""
        return []

    def close(self) -> None:
        """Let go of the scratch. Idempotent."""
        self._db.close()
