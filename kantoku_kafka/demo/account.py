"""What the topics say of a run, read from beginning to end by a consumer that takes no part in it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, TopicPartition

from kantoku_kafka.errors import KantokuError
from kantoku_kafka.kafka.config import librdkafka_config
from kantoku_kafka.model import Event, EventName, Result, Status, TaskEnvelope
from kantoku_kafka.names import Topics
from kantoku_kafka.protocols import Codec
from kantoku_kafka.settings import Connection

__all__ = ["Account", "Latency", "TopicContents", "latency", "take_account"]

_READ_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class TopicContents:
    """Everything that was committed, in the order of each partition; results with the record's time."""

    tasks: Sequence[TaskEnvelope]
    results: Sequence[tuple[Result, int]]
    events: Sequence[Event]

    @classmethod
    def read(cls, connection: Connection, topics: Topics, task_types: Iterable[str], codec: Codec) -> TopicContents:
        """Read the inputs, results and events, as far as they are committed now."""
        inputs = [record for name in task_types for record in _records(connection, topics.of_type(name))]
        return cls(
            tasks=[codec.decode_task(value) for value, _ in inputs],
            results=[(codec.decode_result(value), at_ms) for value, at_ms in _records(connection, topics.results)],
            events=[codec.decode_event(value) for value, _ in _records(connection, topics.events)],
        )


class Latency(NamedTuple):
    """Median and 99th percentile, in milliseconds."""

    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, kw_only=True)
class Account:
    """The numbers of a run.

    ``lost`` counts tasks without a result, and children that their parent's result promises but nobody spawned;
    ``duplicated`` counts results beyond one per task, and children beyond one per parent.
    ``run_again`` counts tasks whose function was begun more than once: execution is at least once.
    """

    spawned: int
    children: int
    status: dict[str, int]
    lost: int
    duplicated: int
    runs: int
    run_again: int
    events: int
    uneventful: int
    tasks_per_second: float
    latency: Latency

    @property
    def ok(self) -> bool:
        """Nothing lost, nothing twice."""
        return self.lost == 0 and self.duplicated == 0


def take_account(contents: TopicContents, *, accepted: set[str], burst: set[str], runs: Sequence[str]) -> Account:
    """Compare what was accepted with what the topics hold.

    Parameters:
        accepted: ids for which the broker acknowledged a spawn.
        burst: those of them that were spawned all at once: they and their children give rate and latency.
        runs: the task id of every run that was begun.
    """
    tasks = {task.id: task for task in contents.tasks}
    expected = accepted | tasks.keys()
    results = Counter(result.task_id for result, _ in contents.results)
    parents = Counter(task.parent_id for task in contents.tasks if task.parent_id is not None)
    promised = {result.data.decode() for result, _ in contents.results if result.type == "fetch" and result.data}
    terminal = Counter(event.task_id for event in contents.events if event.name == EventName.SENT_OUTPUTS)
    status = Counter(result.status for result, _ in contents.results)
    measured = [
        (tasks[result.task_id], at_ms)
        for result, at_ms in contents.results
        if result.task_id in tasks and (result.task_id in burst or tasks[result.task_id].parent_id in burst)
    ]
    return Account(
        spawned=len(expected),
        children=parents.total(),
        status={name.value: status[name] for name in Status if status[name]},
        lost=len(expected - results.keys()) + len(promised - tasks.keys()),
        duplicated=sum(count - 1 for count in (*results.values(), *parents.values())),
        runs=len(runs),
        run_again=sum(count > 1 for count in Counter(runs).values()),
        events=len(contents.events),
        uneventful=sum(terminal[task_id] != 1 for task_id in results),
        tasks_per_second=_rate(measured),
        latency=latency([at_ms - task.created_at_us / 1000 for task, at_ms in measured if task.id in burst]),
    )


def latency(milliseconds: Iterable[float]) -> Latency:
    """Percentiles by nearest rank; zeros if there is nothing to measure."""
    ordered = sorted(milliseconds)
    if not ordered:
        return Latency(0.0, 0.0)
    return Latency(*(round(ordered[min(len(ordered) - 1, len(ordered) * p // 100)], 1) for p in (50, 99)))


def _rate(measured: Sequence[tuple[TaskEnvelope, int]]) -> float:
    """Results per second, from the first spawn to the last result."""
    if not measured:
        return 0.0
    first_ms = min(task.created_at_us for task, _ in measured) / 1000
    last_ms = max(at_ms for _, at_ms in measured)
    return round(len(measured) / max(0.001, (last_ms - first_ms) / 1000), 1)


def _records(connection: Connection, topic: str) -> list[tuple[bytes, int]]:
    """Value and time (ms) of every committed record, up to the ends as they are now."""
    consumer = Consumer(
        {
            **librdkafka_config(connection),
            "group.id": f"{topic}.account",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "fetch.queue.backoff.ms": 5,
        }
    )
    try:
        numbers = consumer.list_topics(topic, timeout=_READ_SECONDS).topics[topic].partitions
        partitions = [TopicPartition(topic, number, 0) for number in numbers]
        ends = {p.partition: consumer.get_watermark_offsets(p, timeout=_READ_SECONDS)[1] for p in partitions}
        consumer.assign(partitions)
        unread = {number for number, end in ends.items() if end > 0}
        records: list[tuple[bytes, int]] = []
        deadline = time.monotonic() + _READ_SECONDS
        while unread:
            if time.monotonic() > deadline:
                raise KantokuError(f"The end of {topic} was not reached within {_READ_SECONDS:.0f} s: start again.")
            for message in consumer.consume(2_000, 0.1):
                error, value, offset = message.error(), message.value(), message.offset()
                if error is None:
                    if value is not None:
                        records.append((value, message.timestamp()[1]))
                elif error.code() != KafkaError._PARTITION_EOF:
                    raise KantokuError(f"Reading {topic} failed: {error.str()}.")
                elif offset is not None and offset >= ends[message.partition() or 0]:
                    unread.discard(message.partition() or 0)
        return records
    finally:
        consumer.close()
