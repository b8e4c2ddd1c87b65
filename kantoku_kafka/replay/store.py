"""Task states in SQLite, folded from the audit topic in batches: memory stays bounded whatever the log holds.

In a file it is the *view*, kept up to date from call to call; without one it is the scratch of a snapshot. It holds
nothing that the topic does not: it can be deleted at any time.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kantoku_kafka.errors import KantokuError
from kantoku_kafka.model import ErrorInfo, Event, Source
from kantoku_kafka.replay.fold import Fold, LoggedEvent, Phase, TaskState

__all__ = ["StoreUnusable", "TaskQuery", "TaskStore", "remove"]

_SCHEMA = """
CREATE TABLE tasks (
    id TEXT PRIMARY KEY, partition INTEGER, type TEXT, phase TEXT, status TEXT, created_at_us INTEGER,
    updated_at_us INTEGER, finished_at_us INTEGER, restarted_from TEXT, labels TEXT, history TEXT
) WITHOUT ROWID;
CREATE INDEX tasks_by_creation ON tasks (created_at_us);
CREATE INDEX tasks_by_origin ON tasks (restarted_from) WHERE restarted_from IS NOT NULL;
CREATE TABLE offsets (partition INTEGER PRIMARY KEY, offset INTEGER);
CREATE TABLE origin (name TEXT, unreadable INTEGER);
"""
_VERSION = zlib.crc32(_SCHEMA.encode()) >> 1  # SQLite keeps 32 bits with a sign
_UPSERT = "INSERT OR REPLACE INTO tasks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_IDS_PER_QUERY = 900


class StoreUnusable(KantokuError):
    """The file is damaged, or of another version or another topic: begin a new one."""


class TaskQuery:
    """Which tasks are wanted; what is None does not matter. Immutable.

    Parameters:
        task_type, status, phase: must equal.
        labels: all of these.
        since_us, until_us: spawned at or after, and before.
        text: occurs somewhere in the task's history: its id, an error, an attribute.
        finished_before_us: ended before.
    """

    def __init__(
        self,
        *,
        task_type: str | None = None,
        status: str | None = None,
        phase: Phase | None = None,
        labels: Mapping[str, str] | None = None,
        since_us: int | None = None,
        until_us: int | None = None,
        text: str | None = None,
        finished_before_us: int | None = None,
    ) -> None:
        wanted: list[tuple[str, Any]] = [
            ("type = ?", task_type),
            ("status = ?", status),
            ("phase = ?", phase.value if phase else None),
            ("created_at_us >= ?", since_us),
            ("created_at_us < ?", until_us),
            ("finished_at_us < ?", finished_before_us),
            ("instr(id || history, ?)", text),
        ]
        wanted += [
            ("EXISTS (SELECT 1 FROM json_each(labels) WHERE key = ? AND value = ?)", pair)
            for pair in (labels or {}).items()
        ]
        chosen = [(condition, value) for condition, value in wanted if value is not None]
        self.condition = " AND ".join(condition for condition, _ in chosen) or "1"
        self.values = [v for _, value in chosen for v in (value if isinstance(value, tuple) else (value,))]


class TaskStore:
    """One thread uses it; several processes may share the file.

    Parameters:
        path: the file; None: a scratch of SQLite's own, which goes with the store.
        origin: what is folded here, and by whom: topic, its id, our version; a file of another origin is refused.
        fold: how states come about.

    Raises:
        StoreUnusable: see there.
        KantokuError: the file cannot be opened.
    """

    def __init__(self, path: Path | None, origin: str, fold: Fold | None = None) -> None:
        self._fold = fold or Fold()
        self._path = path
        with self._guarded():
            self._db = sqlite3.connect("" if path is None else path, timeout=60, isolation_level=None)
            try:
                self._open(origin)
            except BaseException:
                self._db.close()
                raise

    def _open(self, origin: str) -> None:
        self._db.execute("PRAGMA journal_mode = WAL" if self._path else "PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA synchronous = OFF")  # what a crash may damage is made anew
        self._db.execute("PRAGMA cache_size = -32768")
        with self.writing():
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute("INSERT INTO origin VALUES (?, 0)", (origin,))
                self._db.execute(f"PRAGMA user_version = {_VERSION}")
            elif version != _VERSION or self._db.execute("SELECT name FROM origin").fetchone() != (origin,):
                raise StoreUnusable(f"{self._path} is of another version or topic.")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One transaction: all of it, or nothing. Other processes wait meanwhile."""
        with self._guarded():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @property
    def offsets(self) -> dict[int, int]:
        """Up to where the topic is folded in, by partition."""
        with self._guarded():
            return dict(self._db.execute("SELECT partition, offset FROM offsets"))

    @property
    def unreadable(self) -> int:
        """How many records of the topic are left out here, because this version cannot read them."""
        with self._guarded():
            found: int = self._db.execute("SELECT unreadable FROM origin").fetchone()[0]
            return found

    def leave_out(self, count: int) -> None:
        """So many records could not be read. Within :meth:`writing`."""
        self._db.execute("UPDATE origin SET unreadable = unreadable + ?", (count,))

    def add(self, events: Iterable[LoggedEvent], offsets: Mapping[int, int]) -> None:
        """Fold these in, and note that the topic is folded in up to these offsets. Within :meth:`writing`."""
        fresh: defaultdict[str, list[LoggedEvent]] = defaultdict(list)
        for logged in events:
            fresh[logged.event.task_id].append(logged)
        for task_id, history in self._histories(list(fresh)):
            fresh[task_id] += history
        self._db.executemany(_UPSERT, [_row(self._fold.state(history)) for history in fresh.values()])
        self._note(offsets)

    def remove(self, keys: Iterable[tuple[str, int, str]], offsets: Mapping[int, int]) -> None:
        """Tombstones came by for these (task id, attempt, name). Within :meth:`writing`."""
        gone: defaultdict[str, set[tuple[int, str]]] = defaultdict(set)
        for task_id, attempt, name in keys:
            gone[task_id].add((attempt, name))
        for task_id, history in list(self._histories(list(gone))):
            left = [logged for logged in history if (logged.event.attempt, logged.event.name) not in gone[task_id]]
            if left:
                self._db.execute(_UPSERT, _row(self._fold.state(left)))
            else:
                self._db.execute("DELETE FROM tasks WHERE id = ?", (task_id,))
        self._note(offsets)

    def get(self, task_id: str) -> TaskState | None:
        """The state of one task."""
        with self._guarded():
            return next((self._fold.state(history) for _, history in self._histories([task_id])), None)

    def restarts(self, task_id: str) -> list[str]:
        """The tasks that were spawned as a restart of this one."""
        with self._guarded():
            found = self._db.execute("SELECT id FROM tasks WHERE restarted_from = ? ORDER BY id", (task_id,))
            return [restart for (restart,) in found]

    def count(self, query: TaskQuery) -> int:
        """How many tasks match."""
        with self._guarded():
            condition = f"SELECT count(*) FROM tasks WHERE {query.condition}"
            found: int = self._db.execute(condition, query.values).fetchone()[0]
            return found

    def find(self, query: TaskQuery, limit: int | None = None, newest_first: bool = False) -> Iterator[TaskState]:
        """Matching tasks by the time of their spawn."""
        order = "DESC" if newest_first else "ASC"
        statement = (
            f"SELECT id, type, partition, history FROM tasks WHERE {query.condition} "
            f"ORDER BY created_at_us {order}, id {order} LIMIT ?"
        )
        with self._guarded():
            for row in self._db.execute(statement, [*query.values, -1 if limit is None else limit]):
                yield self._fold.state(_history(*row))

    def close(self) -> None:
        """Idempotent."""
        self._db.close()

    def _histories(self, ids: Sequence[str]) -> Iterator[tuple[str, list[LoggedEvent]]]:
        for at in range(0, len(ids), _IDS_PER_QUERY):
            some = ids[at : at + _IDS_PER_QUERY]
            marks = ",".join("?" * len(some))
            for row in self._db.execute(f"SELECT id, type, partition, history FROM tasks WHERE id IN ({marks})", some):
                yield row[0], _history(*row)

    def _note(self, offsets: Mapping[int, int]) -> None:
        self._db.executemany("INSERT OR REPLACE INTO offsets VALUES (?, ?)", offsets.items())

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """SQLite's errors as ours."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            name = str(self._path or "the scratch of the snapshot")
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise KantokuError(f"No space is left for {name}: make room, or set TMPDIR to another disk.") from error
            if error.sqlite_errorcode in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
                raise StoreUnusable(f"{name} is damaged: {error}. It can be deleted.") from error
            raise KantokuError(f"{name} cannot be used: {error}.") from error


def remove(path: Path) -> None:
    """Delete a store's file, with those that SQLite keeps beside it. Raises KantokuError."""
    for name in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        try:
            name.unlink(missing_ok=True)
        except OSError as error:
            raise KantokuError(f"{name} cannot be removed: {error.strerror}.") from error


