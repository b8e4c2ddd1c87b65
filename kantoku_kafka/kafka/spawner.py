"""The producing side of a client: a task is accepted when the broker has acknowledged it, not before."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as KafkaMessage

from kantoku_kafka.errors import BrokerUnavailable, KantokuError, QueueFull, SpawnError, TaskTooLarge
from kantoku_kafka.kafka.clients import Clients
from kantoku_kafka.kafka.codes import PASSING, TOO_LARGE
from kantoku_kafka.kafka.late_requests import BACKOFF, may_be_under_way
from kantoku_kafka.kafka.reachability import LOOK_SECONDS
from kantoku_kafka.model import Headers

__all__ = ["Failures", "Spawner", "Ticket", "Written"]

_log = logging.getLogger(__name__)
T = TypeVar("T")

_NO_TOPIC = "kantoku-kafka"  # metadata of one topic that need not exist: of all of them they may be large
_INTRODUCTION_SECONDS = 1.0
_SLOW_INTRODUCTION_SECONDS = 5.0
_POLL_SECONDS = 0.01
_POLL_EVERY = 256
_FLUSH_SLICE_SECONDS = 0.2
# Smaller than any topic's limit that is likely: the broker refuses a batch above it as a whole.
_BATCH_BYTES = 200_000
Written = tuple[str, bytes | None, bytes | None, Headers, int]
"""As a :class:`~kantoku_kafka.job.Message`; without a value it is a tombstone: compaction removes what has its key."""
Failures = list[tuple[KafkaError, str]]
"""Errors of delivery reports with their topics; appending is atomic."""


class Ticket:
    """The fate of one record: the delivery report fills it in, in whichever thread serves it.

    Attributes:
        topic: where the record goes; ``partition`` and ``offset``: where it stands, None until acknowledged.
        settled: the broker has answered, or the record was given up.
        refused: called by the report if the record will never be accepted.
    """

    __slots__ = ("_failures", "offset", "partition", "refused", "settled", "topic")

    def __init__(self, topic: str, failures: Failures) -> None:
        self.refused: Callable[[], None] | None = None
        self.topic = topic
        self.partition: int | None = None
        self.offset: int | None = None
        self.settled = False
        self._failures = failures

    def report(self, error: KafkaError | None, record: KafkaMessage) -> None:
        """librdkafka's delivery report."""
        if error is None:
            self.partition = record.partition()
            self.offset = record.offset()
        else:
            self._failures.append((error, self.topic))
            if self.refused is not None and error.code() not in PASSING:
                self.refused()
        self.settled = True


