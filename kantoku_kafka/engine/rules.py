"""What a task type asks of every task of it, besides where it runs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from kantoku_kafka.engine.retry import Retry
from kantoku_kafka.errors import UsageError
from kantoku_kafka.formats.base import Format
from kantoku_kafka.formats.plain import Raw

__all__ = ["Rules"]

_MOST_SECONDS = 366 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Immutable.

    Parameters:
        retry: None: no second attempt, and no dead letter.
        timeout_seconds: from the start of an attempt to its end; None: no limit.
        heartbeat_seconds: the longest time between two heartbeats of an attempt; None: it need not say anything.
        deduplicate_seconds: for so long after a task was spawned its id is recognised; 0: never.
        deduplicate_all: also ids that do not come of an idempotency key.
        reply_to: the topic for the replies of tasks that name none; None: they have none.
        reply_format: how replies are written.

    Raises:
        UsageError: for what is no policy, or a timeout that cannot be.
    """

    retry: Retry | None = None
    timeout_seconds: float | None = None
    heartbeat_seconds: float | None = None
    deduplicate_seconds: float = 3_600.0
    deduplicate_all: bool = False
    reply_to: str | None = None
    reply_format: Format = field(default_factory=Raw)

    def __post_init__(self) -> None:
        if self.retry is not None and not isinstance(self.retry, Retry):
            raise UsageError(f"retry takes a policy, e.g. Retry(max_attempts=5), not {self.retry!r}.")
        for name in ("timeout_seconds", "heartbeat_seconds"):
            if getattr(self, name) is not None:
                check_seconds(name, getattr(self, name), positive=True)
        check_seconds("deduplicate_seconds", self.deduplicate_seconds)
        if not isinstance(self.reply_format, Format) or not self.reply_format.can_write:
            raise UsageError(
                "reply_format takes a format that can write, e.g. Json() or CloudEvents(source='/shop', "
                f"type='order.shipped'), not {self.reply_format!r}."
            )

    @property
    def watches(self) -> bool:
        """Whether every task of the type has to be looked at, also one that says nothing but its type and data."""
        total = self.retry is not None and self.retry.total_seconds is not None
        limited = total or self.timeout_seconds is not None or self.heartbeat_seconds is not None
        return limited or self.deduplicate_all or self.reply_to is not None


def check_seconds(what: str, value: float, *, positive: bool = False) -> float:
    """The value, if it is a duration. Raises UsageError."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0 or (positive and value == 0) or value > _MOST_SECONDS:
        least = "more than 0" if positive else "from 0"
        raise UsageError(f"{what} is a number of seconds, {least} to a year, not {value!r}.")
    return value
