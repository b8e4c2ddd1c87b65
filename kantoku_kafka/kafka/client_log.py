"""librdkafka's own lines, passed on to ``logging``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from kantoku_kafka.configuration.masks import hide
from kantoku_kafka.throttle import Throttle

__all__ = ["ClientLog"]

_log = logging.getLogger(__name__)
_EVERY_SECONDS = 30.0
_LEVELS = {50: logging.ERROR, 40: logging.WARNING, 30: logging.INFO, 20: logging.DEBUG, 10: logging.DEBUG}


class ClientLog:
    """Passes librdkafka's lines to ``logging``, each kind at most once in 30 s. Thread-safe.

    Attributes:
        config: settings whose secrets no line may tell: with ``debug=conf`` librdkafka hides only some of them.
    """

    def __init__(self) -> None:
        self.config: Mapping[str, object] = {}
        self._throttle = Throttle(_EVERY_SECONDS)

    def log(self, level: int, text: str, *arguments: Any) -> None:
        """As ``logging.Logger.log``; the first word of the line is its kind."""
        line = text % arguments if arguments else text
        dropped = self._throttle.passes(line.split(" ", 1)[0])
        if dropped is None:
            return
        more = f" ({dropped} more lines of this kind were left out)" if dropped else ""
        shown = hide(line, self.config)
        _log.log(_LEVELS.get(level, level), "librdkafka: %s%s", shown, more, extra={"action": "librdkafka"})
