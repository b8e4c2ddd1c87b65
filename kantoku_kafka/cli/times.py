"""Times as people type them."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from kantoku_kafka.errors import UsageError

__all__ = ["parse_duration", "parse_future", "parse_time", "show_time"]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


def parse_duration(text: str, option: str) -> timedelta:
    """``90s``, ``15m``, ``2h``, ``30d``, ``4w``. Raises UsageError."""
    match = _DURATION.fullmatch(text.strip())
    try:
        if match:
            return timedelta(seconds=float(match[1]) * _UNITS[match[2]])
    except OverflowError:
        pass
    raise UsageError(f"{option} takes a duration such as 90s, 15m, 2h, 30d, not {text!r}.")


def parse_time(text: str, option: str, now: datetime | None = None) -> datetime:
    """ISO 8601 (in local time if it names no zone), or how long ago: ``2h``. Raises UsageError."""
    return _parse_time(text, option, -1, now)


def parse_future(text: str, option: str, now: datetime | None = None) -> datetime:
    """ISO 8601 (in local time if it names no zone), or in how long: ``2h``. Raises UsageError."""
    return _parse_time(text, option, 1, now)


def _parse_time(text: str, option: str, direction: int, now: datetime | None) -> datetime:
    try:
        if _DURATION.fullmatch(text.strip()):
            return (now or datetime.now(UTC)) + direction * parse_duration(text, option)
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except OverflowError:
        raise UsageError(f"{option}: {text} is beyond all time.") from None
    except ValueError:
        kind = "how long ago" if direction < 0 else "in how long"
        raise UsageError(
            f"{option} takes a time such as 2026-01-31T08:00:00+00:00, or {kind}, such as 2h; not {text!r}."
        ) from None


def show_time(at_us: int, form: Callable[[datetime], str]) -> str:
    """A time, which ``form`` gets in UTC, as text; the number itself if it is beyond what ``datetime`` knows."""
    try:
        return form(datetime.fromtimestamp(at_us / 1_000_000, UTC))
    except (ValueError, OverflowError, OSError):
        return f"{at_us} us"


def parse_time_us(text: str | None, option: str) -> int | None:
    """As :func:`parse_time`, in microseconds since the epoch; None if the option was not given."""
    return None if text is None else round(parse_time(text, option).timestamp() * 1_000_000)
