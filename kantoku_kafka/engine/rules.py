"""What a task type asks of every task of it, besides where it runs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kantoku_kafka.engine.retry import Retry
from kantoku_kafka.errors import UsageError

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

    Raises:
        UsageError: for what is no policy, or a timeout that cannot be.
    """

    retry: Retry | None = None
    timeout_seconds: float | None = None
    heartbeat_seconds: float | None = None
    deduplicate_seconds: float = 3_600.0
    deduplicate_all: bool = False

    def __post_init__(self) -> None:
        if self.retry is not None and not isinstance(self.retry, Retry):
            raise UsageError(f"retry takes a policy, e.g. Retry(max_attempts=5), not {self.retry!r}.")
        for name in ("timeout_seconds", "heartbeat_seconds"):
            if getattr(self, name) is not None:
                check_seconds(name, getattr(self, name), positive=True)

        check_seconds("deduplicate_seconds", self.deduplicate_seconds)

    @property
    def limits_time(self) -> bool:
        """Whether every task of the type has to be watched."""
        total = self.retry is not None and self.retry.total_seconds is not None
        return total or self.timeout_seconds is not None or self.heartbeat_seconds is not None


def check_seconds(what: str, value: float, *, positive: bool = False) -> float:
    """The value, if it is a duration. Raises UsageError."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0 or (positive and value == 0) or value > _MOST_SECONDS:
        least = "more than 0" if positive else "from 0"
        raise UsageError(f"{what} is a number of seconds, {least} to a year, not {value!r}.")
    return value
