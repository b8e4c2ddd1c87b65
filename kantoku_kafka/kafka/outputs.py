"""Outputs and Events on Kafka: they stage into the checkpoint's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from kantoku_kafka.job import Message
from kantoku_kafka.kafka.channel import Arguments, Channel, arguments
from kantoku_kafka.kafka.clients import Clients
from kantoku_kafka.kafka.partitioner import partitioner
from kantoku_kafka.kafka.topics import partition_count
from kantoku_kafka.model import Event, Result, Trail
from kantoku_kafka.protocols import EXACTLY_ONCE, Codec

__all__ = ["EventWriter", "KafkaEvents", "KafkaOutputs", "NoEvents"]


class KafkaOutputs:
    """Results, keyed by task id. The loop thread owns it.

    Parameters:
        channel: the transaction that makes the results visible.
        topic: of the results.
        codec: of the envelopes.
        max_data_bytes: what the topic takes, less the envelope around the data.
    """

    def __init__(self, channel: Channel, topic: str, codec: Codec, max_data_bytes: int) -> None:
        self._channel = channel
        self._topic = topic
        self._encode = codec.encode_result
        self.promise = channel.promise
        self.max_data_bytes = max_data_bytes

    def prepare(self, results: Sequence[Result]) -> Sequence[Arguments]:
        encode, topic = self._encode, self._topic
        return [arguments(topic, r.task_id.encode(), encode(r), r.headers) for r in results]

    def stage(self, prepared: Sequence[Arguments]) -> None:
        self._channel.send(prepared)


class EventWriter:
    """Turns events into records of the audit topic. Keeps nothing between calls: safe in any thread.

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

    def prepare(self, trails: Sequence[Trail]) -> list[Arguments]:
        """The record of each step; its partition is that of the task id.

        The key is ``{task_id}/{attempt}/{name}``: a repeated event replaces itself, others survive compaction.
        """
        topic, partition_of, partitions = self.topic, self._partition_of, self._partitions
        values = iter(self._codec.encode_trails(trails))
        prepared: list[Arguments] = []
        for task_id, _, attempt, _, _, steps in trails:
            raw_id = task_id.encode()
            partition = partition_of(raw_id, partitions)
            for step in steps:
                prepared.append((topic, next(values), raw_id + _suffix(attempt, step[0]), partition))
        return prepared

    def message(self, event: Event) -> Message:
        """One event as a record."""
        ((topic, value, key, partition),) = self.prepare((Trail.of(event),))
        return Message(topic, key, value, (), partition)


@lru_cache(maxsize=4096)
def _suffix(attempt: int, name: str) -> bytes:
    return f"/{attempt}/{name}".encode()


class KafkaEvents:
    """Events, staged into the checkpoint's transaction. The loop thread owns it."""

    def __init__(self, channel: Channel, writer: EventWriter) -> None:
        self._channel = channel
        self._writer = writer
        self.promise = channel.promise

    def prepare(self, trails: Sequence[Trail]) -> Sequence[Arguments]:
        return self._writer.prepare(trails)

    def stage(self, prepared: Sequence[Arguments]) -> None:
        self._channel.send(prepared)


class NoEvents:
    """Events switched off."""

    promise = EXACTLY_ONCE

    def prepare(self, trails: Sequence[Trail]) -> Sequence[Trail]:
        """Nothing is written."""
        return trails[:0]

    def stage(self, prepared: Sequence[Trail]) -> None:
        """Nothing is written."""
