"""Outputs and Events on Kafka: they stage into the checkpoint's transaction."""

from __future__ import annotations

from collections.abc import Sequence

from kantoku_kafka.kafka.partitioner import partition_of
from kantoku_kafka.kafka.transaction import ExactlyOnceTransaction, PlainTransaction
from kantoku_kafka.model import Event, Result
from kantoku_kafka.protocols import Codec

__all__ = ["KafkaEvents", "KafkaOutputs", "event_key"]

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


class KafkaEvents:
    """Events, keyed by task, attempt and name, in the partition of the task id. The loop thread owns it.

    Parameters:
        transaction: what makes the events visible.
        topic: the audit topic, and ``partitions``, how many it has (it must never get more).
        codec: of the envelopes.
    """

    def __init__(self, transaction: KafkaTransaction, topic: str, partitions: int, codec: Codec) -> None:
        self._transaction = transaction
        self._topic = topic
        self._partitions = partitions
        self._codec = codec
        self.promise = transaction.promise

    def stage(self, events: Sequence[Event]) -> None:
        records = []
        last_id, partition = "", 0
        for event, value in zip(events, self._codec.encode_events(events), strict=True):
            task_id = event.task_id
            if task_id is not last_id:
                last_id = task_id
                partition = partition_of(task_id.encode(), self._partitions)
            records.append((event_key(event), value, (), partition))
        self._transaction.send(self._topic, records)


def event_key(event: Event) -> bytes:
    """``{task_id}/{attempt}/{name}``: a repeated event replaces itself, different ones all survive compaction."""
    return f"{event.task_id}/{event.attempt}/{event.name}".encode()
