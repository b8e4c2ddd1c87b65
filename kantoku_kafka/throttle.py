"""Keeps what may happen thousands of times a second from flooding the log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable

__all__ = ["Throttle"]

_MOST_KINDS = 1_000


class Throttle:
    """Lets one line of each kind pass now and then, and counts the others. Thread-safe.

    Parameters:
        every_seconds: between two lines of one kind.
    """

    def __init__(self, every_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_seconds = every_seconds
        self._clock = clock
        self._last: dict[Hashable, tuple[float, int]] = {}
        self._lock = threading.Lock()

    def passes(self, kind: Hashable) -> int | None:
        """How many were held back since the last one; None if this one is held back too."""
        with self._lock:
            at, held_back = self._last.get(kind, (float("-inf"), 0))
            now = self._clock()
            if now - at < self._every_seconds:
                self._last[kind] = at, held_back + 1
                return None
            if len(self._last) >= _MOST_KINDS:
                self._last.clear()
            self._last[kind] = now, 0
            return held_back
