"""Which tasks of a store are wanted, as SQL."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kantoku_kafka.replay.fold import Phase

__all__ = ["TaskQuery", "mentions"]


class TaskQuery:
    """Which tasks are wanted; what is None does not matter. Immutable.

    Parameters:
        task_type, status, phase: must equal.
        labels: all of these.
        since_us, until_us: spawned at or after, and before.
        text: occurs in the id, an error, the name or the value of an attribute.
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
        ]
        wanted += [
            ("EXISTS (SELECT 1 FROM json_each(labels) WHERE key = ? AND value = ?)", pair)
            for pair in (labels or {}).items()
        ]
        if text is not None:
            wanted.append(
                ("(instr(id, ?) OR instr(history, ?) AND mentions(history, ?))", (text, _escaped(text), text))
            )
        chosen = [(condition, value) for condition, value in wanted if value is not None]
        self.condition = " AND ".join(condition for condition, _ in chosen) or "1"
        self.values = [v for _, value in chosen for v in (value if isinstance(value, tuple) else (value,))]

    def of(self, task_id: str) -> TaskQuery:
        """The same, of one task alone."""
        one = TaskQuery()
        one.condition, one.values = f"id = ? AND {self.condition}", [task_id, *self.values]
        return one


def _escaped(text: str) -> str:
    """As it stands in a history."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def mentions(history: str, text: str) -> bool:
    """The function of that name in the SQL: whether an error or an attribute has this text in it."""
    return any(
        text in str(word)
        for _, _, _, _, _, _, error, attributes, *_ in json.loads(history)
        for word in (*(error or ()), *attributes, *attributes.values())
    )
