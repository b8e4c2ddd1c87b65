"""A task's state as a row of the store, and its history back from there."""

from __future__ import annotations

import json
import zlib
from typing import Any

from kantoku_kafka.model import ErrorInfo, Event, Source
from kantoku_kafka.replay.fold import LoggedEvent, TaskState

__all__ = ["HISTORY", "TABLE", "UPSERT", "Damaged", "history_of", "row_of"]

TABLE = """
CREATE TABLE tasks (
    id TEXT PRIMARY KEY, partition INTEGER, type TEXT, phase TEXT, status TEXT, created_at_us INTEGER,
    updated_at_us INTEGER, finished_at_us INTEGER, restarted_from TEXT, labels TEXT, history TEXT,
    checksum INTEGER
) WITHOUT ROWID
"""
UPSERT = "INSERT OR REPLACE INTO tasks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
HISTORY = "id, type, partition, history, checksum"


class Damaged(Exception):
    """A row is not what was written."""


def row_of(state: TaskState) -> tuple[Any, ...]:
    """The row of a state: what queries ask for in columns, and all of it in the history."""
    partition = state.history[0].partition
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
    written = json.dumps(history, ensure_ascii=False, separators=(",", ":"))
    return (
        state.task_id,
        partition,
        state.type,
        state.phase.value,
        state.status,
        created_at_us,
        state.updated_at_us,
        state.finished_at_us,
        state.restarted_from,
        json.dumps(state.labels),
        written,
        _checksum(state.task_id, state.type, partition, written),
    )


def _checksum(task_id: str, type_: str, partition: int, history: str) -> int:
    return zlib.crc32(f"{task_id}\n{type_}\n{partition}\n{history}".encode("utf-8", "surrogatepass"))


def history_of(task_id: str, type_: str, partition: int, history: str, checksum: int) -> list[LoggedEvent]:
    """The history in a row of :data:`HISTORY`. Raises Damaged."""
    if not isinstance(history, str) or _checksum(task_id, type_, partition, history) != checksum:
        raise Damaged(task_id)
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
