"""The producer that results, events and everything else of a checkpoint go through, and what its refusals mean."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as KafkaMessage

from kantoku_kafka.errors import AccessDenied, KantokuError
from kantoku_kafka.job import Message
from kantoku_kafka.kafka.clients import Clients
from kantoku_kafka.kafka.codes import NO_TOPIC, PASSING, TOO_LARGE, kantoku_error
from kantoku_kafka.kafka.topics import forbidden_topics, topic_configs
from kantoku_kafka.model import Headers
from kantoku_kafka.protocols import CheckpointRefused

__all__ = ["Arguments", "Channel", "arguments"]

_LEAST_BATCH_BYTES = 16 << 10
# librdkafka takes 3 s to find a topic missing, and the checkpoint waits for it: what was found holds for a while.
_REFUSING_TOPIC_SECONDS = 10.0
# What says something of the producer's state, not of the record that it is reported for.
_OF_THE_PRODUCER = frozenset(
    {
        KafkaError._FENCED,
        KafkaError._FATAL,
        KafkaError._STATE,
        KafkaError._PURGE_QUEUE,
        KafkaError._PURGE_INFLIGHT,
        KafkaError._GAPLESS_GUARANTEE,
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.INVALID_PRODUCER_ID_MAPPING,
        KafkaError.INVALID_TXN_STATE,
        KafkaError.UNKNOWN_PRODUCER_ID,
        KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER,
        KafkaError.DUPLICATE_SEQUENCE_NUMBER,
        KafkaError.TRANSACTION_COORDINATOR_FENCED,
        KafkaError.TRANSACTION_ABORTABLE,
    }
)
_DENIED_TOPIC = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED})
_PURGED = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT})

Arguments = tuple[Any, ...]
"""Of ``Producer.produce``, by position: a keyword argument costs as much as half the call."""


def arguments(
    topic: str, key: bytes | None, value: bytes | None, headers: Headers = (), partition: int = -1
) -> Arguments:
    """A record as ``produce`` takes it."""
    if headers:
        return topic, value, key, partition, None, None, 0, list(headers)
    return topic, value, key, partition


class Channel(ABC):
    """The producer that Outputs, Events and Transaction share. The publisher thread owns it."""

    promise: str

    def __init__(
        self, clients: Clients, own_topics: Iterable[str], batch_size_bytes: int, timeout_seconds: float
    ) -> None:
        self._clients = clients
        self._frames = clients.frames()
        self._own_topics = frozenset(own_topics)
        self._batch_size_bytes = batch_size_bytes
        self._timeout_seconds = timeout_seconds
        self._failed: tuple[KafkaError, str] | None = None
        self._given_up = False  # records left the client's queue unsent
        self._side_topics: set[str] = set()
        self._refusing: dict[str, float] = {}
        self._tainted = False
        self._producer = self._connect()

    @abstractmethod
    def _connect(self) -> Producer:
        """A producer that is ready to be used."""

    def send(self, records: Iterable[Arguments]) -> None:
        """Stage records; a full local queue is waited for, nothing is dropped."""
        produce: Any = self._producer.produce
        for record in map(self._framed, records) if self._frames else records:
            while True:
                try:
                    produce(*record)
                    break
                except BufferError:
                    self._await_room(record[0])
                except KafkaException as error:
                    state = error.args[0].code() == KafkaError._STATE
                    raise (self._denied() if state else None) or self._refused(error.args[0], record[0]) from error

    def _framed(self, record: Arguments) -> Arguments:
        topic, value, key, partition, *rest = record
        frame = self._frames.get(topic)
        if frame is None:
            return record
        value, headers = frame.framed(value, tuple(rest[-1]) if rest else ())
        return arguments(topic, key, value, headers, partition)

    def produce(self, messages: Sequence[Message]) -> None:
        """Stage records of any topic."""
        now = time.monotonic()
        topics = {message.topic for message in messages}
        self._side_topics |= topics
        self._refusing = {topic: until for topic, until in self._refusing.items() if until > now}
        for topic in topics:
            if topic in self._refusing:
                raise CheckpointRefused(f"topic {topic} refused a record a moment ago", culprit=True)
        self.send([arguments(*message) for message in messages])

    def _await_room(self, topic: str) -> None:
        try:
            self._producer.poll(0.01)
        except KafkaException as error:
            raise self._refused(error.args[0], topic) from error

    def _forget_reports(self) -> None:
        """Those of what was staged before say nothing any more."""
        self._failed = None
        self._given_up = False
        self._side_topics.clear()

    def probe(self) -> None:
        """Wait for the broker's word on every staged record."""
        try:
            left = self._producer.flush(self._timeout_seconds)
        except KafkaException as error:
            raise self._refused(error.args[0], "the producer") from error
        if left > 0:
            raise CheckpointRefused("the broker did not acknowledge all records in time")
        self._check_reports()

    def _check_reports(self) -> None:
        """Raise what has become of records that were not taken."""
        if self._failed is not None:
            raise self._refused(*self._failed)
        if self._given_up:
            raise self._denied() or CheckpointRefused("the client has given records up")

    def _denied(self) -> KantokuError | None:
        """The topic that we may not write to, if there is one among those of this checkpoint.

        A broker says so when a partition joins the transaction, and not of a record: librdkafka gives all of them up.
        """
        refusal = None
        for topic in forbidden_topics(self._clients, self._own_topics | self._side_topics):
            if topic in self._own_topics:
                return AccessDenied(f"The broker forbids writing to topic {topic}. Ask for the ACL: Write.")
            self._refusing[topic] = time.monotonic() + _REFUSING_TOPIC_SECONDS
            refusal = CheckpointRefused(f"topic {topic} is forbidden", culprit=True)
        return refusal

    def _settings(self) -> dict[str, object]:
        return {
            "delivery.report.only.error": True,
            "on_delivery": self._on_delivery,
            "batch.size": self._batch_size_bytes,
            "message.max.bytes": 64 << 20,
        }

    def _on_delivery(self, error: KafkaError | None, message: KafkaMessage) -> None:
        """Only failures are reported."""
        if error is None:
            return
        if error.code() in _PURGED:  # by an abort, ours or librdkafka's own
            self._given_up = True
        else:
            self._failed = self._failed or (error, message.topic() or "")

    def _refused(self, error: KafkaError, topic: str) -> KantokuError:
        """What the refusal of a record means: the record's own fault, or that of the installation."""
        code = error.code()
        if error.fatal() or code == KafkaError._FATAL:
            self._tainted = True
        if code in TOO_LARGE:
            if self._shrink_batches(topic):
                return CheckpointRefused(f"topic {topic} takes smaller batches only")
            return CheckpointRefused(f"a record for {topic} is too large", culprit=True)
        if code in NO_TOPIC | _DENIED_TOPIC:
            if topic in self._own_topics:
                return kantoku_error(error, f"writing to topic {topic}")
            self._refusing[topic] = time.monotonic() + _REFUSING_TOPIC_SECONDS
        return CheckpointRefused(f"{topic}: {error.name()}", culprit=code not in PASSING | _OF_THE_PRODUCER)

    def _shrink_batches(self, topic: str) -> bool:
        """Whether it may have been the batch that was too large for the topic, not the record: they are smaller now."""
        try:
            (configs,) = topic_configs(self._clients, [topic]).values()
            limit_bytes = int(configs["max.message.bytes"])
        except (KantokuError, KeyError, ValueError):  # ours to guess, where we may not read it
            limit_bytes = _LEAST_BATCH_BYTES
        if self._batch_size_bytes <= max(limit_bytes, _LEAST_BATCH_BYTES):
            return False
        self._batch_size_bytes = max(limit_bytes, _LEAST_BATCH_BYTES)
        self._tainted = True
        return True
