"""Task states in SQLite, folded from the audit topic in batches: memory stays bounded whatever the log holds.

In a file it is the *view*, kept up to date from call to call; without one it is the scratch of a snapshot. It holds
nothing that the topic does not: it can be deleted at any time.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kantoku_kafka.errors import KantokuError, UsageError
from kantoku_kafka.model import now_us
from kantoku_kafka.replay.fold import Fold, LoggedEvent, TaskState
from kantoku_kafka.replay.query import TaskQuery, mentions
from kantoku_kafka.replay.rows import HISTORY, TABLE, UPSERT, Damaged, history_of, row_of

__all__ = ["StoreUnusable", "TaskStore", "remove"]

_SCHEMA = f"""{TABLE};
CREATE INDEX tasks_by_creation ON tasks (created_at_us);
CREATE INDEX tasks_by_origin ON tasks (restarted_from) WHERE restarted_from IS NOT NULL;
CREATE TABLE offsets (partition INTEGER PRIMARY KEY, offset INTEGER);
CREATE TABLE origin (name TEXT, unreadable INTEGER, refreshed_at_us INTEGER);
"""
_VERSION = zlib.crc32(_SCHEMA.encode()) >> 1  # SQLite keeps 32 bits with a sign
_APPLICATION_ID = int.from_bytes(b"kkfv")
_ID_AT, _ID_TO = 68, 72  # where SQLite's header has it: damage elsewhere does not make a file another one's
_NOTE = "INSERT INTO offsets VALUES (?, ?) ON CONFLICT DO UPDATE SET offset = max(offset, excluded.offset)"
_IDS_PER_QUERY = 900


class StoreUnusable(KantokuError):
    """The file is damaged, or of another version or another topic: begin a new one."""


class TaskStore:
    """One thread uses it; several processes may share the file.

    Parameters:
        path: the file; None: a scratch of SQLite's own, which goes with the store.
        origin: what is folded here, and by whom: topic, its id, our version; a file of another origin is refused.
        fold: how states come about.

    Raises:
        StoreUnusable: see there.
        UsageError: the file is something else.
        KantokuError: the file cannot be opened.
    """

    def __init__(self, path: Path | None, origin: str, fold: Fold | None = None) -> None:
        self._fold = fold or Fold()
        self._path = path
        if path is not None:
            _check_own(path)
        with self._guarded():
            self._db = sqlite3.connect("" if path is None else path, timeout=60, isolation_level=None)
            try:
                self._open(origin)
            except BaseException:
                self._db.close()
                raise

    def _open(self, origin: str) -> None:
        if self._path and self._db.execute("PRAGMA application_id").fetchone() != (_APPLICATION_ID,):
            self._db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")  # before WAL: into the file itself
        self._db.execute("PRAGMA journal_mode = WAL" if self._path else "PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA synchronous = OFF")  # what a crash may damage is made anew
        self._db.execute("PRAGMA cache_size = -32768")
        self._db.create_function("mentions", 2, mentions, deterministic=True)
        with self.writing():
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute("INSERT INTO origin VALUES (?, 0, ?)", (origin, now_us()))
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
            found: list[tuple[Any, Any]] = self._db.execute("SELECT partition, offset FROM offsets").fetchall()
        if not all(isinstance(number, int) for place in found for number in place):
            raise StoreUnusable(f"{self._name} is damaged: an offset is no number. It can be deleted.")
        return dict(found)

    @property
    def unreadable(self) -> int:
        """How many records of the topic are left out here, because this version cannot read them."""
        with self._guarded():
            found: int = self._db.execute("SELECT unreadable FROM origin").fetchone()[0]
            return found

    @property
    def refreshed_at_us(self) -> int:
        """When it was up to date last."""
        with self._guarded():
            found: int = self._db.execute("SELECT refreshed_at_us FROM origin").fetchone()[0]
            return found

    def refreshed(self, at_us: int) -> None:
        """It is up to date as of this time. Within :meth:`writing`."""
        self._db.execute("UPDATE origin SET refreshed_at_us = ?", (at_us,))

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
        self._db.executemany(UPSERT, [row_of(self._fold.state(history)) for history in fresh.values()])
        self._note(offsets)

    def remove(self, keys: Iterable[tuple[str, int, str]], offsets: Mapping[int, int]) -> None:
        """Tombstones came by for these (task id, attempt, name). Within :meth:`writing`."""
        gone: defaultdict[str, set[tuple[int, str]]] = defaultdict(set)
        for task_id, attempt, name in keys:
            gone[task_id].add((attempt, name))
        for task_id, history in list(self._histories(list(gone))):
            left = [logged for logged in history if (logged.event.attempt, logged.event.name) not in gone[task_id]]
            if left:
                self._db.execute(UPSERT, row_of(self._fold.state(left)))
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
            f"SELECT {HISTORY} FROM tasks WHERE {query.condition} ORDER BY created_at_us {order}, id {order} LIMIT ?"
        )
        with self._guarded():
            for row in self._db.execute(statement, [*query.values, -1 if limit is None else limit]):
                yield self._fold.state(history_of(*row))

    def close(self) -> None:
        """Idempotent."""
        self._db.close()

    def _histories(self, ids: Sequence[str]) -> Iterator[tuple[str, list[LoggedEvent]]]:
        for at in range(0, len(ids), _IDS_PER_QUERY):
            some = ids[at : at + _IDS_PER_QUERY]
            marks = ",".join("?" * len(some))
            for row in self._db.execute(f"SELECT {HISTORY} FROM tasks WHERE id IN ({marks})", some):
                yield row[0], history_of(*row)

    def _note(self, offsets: Mapping[int, int]) -> None:
        self._db.executemany(_NOTE, offsets.items())

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """SQLite's errors as ours."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", None)  # what the sqlite3 module finds itself has none
            if code == sqlite3.SQLITE_FULL:
                raise KantokuError(
                    f"No space is left for {self._name}: make room, or set TMPDIR to another disk."
                ) from error
            if code in (None, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
                raise StoreUnusable(f"{self._name} is damaged: {error}. It can be deleted.") from error
            raise KantokuError(f"{self._name} cannot be used: {error}.") from error
        except (Damaged, UnicodeDecodeError) as error:  # the sqlite3 module decodes what stands in the file
            raise StoreUnusable(f"{self._name} is damaged. It can be deleted.") from error

    @property
    def _name(self) -> str:
        return str(self._path or "the scratch of the snapshot")


def _check_own(path: Path) -> None:
    """Raises UsageError for what is there and no store of ours; one that is damaged is ours, too."""
    try:
        own = not path.exists() or (path.is_file() and _is_marked(path))
    except OSError as error:
        raise KantokuError(f"{path} cannot be used: {error.strerror}.") from error
    if not own:
        raise UsageError(f"{path} is no view of tasks, and is left as it is: name another file, or delete it yourself.")


def _is_marked(path: Path) -> bool:
    """Whether a file says that it is a store, or nothing yet."""
    with path.open("rb") as file:
        head = file.read(_ID_TO)
    return not head or head[_ID_AT:] == _APPLICATION_ID.to_bytes(4)


def remove(path: Path) -> None:
    """Delete a store's file, with those that SQLite keeps beside it. Raises KantokuError."""
    for name in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        try:
            name.unlink(missing_ok=True)
        except OSError as error:
            raise KantokuError(f"{name} cannot be removed: {error.strerror}.") from error