def _row(state: TaskState) -> tuple[Any, ...]:
    first = state.history[0]
    created_at_us = state.spawned_at_us or state.received_at_us or min(h.event.at_us for h in state.history)
    history = [
        (
            e.name,
            e.attempt,
            e.at_us,
            logged.offset,
            e.executor_id,
            e.source,
            e.error,
            e.attributes,
            *(() if e.type == state.type else (e.type,)),
        )
        for logged in state.history
        for e in (logged.event,)
    ]
    return (
        state.task_id,
        first.partition,
        state.type,
        state.phase.value,
        state.status,
        created_at_us,
        state.updated_at_us,
        state.finished_at_us,
        state.restarted_from,
        json.dumps(state.labels),
        json.dumps(history, ensure_ascii=False, separators=(",", ":")),
    )


def _history(task_id: str, type_: str, partition: int, history: str) -> list[LoggedEvent]:
    return [
        LoggedEvent(
            Event(
                task_id,
                other[0] if other else type_,
                name,
                attempt,
                at_us,
                executor_id,
                Source(*source) if source else None,
                ErrorInfo(*error) if error else None,
                attributes,
            ),
            partition,
            offset,
        )
        for name, attempt, at_us, offset, executor_id, source, error, attributes, *other in json.loads(history)
    ]
