"""What librdkafka tells of a consumer, and what it does not: where partitions end that are paused, and not fetched."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from confluent_kafka import KafkaException, TopicPartition, libversion
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # re-exported without __all__

from kantoku_kafka.errors import KantokuError
from kantoku_kafka.job import Place
from kantoku_kafka.kafka.clients import Clients
from kantoku_kafka.meter import ClientStatistics, Fetched, Meters

__all__ = ["Watch", "librdkafka_version", "read_statistics"]

_log = logging.getLogger(__name__)
_INTERVAL_MS = 5_000
_ASK_SECONDS = 15.0


class Watch:
    """Tells meters of a consumer, in the thread that polls it; does not block.

    Parameters:
        clients: the connection.
        meters: who is told.

    Attributes:
        paused: partitions that the client does not fetch: where they end it does not know, and Kafka is asked.
    """

    def __init__(self, clients: Clients, meters: Meters) -> None:
        self._clients = clients
        self._meters = meters
        self.paused: set[Place] = set()
        self._admin: AdminClient | None = None
        self._ask_at = 0.0
        self._answers: Mapping[Any, Any] = {}
        self._ends: dict[Place, int] = {}

    @property
    def config(self) -> dict[str, object]:
        """For the consumer."""
        return {"statistics.interval.ms": _INTERVAL_MS, "stats_cb": self._take}

    def _take(self, text: str) -> None:
        try:
            found = read_statistics(text)
        except ValueError as error:  # what is raised here would come out of poll
            _log.warning("%s", error, extra={"action": "statistics"})
            return
        self._hear()
        self._ask(self.paused & found.fetched.keys())
        fetched = {
            place: fetched._replace(end=max(fetched.end, self._ends.get(place, 0)))
            for place, fetched in found.fetched.items()
        }
        statistics = found._replace(fetched=fetched)
        self._meters.tell(lambda meter, loop: meter.consumer(loop, statistics))

    def _ask(self, places: Iterable[Place]) -> None:
        """Where these end."""
        latest: Any = OffsetSpec.latest  # confluent_kafka leaves it untyped
        now = time.monotonic()
        wanted = {TopicPartition(topic, number): latest() for topic, number in places}
        if wanted and not self._answers and now >= self._ask_at:
            self._ask_at = now + _ASK_SECONDS
            with suppress(KafkaException, KantokuError):  # what is raised here would come out of poll
                self._admin = self._admin or self._clients.admin()
                self._answers = self._admin.list_offsets(wanted)

    def _hear(self) -> None:
        """Take what was answered, once all is. A client that cannot tell may not know who leads now: a new one then."""
        if not all(answer.done() for answer in self._answers.values()):
            return
        for place, answer in self._answers.items():
            try:
                self._ends[place.topic, place.partition] = answer.result().offset
            except KafkaException:
                self._admin = None
        self._answers = {}


def librdkafka_version() -> str:
    """As it says itself."""
    return str(libversion()[0])


def read_statistics(text: str) -> ClientStatistics:
    """From the JSON of ``stats_cb``; what is not there counts as 0. Raises ValueError for JSON of another shape."""
    try:
        return _statistics(json.loads(text))
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError(f"statistics of another shape: {error}") from error


def _statistics(found: Any) -> ClientStatistics:
    brokers = found.get("brokers", {})
    partitions = {
        (name, partition["partition"]): partition
        for name, topic in found.get("topics", {}).items()
        for partition in topic.get("partitions", {}).values()
        if partition.get("desired")
    }
    return ClientStatistics(
        requests=found.get("tx", 0),
        request_timeouts=sum(broker.get("req_timeouts", 0) for broker in brokers.values()),
        sent_bytes=found.get("tx_bytes", 0),
        received_bytes=found.get("rx_bytes", 0),
        queue_records=sum(partition.get("fetchq_cnt", 0) for partition in partitions.values()),
        queue_bytes=sum(partition.get("fetchq_size", 0) for partition in partitions.values()),
        rtt_seconds=brokers.get("GroupCoordinator", {}).get("rtt", {}).get("avg", 0) / 1_000_000,
        fetched={
            place: Fetched(p.get("next_offset", 0), p.get("fetchq_cnt", 0), max(0, p.get("hi_offset", 0)))
            for place, p in partitions.items()
        },
    )
