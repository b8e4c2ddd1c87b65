"""The pending timers of one partition, by due time.

They stand in a scratch database of SQLite's own on disk: memory stays bounded however many there are. It holds nothing
that the topic does not, and goes with the assignment.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from kantoku_kafka.engine.book import NEVER_US
from kantoku_kafka.errors import KantokuError

__all__ = ["Entry", "TimerTable"]

_SCHEMA = """
CREATE TABLE timers (offset INTEGER PRIMARY KEY, key BLOB UNIQUE, due_at_us INTEGER, value BLOB, attempt INTEGER);
CREATE INDEX timers_by_due_time ON timers (due_at_us, offset);
"""
_CACHE_KIB = 8 << 10


class Entry(NamedTuple):
    """A record of the partition. ``value`` None: a tombstone, of the timers of its key up to this attempt."""

    offset: int
    key: bytes
    due_at_us: int
    value: bytes | None
    attempt: int


class TimerTable:
    """One thread uses it.

    Attributes:
        outlived: by key, timers that a tombstone, which came late, must not have ended.
    """

    def __init__(self) -> None:
        self.outlived: dict[bytes, Entry] = {}
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._db.executescript(_SCHEMA)
        self._next_due_us: int | None = NEVER_US

    def take_in(self, entries: Iterable[Entry]) -> None:
        """Records in the order of the log. Of those with one key the last counts: it replaces, or a tombstone ends.

        Timers that a tombstone behind them does not end are not in the table any more either, but :attr:`outlived`:
        compaction will remove them.
        """
        pending: dict[bytes, Entry] = {}
        ended: dict[bytes, int] = {}
        outlived = self.outlived
        for entry in entries:
            key = entry.key
            if entry.value is not None:
                pending[key] = entry
                outlived.pop(key, None)
                continue
            ended[key] = max(entry.attempt, ended.get(key, 0))
            before = pending.pop(key, None) or outlived.pop(key, None)
            if before is not None and before.attempt > entry.attempt:
                outlived[key] = before
        if not pending and not ended:
            return
        with self._change() as db:
            for key, attempt in ended.items():
                for row in db.execute("SELECT * FROM timers WHERE key = ? AND attempt > ?", (key, attempt)):
                    if key not in pending:
                        outlived.setdefault(key, Entry._make(row))
            db.executemany("DELETE FROM timers WHERE key = ?", [(key,) for key in ended])
            db.executemany("INSERT OR REPLACE INTO timers VALUES (?, ?, ?, ?, ?)", pending.values())

    @property
    def next_due_us(self) -> int:
        """When the next one is due; far in the future if there is none."""
        if self._next_due_us is None:
            (found,) = self._db.execute("SELECT min(due_at_us) FROM timers").fetchone()
            self._next_due_us = NEVER_US if found is None else int(found)
        return self._next_due_us

    def take_due(self, now_us: int, most: int) -> list[tuple[int, bytes, bytes]]:
        """Up to so many that are due, the longest overdue first, as (offset, key, value); they are gone here."""
        if self.next_due_us > now_us:
            return []
        found: list[tuple[int, bytes, bytes]] = self._db.execute(
            "SELECT offset, key, value FROM timers WHERE due_at_us <= ? ORDER BY due_at_us, offset LIMIT ?",
            (now_us, most),
        ).fetchall()
        with self._change() as db:
            db.executemany("DELETE FROM timers WHERE offset = ?", [(offset,) for offset, _, _ in found])
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
            with self._change() as db:
                db.executemany("UPDATE timers SET due_at_us = 0 WHERE offset = ?", meant)

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """One transaction; what was the next due time is not known any more."""
        self._next_due_us = None
        try:
            self._db.execute("BEGIN")
            yield self._db
            self._db.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise KantokuError(
                f"The scratch file of pending timers cannot be written: {error}. Make room where temporary files go "
                "(SQLITE_TMPDIR or TMPDIR), and start again; nothing is lost."
            ) from error

    def __len__(self) -> int:
        (count,) = self._db.execute("SELECT count(*) FROM timers").fetchone()
        return int(count)

    @property
    def first_offset(self) -> int | None:
        """No timer is pending below it; None: none at all."""
        (found,) = self._db.execute("SELECT min(offset) FROM timers").fetchone()
        return None if found is None else int(found)

    def close(self) -> None:
        """Let go of the scratch. Idempotent."""
        self._db.close()
