"""Reads from results and events what had become of tasks before the group's offset was set back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from kantoku_kafka.engine.past import Past, Place, Recollection
from kantoku_kafka.kafka.config import Clients
from kantoku_kafka.kafka.scan import Record, Scan, beginnings, ends, first_at, pick
from kantoku_kafka.names import Topics
from kantoku_kafka.protocols import Codec

__all__ = ["KafkaHistory"]

_log = logging.getLogger(__name__)
_MARGIN_MS = 60_000
_PATIENCE_SECONDS = 60.0


class KafkaHistory:
    """Called with partitions, tells their :class:`~kantoku_kafka.engine.past.Past`. Any thread may call it.

    It reads what was written since their first record that is still there, at most for as long as ids are remembered:
    some microseconds a record, and nothing in a namespace without results.

    Parameters:
        clients: the connection.
        topics: of the namespace.
        codec: of the envelopes.
        window_seconds: for so long ids are remembered.
    """

    def __init__(self, clients: Clients, topics: Topics, codec: Codec, window_seconds: float) -> None:
        self._clients = clients
        self._topics = topics
        self._codec = codec
        self._window_ms = round(window_seconds * 1_000)

    def __call__(self, places: Sequence[Place]) -> Mapping[Place, Past]:
        """Raises TopicMismatch, AccessDenied, BrokerUnavailable, WaitTimeout."""
        recollection = Recollection(self._codec, places)
        if not places or not self._window_ms or (oldest_ms := self._oldest_ms(places)) is None:
            return {}
        since_ms = max(oldest_ms, round(time.time() * 1_000) - self._window_ms) - _MARGIN_MS
        began, total = time.monotonic(), 0
        takers: Mapping[str, Callable[[Record], None]] = {
            self._topics.results: lambda record: recollection.result(record.value() or b""),
            self._topics.events: lambda record: recollection.event(record.key() or b"", record.value() or b""),
        }
        for topic, take in takers.items():
            until = ends(self._clients, topic)
            starts = first_at(self._clients, topic, since_ms)
            for batch in Scan(self._clients, topic, starts, until, _PATIENCE_SECONDS).batches():
                for record in batch:
                    take(record)
                total += len(batch)
        if total:
            _log.info(
                "no checkpoint of ours in %d partitions: what ended before is known by %d results and events, read in "
                "%.1f s",
                len(places),
                total,
                time.monotonic() - began,
                extra={"action": "history"},
            )
        return recollection.pasts

    def _oldest_ms(self, places: Sequence[Place]) -> int | None:
        """When the oldest record in them was written; None if there is none."""
        oldest: list[int] = []
        for topic in sorted({topic for topic, _ in places}):
            first, until = beginnings(self._clients, topic), ends(self._clients, topic)
            wanted = {n: [first[n]] for t, n in places if t == topic and first[n] < until[n]}
            oldest += [record.timestamp()[1] for record in pick(self._clients, topic, wanted)]
        return min(oldest, default=None)
