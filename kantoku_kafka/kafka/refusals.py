"""How brokers, or whoever gives tokens, have been refusing us lately."""

from __future__ import annotations

import time
from collections.abc import Callable

from confluent_kafka import KafkaError

__all__ = ["Refusals"]

_RECENT_SECONDS = 30.0  # librdkafka tries and fails again within this time; later it was a hiccup
_LASTING_SECONDS = 30.0


class Refusals:
    """What clients' error callbacks say of refusals. Thread-safe: what it holds is replaced as a whole."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._noted: tuple[KafkaError, float, float] | None = None

    def note(self, error: KafkaError) -> None:
        """There was one just now."""
        noted, now = self._noted, self._clock()
        goes_on = noted is not None and now - noted[2] < _RECENT_SECONDS
        self._noted = error, noted[1] if noted is not None and goes_on else now, now

    def forget(self) -> None:
        """We were let in."""
        self._noted = None

    @property
    def latest(self) -> KafkaError | None:
        """The last one, if it is not long ago."""
        noted = self._noted
        return noted[0] if noted is not None and self._clock() - noted[2] < _RECENT_SECONDS else None

    @property
    def lasting(self) -> bool:
        """Whether they have gone on for half a minute."""
        noted = self._noted
        return noted is not None and self.latest is not None and noted[2] - noted[1] > _LASTING_SECONDS
