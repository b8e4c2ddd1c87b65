"""When a task that failed is tried again. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from kantoku_kafka.errors import Crashed, EnvelopeError, UsageError
from kantoku_kafka.job import Raised
from kantoku_kafka.model import utf8_safe

__all__ = ["MAX_ATTEMPTS", "OPTION", "Retry", "kinds_of"]

OPTION = "retry"
"""Under which name a task's own policy travels in the options of its envelope."""
_MOST_SECONDS = 366 * 86_400.0
MAX_ATTEMPTS = 1_000_000

Exceptions = type[BaseException] | str | Iterable[type[BaseException] | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often and when a task is tried again: ``@kan.task("resize", retry=Retry(max_attempts=5))``.

    The delay before attempt n + 1 is ``initial_seconds * factor ** (n - 1)``, at most ``max_seconds``, and shorter by a
    random share of up to ``jitter``. A task whose attempts are used up is FAILED, and leaves a dead letter.

    Parameters:
        max_attempts: in all, the first one included; default 5.
        initial_seconds: the first delay; default 1.
        factor: by which each delay is longer than the last; default 2.
        max_seconds: the longest delay; default 300.
        jitter: from 0, none, to 1; default 0.2.
        on: the exceptions that are tried again, and their subclasses; default all. Classes, or their names as
            ``module.Class``. ``TimeoutError`` stands for an attempt that timed out, ``Crashed`` for one whose process
            died.
        not_on: exceptions that are not, whatever ``on`` says.
        total_seconds: from the spawn: no attempt starts later, and one that runs is ended; default no limit.

    Raises:
        UsageError: for values that cannot be.
    """

    max_attempts: int = 5
    initial_seconds: float = 1.0
    factor: float = 2.0
    max_seconds: float = 300.0
    jitter: float = 0.2
    on: Exceptions = ()
    not_on: Exceptions = ()
    total_seconds: float | None = None

    def __post_init__(self) -> None:
        if type(self.max_attempts) is not int or not 1 <= self.max_attempts <= MAX_ATTEMPTS:
            raise UsageError(f"Retry: max_attempts is a whole number from 1, not {self.max_attempts!r}; 1: no retry.")
        _check(self, "initial_seconds", 0, _MOST_SECONDS)
        _check(self, "factor", 1, 1_000)
        _check(self, "max_seconds", 0, _MOST_SECONDS)
        _check(self, "jitter", 0, 1)
        if self.total_seconds is not None:
            _check(self, "total_seconds", 0, _MOST_SECONDS)
        for name in ("on", "not_on"):
            object.__setattr__(self, name, _names(name, getattr(self, name)))

    def delay_seconds(self, attempt: int, luck: float) -> float:
        """How long to wait after this attempt; ``luck`` from 0 to 1 decides how much of the jitter is taken off."""
        steps = min(attempt - 1, 10_000)
        try:
            delay = min(self.max_seconds, self.initial_seconds * self.factor**steps)
        except OverflowError:
            delay = self.max_seconds
        return delay * (1 - self.jitter * luck)

    def covers(self, raised: Raised) -> bool:
        """Whether this is an error to try again after."""
        assert isinstance(self.on, tuple) and isinstance(self.not_on, tuple), "the constructor has made them so"
        if raised.final or any(kind in self.not_on for kind in raised.kinds):
            return False
        return raised.asked or not self.on or any(kind in self.on for kind in raised.kinds)

    def encode(self) -> bytes:
        """As the option of one task: JSON of what differs from the defaults."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return json.dumps(values, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, raw: bytes) -> Retry:
        """What :meth:`encode` gave. Raises EnvelopeError."""
        try:
            values: Mapping[str, Any] = json.loads(raw)
            return cls(**values)
        except (ValueError, TypeError, RecursionError, UsageError) as error:
            raise EnvelopeError(utf8_safe(f"The task's option 'retry' is no policy: {error}")) from error


def kinds_of(kind: type[BaseException]) -> tuple[str, ...]:
    """The qualified names of an exception class and of those above it."""
    return tuple(f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__ if issubclass(base, BaseException))


TIMED_OUT = Raised(kinds_of(TimeoutError))
CRASHED = Raised(kinds_of(Crashed))


def _check(retry: Retry, name: str, least: float, most: float) -> None:
    value = getattr(retry, name)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not least <= value <= most:  # nor is it NaN
        raise UsageError(f"Retry: {name} is a number from {least:g} to {most:g}, not {value!r}.")


def _names(which: str, exceptions: Exceptions) -> tuple[str, ...]:
    if isinstance(exceptions, str | type):
        exceptions = (exceptions,)
    found = []
    try:
        for item in exceptions:
            if isinstance(item, type) and issubclass(item, BaseException):
                found.append(kinds_of(item)[0])
            elif isinstance(item, str) and item:
                found.append(item if "." in item else f"builtins.{item}")
            else:
                raise TypeError
    except TypeError:
        raise UsageError(f"Retry: {which} takes exception classes or their names, not {exceptions!r}.") from None
    return tuple(found)
