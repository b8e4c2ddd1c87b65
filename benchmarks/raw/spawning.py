"""The hand-written spawning side."""

from __future__ import annotations

import os
import time
from io import BytesIO

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from fastavro import schemaless_writer

from benchmarks.raw.codec import TASK, TASK_HEADER, decode_result, encode_task, task_ids


def spawn(producer: Producer, failures: list[str], topic: str, *, tasks: int, payload_bytes: int) -> float:
    """Seconds from the first task to the last acknowledgement. The payload is the same for all.

    One task goes ahead of the clock, so that connecting and the producer id do not count.
    """
    data, produce = os.urandom(payload_bytes), producer.produce
    task_id, now_us = next(task_ids())
    produce(topic, encode_task(task_id, "echo", data, now_us), task_id)
    producer.flush()
    started = time.perf_counter()
    for number, (task_id, now_us) in zip(range(tasks), task_ids(), strict=False):
        out = BytesIO()
        out.write(TASK_HEADER)
        schemaless_writer(out, TASK, {"id": task_id, "type": "echo", "data": data, "created_at": now_us})
        while True:
            try:
                produce(topic, out.getvalue(), task_id)
                break
            except BufferError:
                producer.poll(0.005)
        if not number % 1000:
            producer.poll(0)
    if producer.flush() or failures:
        raise SystemExit(f"tasks were not delivered: {failures[:1]}")
    return time.perf_counter() - started


def echo(
    producer: Producer,
    consumer: Consumer,
    failures: list[str],
    topic: str,
    results: str,
    *,
    warmup: int,
    samples: int,
    payload_bytes: int,
) -> list[float]:
    """Milliseconds from a task to its decoded result, one task at a time, after `warmup` unmeasured ones."""
    _assign_at_end(consumer, results)
    data, milliseconds = os.urandom(payload_bytes), []
    for number, (task_id, now_us) in zip(range(warmup + samples), task_ids(), strict=False):
        started = time.perf_counter()
        producer.produce(topic, encode_task(task_id, "echo", data, now_us), task_id)
        producer.poll(0)
        _await_result(consumer, task_id, failures)
        if number >= warmup:
            milliseconds.append(1000 * (time.perf_counter() - started))
    return milliseconds


def _assign_at_end(consumer: Consumer, topic: str) -> None:
    """Explicit offsets, so that a result published before the first fetch is not missed."""
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    ends = [TopicPartition(topic, partition) for partition in partitions]
    for end in ends:
        end.offset = consumer.get_watermark_offsets(end, timeout=10)[1]
    consumer.assign(ends)


def _await_result(consumer: Consumer, task_id: str, failures: list[str]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not failures:
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error() is not None:
            raise KafkaException(message.error())
        if decode_result(message.value() or b"")["task_id"] == task_id:
            return
    raise SystemExit(f"no result of {task_id} within 30 s: {failures[:1]}")
