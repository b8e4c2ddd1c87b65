"""What leaves the log: JSON lines, SQLite, Parquet. A file has its name when it is complete, and not before."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring as quoted
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from kantoku_kafka.errors import KantokuError, UsageError
from kantoku_kafka.model import ErrorInfo
from kantoku_kafka.replay.fold import LoggedEvent, TaskState

__all__ = ["EventSink", "JsonLines", "ParquetFile", "SqliteFile", "complete", "event_json", "iso", "state_row"]


class EventSink(Protocol):
    """Takes events in batches."""

    def write(self, events: Sequence[LoggedEvent]) -> None: ...

    def close(self) -> None:
        """All of it is there; only after this the file is complete."""
        ...


class JsonLines:
    """One JSON object a line, in UTF-8. ``render`` makes it, default :func:`event_json`."""

    def __init__(self, stream: BinaryIO, render: Callable[[LoggedEvent], str] | None = None) -> None:
        self._stream = stream
        self._render = render or event_json

    def write(self, events: Sequence[LoggedEvent]) -> None:
        if events:
            self._stream.write(("\n".join(map(self._render, events)) + "\n").encode("utf-8", "backslashreplace"))

    def close(self) -> None:
        self._stream.flush()


class SqliteFile:
    """A table ``events``, one row for each."""

    _SCHEMA = """CREATE TABLE events (
        task_id TEXT, type TEXT, name TEXT, attempt INTEGER, at TEXT, at_us INTEGER, executor_id TEXT,
        source_topic TEXT, source_partition INTEGER, source_offset INTEGER, source_epoch INTEGER,
        error_type TEXT, error_message TEXT, error_detail TEXT, error_retryable INTEGER,
        attributes TEXT, partition INTEGER, offset INTEGER)"""

    def __init__(self, path: Path) -> None:
        with _sqlite_errors(path):
            self._db = sqlite3.connect(path, isolation_level=None)
            for statement in ("PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF", self._SCHEMA, "BEGIN"):
                self._db.execute(statement)
        self._path = path

    def write(self, events: Sequence[LoggedEvent]) -> None:
        rows = [tuple(_flat(logged).values()) for logged in events]
        with _sqlite_errors(self._path):
            self._db.executemany(f"INSERT INTO events VALUES ({','.join('?' * 18)})", rows)

    def close(self) -> None:
        with _sqlite_errors(self._path):
            self._db.execute("COMMIT")
            self._db.execute("CREATE INDEX events_by_task ON events (task_id)")
            self._db.close()


class ParquetFile:
    """A column for each field. Needs the extra ``parquet``."""

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise UsageError("Parquet needs an extra: pip install 'kantoku-kafka[parquet]'.") from error
        self._arrow: Any = pyarrow
        text, number, flag = pyarrow.string(), pyarrow.int64(), pyarrow.bool_()
        kinds = dict.fromkeys(_COLUMNS, text)
        kinds |= dict.fromkeys(
            ("attempt", "source_partition", "source_offset", "source_epoch", "partition", "offset"), number
        )
        kinds |= {"error_retryable": flag, "at_us": number}
        self._schema = pyarrow.schema(list(kinds.items()))
        self._writer: Any = pyarrow.parquet.ParquetWriter(path, self._schema)

    def write(self, events: Sequence[LoggedEvent]) -> None:
        if events:
            self._writer.write_table(self._arrow.Table.from_pylist([_flat(e) for e in events], schema=self._schema))

    def close(self) -> None:
        self._writer.close()


@contextlib.contextmanager
def complete(path: Path) -> Iterator[Path]:
    """A name beside ``path`` to write to; at the end of the block it becomes ``path``, or goes if the block failed.

    Raises:
        KantokuError: no space, or no right to write there.
        UsageError: there is something that is no regular file.
    """
    path = path.resolve()  # behind a link: the link stays
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is no regular file: name another one, or leave --out away and redirect stdout.")
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise KantokuError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def event_json(logged: LoggedEvent) -> str:
    """One JSON object; times are ISO 8601 in UTC."""
    (task_id, type_, name, attempt, at_us, executor_id, source, error, attributes), partition, offset = logged
    if source is None:
        origin = "null"
    else:
        topic, number, at_offset, epoch = source
        origin = f'{{"topic":{_quoted(topic)},"partition":{number},"offset":{at_offset},"epoch":{epoch}}}'
    executor = "null" if executor_id is None else _quoted(executor_id)
    return (
        f'{{"task_id":{quoted(task_id)},"type":{_quoted(type_)},"name":{_quoted(name)},"attempt":{attempt},'
        f'"at":"{iso(at_us)}","executor_id":{executor},"source":{origin},'
        f'"error":{"null" if error is None else _error(error)},'
        f'"attributes":{_attributes(tuple(attributes.items())) if attributes else "{}"},'
        f'"partition":{partition},"offset":{offset}}}'
    )


@lru_cache(maxsize=4096)
def _quoted(text: str) -> str:
    """Of what is the same in many events."""
    return quoted(text)


@lru_cache(maxsize=1024)
def _attributes(items: tuple[tuple[str, str], ...]) -> str:
    return json.dumps(dict(items), ensure_ascii=False)


def _error(error: ErrorInfo) -> str:
    return json.dumps(error._asdict(), ensure_ascii=False)


def iso(at_us: int) -> str:
    """A time as text: ISO 8601 in UTC, to the microsecond."""
    seconds, us = divmod(at_us, 1_000_000)
    return f"{_to_the_second(seconds)}.{us:06d}+00:00"


@lru_cache(maxsize=64)
def _to_the_second(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"{seconds}s"


def state_row(state: TaskState) -> dict[str, Any]:
    """A task's state as JSON can carry it."""
    return {
        "task_id": state.task_id,
        "type": state.type,
        "phase": state.phase.value,
        "status": state.status,
        "attempt": state.attempt,
        "spawned_at": _iso_or_none(state.spawned_at_us),
        "received_at": _iso_or_none(state.received_at_us),
        "finished_at": _iso_or_none(state.finished_at_us),
        "waited_ms": _ms(state.waited_us),
        "ran_ms": _ms(state.ran_us),
        "executor_id": state.executor_id,
        "source": state.source._asdict() if state.source else None,
        "error": state.error._asdict() if state.error else None,
        "labels": dict(state.labels),
        "parent_id": state.parent_id,
        "restarted_from": state.restarted_from,
        "problems": list(state.problems),
        **state.extra,
    }


_COLUMNS = (
    "task_id",
    "type",
    "name",
    "attempt",
    "at",
    "at_us",
    "executor_id",
    "source_topic",
    "source_partition",
    "source_offset",
    "source_epoch",
    "error_type",
    "error_message",
    "error_detail",
    "error_retryable",
    "attributes",
    "partition",
    "offset",
)


def _flat(logged: LoggedEvent) -> dict[str, Any]:
    (task_id, type_, name, attempt, at_us, executor_id, source, error, attributes), partition, offset = logged
    values = (
        task_id,
        type_,
        name,
        attempt,
        iso(at_us),
        at_us,
        executor_id,
        *(source or (None,) * 4),
        *(error or (None,) * 4),
        json.dumps(attributes, ensure_ascii=False),
        partition,
        offset,
    )
    return dict(zip(_COLUMNS, values, strict=True))


def _iso_or_none(at_us: int | None) -> str | None:
    return None if at_us is None else iso(at_us)


def _ms(us: int | None) -> float | None:
    return None if us is None else us / 1000


@contextlib.contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise KantokuError(f"{path} cannot be written: {error}.") from error
