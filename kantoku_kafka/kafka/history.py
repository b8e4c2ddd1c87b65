"""Reads from results and events what had become of tasks before the group's offset was set back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from kantoku_kafka.engine.past import Past, Recollection
from kantoku_kafka.errors import WaitTimeout
from kantoku_kafka.job import Place
from kantoku_kafka.kafka.clients import Clients
from kantoku_kafka.kafka.committed import committed_offsets
from kantoku_kafka.kafka.records import value_of
from kantoku_kafka.kafka.scan import Record, Scan, beginnings, ends, first_at, pick
from kantoku_kafka.kafka.topics import existing_topics
from kantoku_kafka.names import Topics
from kantoku_kafka.protocols import Codec

__all__ = ["KafkaHistory"]

_log = logging.getLogger(__name__)
_MARGIN_MS = 900_000  # for clocks that differ
_PATIENCE_SECONDS = 60.0


class KafkaHistory:
    """Called with partitions, tells their :class:`~kantoku_kafka.engine.past.Past`. Any thread may call it.

    Partitions in which nothing was ever committed have none. Of the others it reads the results and events since their
    first record, at most for as long as ids are remembered: some 20 microseconds for each.

    Parameters:
        clients: the connection.
        topics: of the namespace.
        codec: of the envelopes.
        window_seconds: for so long ids are remembered.
        most_seconds: so long it may take: the group waits for who reads.
    """

    def __init__(
        self, clients: Clients, topics: Topics, codec: Codec, *, window_seconds: float, most_seconds: float
    ) -> None:
        self._clients = clients
        self._topics = topics
        self._codec = codec
        self._window_ms = round(window_seconds * 1_000)
        self._most_seconds = most_seconds

    def __call__(self, places: Sequence[Place]) -> Mapping[Place, Past]:
        """Raises TopicMismatch, AccessDenied, BrokerUnavailable, WaitTimeout."""
        if not places or not self._window_ms:
            return {}
        places = self._committed(places)
        oldest_ms = self._oldest_ms(places)
        if oldest_ms is None:
            return {}
        recollection, existing = Recollection(self._codec, places), existing_topics(self._clients)
        since_ms = max(oldest_ms, round(time.time() * 1_000) - self._window_ms) - _MARGIN_MS
        began, total = time.monotonic(), 0
        takers: Mapping[str, Callable[[Record], None]] = {
            self._topics.results: lambda record: recollection.result(value_of(record)),
            self._topics.events: lambda record: recollection.event(record.key() or b"", value_of(record)),
        }
        for topic, take in takers.items():
            for batch in self._since(topic, since_ms) if topic in existing else ():
                for record in batch:
                    take(record)
                total += len(batch)
                if time.monotonic() - began > self._most_seconds:
                    raise self._too_much(total)
        seconds = time.monotonic() - began
        text = (
            "the group was set back: what had ended in %d partitions is known by %d results and events, read in %.1f s"
        )
        _log.warning(text, len(places), total, seconds, extra={"action": "history"})
        return recollection.pasts

    def _committed(self, places: Sequence[Place]) -> list[Place]:
        """Those in which the group has an offset."""
        found = committed_offsets(self._clients, self._topics.group, places, settled=False)
        return [offset.place for offset in found if offset.offset >= 0]

    def _oldest_ms(self, places: Sequence[Place]) -> int | None:
        """When the oldest record in them was written, 0 if one does not come; None if they are empty."""
        oldest: list[int] = []
        for topic in sorted({topic for topic, _ in places}):
            first, until = beginnings(self._clients, topic), ends(self._clients, topic)
            wanted = {n: [first[n]] for t, n in places if t == topic and first[n] < until[n]}
            found = [record.timestamp()[1] for record in pick(self._clients, topic, wanted)]
            oldest += found + [0] * (len(found) < len(wanted))
        return min(oldest, default=None)

    def _since(self, topic: str, since_ms: int) -> Iterator[Sequence[Record]]:
        until = ends(self._clients, topic)
        return Scan(self._clients, topic, first_at(self._clients, topic, since_ms), until, _PATIENCE_SECONDS).batches()

    def _too_much(self, total: int) -> WaitTimeout:
        return WaitTimeout(
            f"The group was set back, and to tell what had ended within the last {self._window_ms / 1_000:g} s takes "
            f"longer than {self._most_seconds:g} s ({total} results and events so far). Let the types remember ids for "
            "less long (deduplicate_seconds), or raise max.poll.interval.ms."
        )