class Spawner:
    """A producer and its delivery reports. Thread-safe.

    Parameters:
        clients: the connection.
        queue_timeout_seconds: how long to wait for room in the local queue.
        delivery_timeout_seconds: how long the broker may take to acknowledge.
        transactional_id: None, or the id under which :meth:`begin` and :meth:`commit` work.

    Attributes:
        transactional: whether it has such an id.
        failed: its producer is beyond help; another one may do better.
    """

    def __init__(
        self,
        clients: Clients,
        *,
        queue_timeout_seconds: float,
        delivery_timeout_seconds: float,
        transactional_id: str | None = None,
    ) -> None:
        self._clients = clients
        self._frames = clients.frames()
        self.transactional = transactional_id is not None
        self.failed = False
        self._queue_timeout_seconds = queue_timeout_seconds
        self._delivery_timeout_seconds = delivery_timeout_seconds
        timeout_ms = max(1, int(delivery_timeout_seconds * 1000))
        settings: dict[str, object] = {
            "linger.ms": 0,
            "message.timeout.ms": timeout_ms,
            "batch.size": _BATCH_BYTES,
            "message.max.bytes": 64 << 20,  # the topic's own limit decides
        }
        if transactional_id is not None:
            settings |= {"transactional.id": transactional_id, "transaction.timeout.ms": timeout_ms, **BACKOFF}
        self._producer: Producer = clients.producer(**settings)
        self._introduce()
        self._sent = 0
        self._begun = False
        self._failures_lock = threading.Lock()

    def _introduce(self) -> None:
        """Else librdkafka asks for a producer id before it knows a broker, and again half a second later.

        Raises:
            UsageError, AccessDenied, BrokerUnavailable: to wait for a broker would not help.
        """
        try:
            self._look_around(_INTRODUCTION_SECONDS)
        except KafkaException as error:
            self._poll(0)  # a denial is told here
            is_patient = self._delivery_timeout_seconds > LOOK_SECONDS
            obstacle = self._clients.obstacle() if is_patient else None
            reason = obstacle or self._clients.unreachable("connecting", error.args[0])
            if not isinstance(reason, BrokerUnavailable):
                raise reason from error
            if is_patient and obstacle is None:  # it answers, if slowly
                with suppress(KafkaException):
                    self._look_around(min(_SLOW_INTRODUCTION_SECONDS, self._delivery_timeout_seconds))

    def _look_around(self, seconds: float) -> None:
        known = self._producer.list_topics(_NO_TOPIC, timeout=seconds)
        self._clients.check_places(known, "spawning", self._delivery_timeout_seconds)

    def send(self, record: Written, ticket: Ticket) -> None:
        """Hand a record to the local queue; the broker's answer goes to ``ticket``.

        Raises:
            QueueFull: no room became free in time. The record was not taken.
            TaskTooLarge: the client's own limit forbids it. The record was not taken.
        """
        topic, key, value, headers, partition = record
        if topic in self._frames:
            value, headers = self._frames[topic].framed(value, headers)
        produce: Any = self._producer.produce
        deadline = None
        while True:
            try:
                if headers:
                    produce(topic, value, key, partition, ticket.report, headers=list(headers))
                else:
                    produce(topic, value, key, partition, ticket.report)
                break
            except BufferError:
                now = time.monotonic()
                deadline = deadline or now + self._queue_timeout_seconds
                if now >= deadline:
                    raise QueueFull(
                        f"The local queue stayed full for {self._queue_timeout_seconds:g} s; the task was refused. "
                        "Spawn more slowly, or raise queue.buffering.max.messages."
                    ) from None
                self._poll(min(_POLL_SECONDS, deadline - now))
            except KafkaException as error:
                raise self._failure(error.args[0], topic, 1) from error
        self._sent += 1
        if not self._sent % _POLL_EVERY:
            self._poll(0)

    def wait(self, tickets: Iterable[Ticket], failures: Failures) -> None:
        """Serve delivery reports until the broker has answered for every ticket.

        Raises:
            SpawnError, TopicMismatch, AccessDenied, BrokerUnavailable: some record was not accepted.
        """
        deadline = time.monotonic() + self._delivery_timeout_seconds + 5
        for ticket in tickets:
            while not ticket.settled:
                self._poll(_POLL_SECONDS)
                if time.monotonic() > deadline:
                    raise self._clients.unreachable("waiting for the broker to acknowledge")
        self.check(failures)

    def flush(self, failures: Failures) -> None:
        """Serve delivery reports until the broker has answered for all that was sent. Raises as :meth:`wait`."""
        if not self._flushed(self._delivery_timeout_seconds + 5):
            raise self._clients.unreachable("waiting for the broker to acknowledge")
        self.check(failures)

    def check(self, failures: Failures) -> None:
        """Raise what delivery reports said, once."""
        if failures:
            with self._failures_lock:
                failed = failures[:]
                del failures[: len(failed)]
            if failed:
                error, topic = failed[0]
                raise self._failure(error, topic, len(failed))

    def begin(self) -> None:
        """Open a transaction; the first time, this blocks for a round trip or two."""
        if not self._begun:
            doing = "starting a transaction"
            self._call(doing, lambda: self._producer.init_transactions(self._delivery_timeout_seconds))
            self._begun = True
        self._call("beginning a transaction", self._producer.begin_transaction)

    def commit(self) -> bool:
        """Make all records since :meth:`begin` visible. False: do not use this again.

        Raises:
            BrokerUnavailable: it is not known whether they are. Only a new Spawner can be used then.
        """
        started = time.monotonic()
        deadline = started + self._delivery_timeout_seconds
        while True:
            try:
                self._producer.commit_transaction(self._delivery_timeout_seconds)
                return not may_be_under_way(started)
            except KafkaException as error:
                reason = error.args[0]
                if not reason.retriable() or time.monotonic() > deadline:
                    if reason.txn_requires_abort():  # if it was not committed, nobody has to wait for its end
                        self.abort()
                    raise BrokerUnavailable(
                        f"No broker has confirmed the transaction ({reason.name()}): its tasks may have been accepted, "
                        "all of them or none. Look for their ids before you spawn them again."
                    ) from error

    def abort(self) -> bool:
        """Make none of them visible; the broker does so by itself if it is not told. False: do not use this again."""
        started = time.monotonic()
        try:
            self._producer.abort_transaction(self._delivery_timeout_seconds)
        except KafkaException as error:
            _log.warning("a transaction was left to time out: %s", error, extra={"action": "abort_failed"})
            return False
        return not may_be_under_way(started)

    def close(self) -> bool:
        """Wait for what is in the queue, for the delivery timeout at most. Whether all of it was answered for."""
        return self._flushed(self._delivery_timeout_seconds)

    def _flushed(self, seconds: float) -> bool:
        """In slices, between which Python serves signals."""
        deadline = time.monotonic() + seconds
        while left := self._call("spawning", lambda: self._producer.flush(_FLUSH_SLICE_SECONDS)):
            if time.monotonic() > deadline:
                break
        return not left

    def _failure(self, error: KafkaError, topic: str, failed: int) -> KantokuError:
        self.failed = self.failed or error.fatal() or error.code() == KafkaError._FATAL
        if error.code() in TOO_LARGE:
            return TaskTooLarge(
                f"A task is larger than topic {topic} takes; put the data elsewhere and spawn a reference to them, "
                "or raise max.message.bytes."
            )
        known = self._clients.error(error, f"spawning into topic {topic}")
        if type(known) is KantokuError:
            return SpawnError(f"{failed} tasks were not accepted by topic {topic}: {error.name()}: {error.str()}.")
        return known

    def _poll(self, seconds: float) -> None:
        self._call("spawning", lambda: self._producer.poll(seconds))

    def _call(self, doing: str, call: Callable[[], T]) -> T:
        try:
            return call()
        except KafkaException as error:
            self.failed = self.failed or error.args[0].fatal()
            raise self._clients.error(error.args[0], doing) from error
