"""What the topics say of a run, read from beginning to end by a consumer that takes no part in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kantoku_kafka.kafka.clients import Clients
from kantoku_kafka.kafka.records import value_of
from kantoku_kafka.kafka.scan import Scan, beginnings, ends
from kantoku_kafka.model import Event, EventName, Result, Status, TaskEnvelope
from kantoku_kafka.names import Topics
from kantoku_kafka.protocols import Codec
from kantoku_kafka.settings import Connection

__all__ = ["Account", "Latency", "TopicContents", "latency", "take_account"]


@dataclass(frozen=True, kw_only=True)
class TopicContents:
    """Everything that was committed, in the order of each partition; results with the record's time."""

    tasks: Sequence[TaskEnvelope]
    results: Sequence[tuple[Result, int]]
    events: Sequence[Event]

    @classmethod
    def read(cls, connection: Connection, topics: Topics, task_types: Iterable[str], codec: Codec) -> TopicContents:
        """Read the inputs, results and events, as far as they are committed now."""
        clients = Clients(connection)
        inputs = [record for name in task_types for record in _records(clients, topics.of_type(name))]
        return cls(
            tasks=[codec.decode_task(value) for value, _ in inputs],
            results=[(codec.decode_result(value), at_ms) for value, at_ms in _records(clients, topics.results)],
            events=[codec.decode_event(value) for value, _ in _records(clients, topics.events)],
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


def _records(clients: Clients, topic: str) -> list[tuple[bytes, int]]:
    """Value and time (ms) of every committed record, up to the ends as they are now."""
    scan = Scan(clients, topic, beginnings(clients, topic), ends(clients, topic))
    records = (record for batch in scan.batches() for record in batch)
    return [(value_of(record), record.timestamp()[1]) for record in records if record.value() is not None]
