"""The two hand-written executors: consume, decode the Task, echo, encode the Result, produce, commit.

They do not retry, time out, run more than one task at a time or write events: nothing stands in the way
of speed.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from fastavro import schemaless_reader, schemaless_writer

from benchmarks.raw.codec import HEADER_BYTES, RESULT, RESULT_HEADER, TASK, TASK_HEADER

IDLE_SECONDS = 0.2
EXECUTOR_ID = f"{socket.gethostname()}-{os.getpid()}-raw"

Positions = dict[int, int]
Work = Callable[[list[Message], Callable[..., None], str, Positions], None]


@dataclass(frozen=True, kw_only=True)
class Route:
    """From which topic to which, and at most how many tasks in one commit."""

    topic: str
    results: str
    batch: int


def exactly_once(consumer: Consumer, producer: Producer, route: Route, work: Work, stopped: Callable[[], bool]) -> None:
    """Results and offsets of a batch in one transaction. An error ends the program: nothing is lost."""
    producer.init_transactions()
    consumer.subscribe([route.topic])
    while not stopped():
        messages = _next_batch(consumer, route.batch)
        if not messages:
            continue
        positions: Positions = {}
        producer.begin_transaction()
        work(messages, producer.produce, route.results, positions)
        producer.send_offsets_to_transaction(_offsets(route, positions), consumer.consumer_group_metadata())
        producer.commit_transaction()
    consumer.close()


def at_least_once(
    consumer: Consumer,
    producer: Producer,
    failures: list[str],
    route: Route,
    work: Work,
    stopped: Callable[[], bool],
) -> None:
    """Results of a batch are acknowledged before its offsets are committed; that commit is not waited for."""
    consumer.subscribe([route.topic])
    while not stopped():
        messages = _next_batch(consumer, route.batch)
        if not messages:
            continue
        positions: Positions = {}
        work(messages, producer.produce, route.results, positions)
        if producer.flush() or failures:
            raise SystemExit(f"results were not delivered: {failures[:1]}")
        consumer.commit(offsets=_offsets(route, positions), asynchronous=True)
    consumer.close()


def _next_batch(consumer: Consumer, size: int) -> list[Message]:
    """What is there, at most `size`: waits for the first only, `consume(size, timeout)` for all."""
    first = consumer.poll(IDLE_SECONDS)
    return [] if first is None else [first, *consumer.consume(size - 1, 0)]


def _offsets(route: Route, positions: Positions) -> list[TopicPartition]:
    return [TopicPartition(route.topic, partition, offset) for partition, offset in positions.items()]


def work_fastavro(messages: list[Message], produce: Callable[..., None], results: str, positions: Positions) -> None:
    """One pass over a batch. One clock reading, one record and one buffer serve all of it."""
    now_us = time.time_ns() // 1000
    source: dict[str, Any] = {"topic": messages[0].topic(), "partition": 0, "offset": 0, "epoch": 0}
    result: dict[str, Any] = {
        "task_id": "",
        "type": "",
        "status": "OK",
        "data": b"",
        "error": None,
        "attempt": 1,
        "executor_id": EXECUTOR_ID,
        # The branch of the union by name: fastavro need not find out which one fits.
        "started_at": ("long", now_us),
        "finished_at": now_us,
        "source": source,
    }
    out = BytesIO()
    out.write(RESULT_HEADER)
    for message in messages:
        if message.error() is not None:
            raise KafkaException(message.error())
        value = message.value() or b""
        if not value.startswith(TASK_HEADER):
            raise ValueError("not a Task envelope of the current schema")
        stream = BytesIO(value)
        stream.seek(HEADER_BYTES)
        task: Any = schemaless_reader(stream, TASK, None)
        task_id = task["id"]
        partition, offset = message.partition() or 0, message.offset() or 0
        result["task_id"], result["type"], result["attempt"] = task_id, task["type"], task["attempt"]
        result["data"] = handler(task["data"])
        source["partition"], source["offset"] = partition, offset
        out.seek(HEADER_BYTES)
        out.truncate()
        schemaless_writer(out, RESULT, result)
        produce(results, out.getvalue(), task_id)
        positions[partition] = offset + 1


def work_bytes(messages: list[Message], produce: Callable[..., None], results: str, positions: Positions) -> None:
    """No envelope at all, the record's bytes are copied: the limit of Kafka and of its client."""
    for message in messages:
        if message.error() is not None:
            raise KafkaException(message.error())
        produce(results, message.value(), message.key())
        positions[message.partition() or 0] = (message.offset() or 0) + 1


def handler(data: bytes) -> bytes:
    return data


WORK: dict[str, Work] = {"fastavro": work_fastavro, "bytes": work_bytes}
