"""Exponential backoff: pauses between tries."""

from __future__ import annotations

__all__ = ["Backoff"]


class Backoff:
    """Each pause is twice as long as the last one, up to a limit. One thread uses it.

    Parameters:
        first_seconds: the first pause.
        most_seconds: the longest.
    """

    def __init__(self, first_seconds: float, most_seconds: float) -> None:
        self._first_seconds = self._next_seconds = first_seconds
        self._most_seconds = most_seconds

    def next_seconds(self) -> float:
        """The pause that is due now."""
        seconds = self._next_seconds
        self._next_seconds = min(2 * seconds, self._most_seconds)
        return seconds

    def reset(self) -> None:
        """It went well: begin with the first one again."""
        self._next_seconds = self._first_seconds
