"""The producing side of a client: a task is accepted when the broker has acknowledged it, not before."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as KafkaMessage

from kantoku_kafka.errors import KantokuError, QueueFull, SpawnError, TaskTooLarge
from kantoku_kafka.job import Message
from kantoku_kafka.kafka.config import TOO_LARGE, Clients

__all__ = ["Batch", "Spawner"]

_POLL_SECONDS = 0.01
Delivered = Callable[[int, int], None]


class Batch:
    """Counts the records of one call until the broker has answered for each. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.outstanding = 0
        self.error: tuple[KafkaError, str] | None = None
        self.failed = 0

    def add(self) -> None:
        with self._lock:
            self.outstanding += 1

    def settle(self, error: KafkaError | None, topic: str) -> None:
        with self._lock:
            self.outstanding -= 1
            if error is not None:
                self.failed += 1
                self.error = self.error or (error, topic)

    def take_error(self) -> tuple[KafkaError, str, int] | None:
        """The first error, its topic and how many there were, once."""
        with self._lock:
            found, failed = self.error, self.failed
            self.error, self.failed = None, 0
        return None if found is None else (*found, failed)


class Spawner:
    """A producer and its delivery reports. Thread-safe.

    Parameters:
        clients: the connection.
        queue_timeout_seconds: how long to wait for room in the local queue.
        delivery_timeout_seconds: how long the broker may take to acknowledge.
        transactional_id: None, or the id under which :meth:`begin` and :meth:`commit` work.
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
        self._queue_timeout_seconds = queue_timeout_seconds
        self._delivery_timeout_seconds = delivery_timeout_seconds
        timeout_ms = max(1, int(delivery_timeout_seconds * 1000))
        settings: dict[str, object] = {"linger.ms": 1, "message.timeout.ms": timeout_ms}
        if transactional_id is not None:
            settings |= {"transactional.id": transactional_id, "transaction.timeout.ms": timeout_ms}
        self._producer: Producer = clients.producer(**settings)

    def send(self, message: Message, batch: Batch, delivered: Delivered | None = None) -> None:
        """Hand a record to the local queue; its fate is settled in ``batch``.

        Raises:
            QueueFull: no room became free in time. The record was not taken.
            TaskTooLarge: the client's own limit forbids it. The record was not taken.
        """

        def report(error: KafkaError | None, record: KafkaMessage) -> None:
            if error is None and delivered is not None:
                delivered(record.partition() or 0, record.offset() or 0)
            batch.settle(error, message.topic)

        topic, key, value, headers, partition = message
        batch.add()
        try:
            self._enqueue(topic, value, key, partition, report, headers or None)
        except BaseException:
            batch.settle(None, topic)
            raise

    def wait(self, batch: Batch) -> None:
        """Serve delivery reports until the broker has answered for every record of the batch.

        Raises:
            SpawnError, TopicMismatch, AccessDenied, BrokerUnavailable: some record was not accepted.
        """
        deadline = time.monotonic() + self._delivery_timeout_seconds + 5
        while batch.outstanding:
            self._producer.poll(_POLL_SECONDS)
            if time.monotonic() > deadline:
                raise self._clients.unreachable("waiting for the broker to acknowledge")
        self.check(batch)

    def check(self, batch: Batch) -> None:
        """Raise what a delivery report said, once."""
        found = batch.take_error()
        if found is not None:
            raise self._failure(*found)

    def begin(self) -> None:
        """Open a transaction; blocks while an earlier one of the same id is ended."""
        self._call("starting a transaction", lambda: self._producer.init_transactions(self._delivery_timeout_seconds))
        self._producer.begin_transaction()

    def commit(self) -> None:
        """Make all records since :meth:`begin` visible, or raise and none is."""
        self._call(
            "committing a spawn transaction",
            lambda: self._producer.commit_transaction(self._delivery_timeout_seconds),
        )

    def abort(self) -> None:
        """Make none of them visible."""
        self._call("aborting", lambda: self._producer.abort_transaction(self._delivery_timeout_seconds))

    def poll(self) -> None:
        """Serve the delivery reports that are there."""
        self._producer.poll(0)

    def close(self) -> None:
        """Wait for what is in the queue, for the delivery timeout at most."""
        self._producer.flush(self._delivery_timeout_seconds)

    def _enqueue(self, topic: str, value: bytes, key: bytes | None, partition: int, report: Any, headers: Any) -> None:
        deadline = None
        while True:
            try:
                self._producer.produce(topic, value, key, partition, report, headers=headers)
                return
            except BufferError:
                now = time.monotonic()
                deadline = deadline or now + self._queue_timeout_seconds
                if now >= deadline:
                    raise QueueFull(
                        f"The local queue stayed full for {self._queue_timeout_seconds:g} s; the task was refused. "
                        "Spawn more slowly, or raise queue.buffering.max.messages."
                    ) from None
                self._producer.poll(min(_POLL_SECONDS, deadline - now))
            except KafkaException as error:
                raise self._failure(error.args[0], topic, 1) from error

    def _failure(self, error: KafkaError, topic: str, failed: int) -> KantokuError:
        if error.code() in TOO_LARGE:
            return TaskTooLarge(
                f"A task is larger than topic {topic} takes; put the data elsewhere and spawn a reference to them, "
                "or raise max.message.bytes."
            )
        known = self._clients.error(error, f"spawning into topic {topic}")
        if type(known) is KantokuError:
            return SpawnError(f"{failed} tasks were not accepted by topic {topic}: {error.name()}: {error.str()}.")
        return known

    def _call(self, doing: str, call: Callable[[], object]) -> None:
        try:
            call()
        except KafkaException as error:
            raise self._clients.error(error.args[0], doing) from error
