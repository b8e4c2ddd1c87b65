"""When a schedule is due: cron expressions and intervals. Pure: no clock of its own.

Cron is that of Debian, by the library cronsim, daylight saving time included: what is set for an hour that is skipped
runs right after the gap, what is set for an hour that comes twice runs the first time only. Expressions with ``*`` in
the minute or hour, or with seconds, go by the time that passes instead.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from kantoku_kafka.errors import UsageError
from kantoku_kafka.model import Schedule

__all__ = ["Recurrence"]

_SHORT = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_LEAST_EVERY_US = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Recurrence:
    """The times of a schedule, in microseconds since the epoch. Immutable; any thread.

    Raises:
        UsageError: not exactly one of cron and interval, an expression that is none or never comes, an unknown time
            zone, an interval below a second, an end before the first time.
    """

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._name = f"Schedule {schedule.name!r}"
        if (schedule.cron is None) == (schedule.every_us is None):
            raise UsageError(f"{self._name} takes either a cron expression or an interval.")
        if schedule.every_us is not None and schedule.every_us < _LEAST_EVERY_US:
            raise UsageError(f"{self._name}: an interval has at least one second.")
        self._zone = self._zone_of(schedule.time_zone)
        self._cron = None if schedule.cron is None else _SHORT.get(schedule.cron.strip().lower(), schedule.cron)
        self._begin_us = schedule.changed_at_us if schedule.start_at_us is None else schedule.start_at_us
        try:
            first = self.next_after(schedule.changed_at_us)
        except OverflowError as error:
            raise UsageError(f"{self._name} has a time that is no time that is: they are in microseconds.") from error
        except CronSimError as error:
            raise UsageError(
                f"{self._name}: {schedule.cron!r} is no cron expression: {str(error).lower()}. Five fields are wanted, "
                "minute hour day month weekday, or six with the seconds first."
            ) from error
        if first is None:
            raise UsageError(f"{self._name} never comes: {self.text}.")

    @property
    def text(self) -> str:
        """What a person calls it."""
        schedule = self._schedule
        if schedule.every_us is not None:
            return f"every {timedelta(microseconds=schedule.every_us)}"
        return f"{schedule.cron} {schedule.time_zone}"

    def next_after(self, after_us: int) -> int | None:
        """The first time after this one; None: there is none any more."""
        found = self._next_after(max(after_us, self._begin_us - 1))
        end_us = self._schedule.end_at_us
        return None if found is None or (end_us is not None and found >= end_us) else found

    def last_until(self, until_us: int, after_us: int) -> int | None:
        """The last time not after ``until_us``; None if there is none behind ``after_us``."""
        end_us = self._schedule.end_at_us
        found = self._last_until(until_us if end_us is None else min(until_us, end_us - 1))
        return None if found is None or found <= after_us or found < self._begin_us else found

    def fire_at(self, due_us: int) -> int:
        """When the task of a time is put onto its input: the jitter of each time is the same for everybody."""
        jitter_us = self._schedule.jitter_us
        if not jitter_us:
            return due_us
        digest = hashlib.sha256(f"{self._schedule.name}/{due_us}".encode()).digest()
        return due_us + int.from_bytes(digest[:8], "big") % jitter_us

    def _next_after(self, after_us: int) -> int | None:
        every_us = self._schedule.every_us
        if every_us is not None:
            return self._begin_us + ((after_us - self._begin_us) // every_us + 1) * every_us
        for time in self._times(after_us):
            found = _micros(time)
            if found > after_us:  # an hour that comes twice has local times that are over
                return found
        return None

    def _last_until(self, until_us: int) -> int | None:
        every_us = self._schedule.every_us
        if every_us is not None:
            return self._begin_us + (until_us - self._begin_us) // every_us * every_us
        for time in self._times(until_us // 1_000_000 * 1_000_000 + 1_000_000, reverse=True):
            found = _micros(time)
            if found <= until_us:
                return found
        return None

    def _times(self, from_us: int, *, reverse: bool = False) -> CronSim:
        assert self._cron is not None
        return CronSim(self._cron, (_EPOCH + timedelta(microseconds=from_us)).astimezone(self._zone), reverse)

    def _zone_of(self, name: str) -> ZoneInfo:
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise UsageError(f"{self._name}: {name!r} is no time zone, e.g. Europe/Berlin or UTC.") from error


def _micros(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(microseconds=1)
