"""Outputs and Events on Kafka: they stage into the checkpoint's transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kantoku_kafka.job import Message
from kantoku_kafka.kafka.config import Clients
from kantoku_kafka.kafka.partitioner import partitioner
from kantoku_kafka.kafka.topics import partition_count
from kantoku_kafka.kafka.transaction import ExactlyOnceTransaction, PlainTransaction
from kantoku_kafka.model import Event, Headers, Result
from kantoku_kafka.protocols import EXACTLY_ONCE, Codec

__all__ = ["EventWriter", "KafkaEvents", "KafkaOutputs", "NoEvents"]

KafkaTransaction = ExactlyOnceTransaction | PlainTransaction


class KafkaOutputs:
    """Results, keyed by task id. The loop thread owns it.

    Parameters:
        transaction: what makes the results visible.
        topic: of the results.
        codec: of the envelopes.
        max_data_bytes: what the topic takes, less the envelope around the data.
    """

    def __init__(self, transaction: KafkaTransaction, topic: str, codec: Codec, max_data_bytes: int) -> None:
        self._transaction = transaction
        self._topic = topic
        self._encode = codec.encode_result
        self.promise = transaction.promise
        self.max_data_bytes = max_data_bytes

    def stage(self, results: Sequence[Result]) -> None:
        encode = self._encode
        self._transaction.send(self._topic, [(r.task_id.encode(), encode(r), r.headers, -1) for r in results])


class EventWriter:
    """Turns events into records of the audit topic. Stateless: safe in any thread.

    Parameters:
        topic: the audit topic, and ``partitions``, how many it has (it must never get more).
        codec: of the envelopes.
    """

    def __init__(self, topic: str, partitions: int, codec: Codec) -> None:
        self.topic = topic
        self._partitions = partitions
        self._codec = codec
        self._partition_of = partitioner()

    @classmethod
    def connect(cls, clients: Clients, topic: str, codec: Codec) -> EventWriter:
        """Look up the number of partitions. Raises TopicMismatch, AccessDenied, BrokerUnavailable."""
        return cls(topic, partition_count(clients, topic), codec)

    def records(self, events: Sequence[Event]) -> Iterator[tuple[bytes, bytes, Headers, int]]:
        """(key, value, headers, partition) of each event; the partition is that of the task id.

        The key is ``{task_id}/{attempt}/{name}``: a repeated event replaces itself, others survive compaction.
        """
        partition_of, partitions = self._partition_of, self._partitions
        last_id, last_attempt, partition, head = "", 0, 0, b""
        for event, value in zip(events, self._codec.encode_events(events), strict=True):
            if event.task_id is not last_id or event.attempt != last_attempt:
                last_id, last_attempt = event.task_id, event.attempt
                raw_id = last_id.encode()
                partition = partition_of(raw_id, partitions)
                head = b"%b/%d/" % (raw_id, last_attempt)
            yield head + event.name.encode(), value, (), partition

    def message(self, event: Event) -> Message:
        """One event as a record."""
        ((key, value, headers, partition),) = self.records((event,))
        return Message(self.topic, key, value, headers, partition)


class KafkaEvents:
    """Events, staged into the checkpoint's transaction. The loop thread owns it."""

    def __init__(self, transaction: KafkaTransaction, writer: EventWriter) -> None:
        self._transaction = transaction
        self._writer = writer
        self.promise = transaction.promise

    def stage(self, events: Sequence[Event]) -> None:
        self._transaction.send(self._writer.topic, self._writer.records(events))


class NoEvents:
    """Events switched off."""

    promise = EXACTLY_ONCE

    def stage(self, events: Sequence[Event]) -> None:
        """Nothing is written."""
