"""Adds up what a process tells its meters, as the values of :data:`~kantoku_kafka.observability.metrics.METRICS`."""

from __future__ import annotations

import platform
import threading
import time
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.metadata import version
from itertools import product
from typing import TYPE_CHECKING

from kantoku_kafka.job import Job
from kantoku_kafka.kafka.statistics import librdkafka_version
from kantoku_kafka.meter import TASKS, TIMERS, ClientStatistics, Committed, Fetched, Meter, Standing, Undone
from kantoku_kafka.model import EventName, Status
from kantoku_kafka.observability.metrics import BUCKETS, METRICS, PROCESS, UNKNOWN, Kind, Metric
from kantoku_kafka.plugins import Plugin

if TYPE_CHECKING:
    from kantoku_kafka.app import Kantoku

__all__ = ["Distribution", "Labels", "Measured"]

Labels = tuple[str, ...]
Series = Mapping[Labels, "float | Distribution"]
_STEPS = {
    EventName.RETRY_SCHEDULED: "kantoku_retries_total",
    EventName.DUPLICATE: "kantoku_duplicates_total",
    EventName.SPAWNED: "kantoku_scheduled_total",
}
_OF_CONSUMERS = {
    "kantoku_consumer_requests_total": "requests",
    "kantoku_consumer_request_timeouts_total": "request_timeouts",
    "kantoku_consumer_sent_bytes_total": "sent_bytes",
    "kantoku_consumer_received_bytes_total": "received_bytes",
    "kantoku_consumer_queue_records": "queue_records",
    "kantoku_consumer_queue_bytes": "queue_bytes",
    "kantoku_coordinator_rtt_seconds": "rtt_seconds",
}
_NOTHING = Standing(assigned=0)
_NO_STATISTICS = ClientStatistics(0, 0, 0, 0, 0, 0, 0.0, {})


class Distribution:
    """A histogram: how many values up to each bound, and beyond the last one. Not thread-safe."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, values: Iterable[float]) -> None:
        """So many values more."""
        ascending = sorted(values)
        counted = 0
        for index, bound in enumerate(self.bounds):
            up_to = bisect_right(ascending, bound)
            self.counts[index] += up_to - counted
            counted = up_to
        self.counts[-1] += len(ascending) - counted
        self.sum += sum(ascending)

    def copy(self) -> Distribution:
        """As it is now."""
        copied = Distribution(self.bounds)
        copied.counts, copied.sum = list(self.counts), self.sum
        return copied


class Measured(Plugin, Meter):
    """Thread-safe. A plugin of one app in one process.

    Parameters:
        loops: which the process has.
    """

    def __init__(self, loops: Collection[str] = (TASKS, TIMERS)) -> None:
        self._loops = tuple(loops)
        self._build = version("kantoku-kafka"), platform.python_version(), librdkafka_version()
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, Labels]] = Counter()
        self._distributions: dict[tuple[str, Labels], Distribution] = {}
        self._standing: dict[str, Standing] = {}
        self._consumers: dict[str, ClientStatistics] = {}

    def initialize(self, kantoku: Kantoku) -> None:
        self._kantoku = kantoku

    # --- what is told

    def committed(self, loop: str, checkpoint: Committed) -> None:
        with self._lock:
            self._distribution("kantoku_checkpoint_seconds", (loop,)).add([checkpoint.seconds])
            self._distribution("kantoku_checkpoint_records", (loop,)).add([checkpoint.records])
            self._distribution("kantoku_checkpoint_bytes", (loop,)).add([checkpoint.size_bytes])
            self._count_jobs(checkpoint.ended)

    def _count_jobs(self, ended: Sequence[Job]) -> None:
        """Most have ended well: they are counted together, by type."""
        well: defaultdict[str, list[int]] = defaultdict(list)
        ok = Status.OK
        for job in ended:
            if job.status is ok:
                well[job.type].append(job.finished_at_us - (job.started_at_us or job.finished_at_us))
            else:
                self._count_other(job)
        for name, times_us in well.items():
            label = self._label(name)
            self._counts["kantoku_tasks_total", (*label, ok)] += len(times_us)
            self._count_runs(label, times_us)

    def _count_other(self, job: Job) -> None:
        label = self._label(getattr(job, "type", UNKNOWN))  # there is none in a record that cannot be read
        if job.status is not None:
            self._counts["kantoku_tasks_total", (*label, job.status)] += 1
        if job.started_at_us is not None:
            self._count_runs(label, [job.finished_at_us - job.started_at_us])
        if job.letter is not None:
            self._counts["kantoku_dead_letters_total", label] += 1
        move = job.move
        if move is not None and move.step in _STEPS:
            self._counts[_STEPS[move.step], label] += 1
        elif move is not None and move.step is None and move.messages:
            self._counts["kantoku_timers_fired_total", label] += 1

    def _count_runs(self, label: Labels, times_us: Sequence[int]) -> None:
        """By a wall clock, which may be set back."""
        self._distribution("kantoku_execution_seconds", label).add([max(0, us) / 1_000_000 for us in times_us])

    def _label(self, name: str) -> Labels:
        return (name if name in self._kantoku.task_types else UNKNOWN,)

    def refused(self, loop: str) -> None:
        self._count("kantoku_checkpoints_refused_total", loop)

    def fenced(self, loop: str) -> None:
        self._count("kantoku_fenced_total", loop)

    def rebalanced(self, loop: str, change: str) -> None:
        self._count("kantoku_rebalances_total", loop, change)

    def heartbeat(self, delivered: bool) -> None:
        self._count("kantoku_heartbeats_total", "delivered" if delivered else "lost")

    def stands(self, loop: str, standing: Standing) -> None:
        self._standing[loop] = standing

    def consumer(self, loop: str, statistics: ClientStatistics) -> None:
        self._consumers[loop] = statistics

    def _count(self, name: str, *labels: str) -> None:
        with self._lock:
            self._counts[name, labels] += 1

    def _distribution(self, name: str, labels: Labels) -> Distribution:
        found = self._distributions.get((name, labels))
        if found is None:
            found = self._distributions[name, labels] = Distribution(BUCKETS[name])
        return found

    # --- what is shown

    def collect(self) -> list[tuple[Metric, Series]]:
        """Every metric but the process's own, with its value for each combination of labels."""
        types = sorted(self._kantoku.task_types)
        values: Mapping[str, Sequence[str]] = {
            "type": [*types, UNKNOWN],
            "status": list(Status),
            "loop": self._loops,
            "change": ("assigned", "revoked", "lost"),
            "outcome": ("delivered", "lost"),
        }
        told: dict[str, Series] = {**self._of_tasks(types), **self._of_timers(), **self._of_consumers()}
        told["kantoku_build_info"] = {self._build: 1}
        found: list[tuple[Metric, Series]] = []
        with self._lock:
            for metric in METRICS:
                if metric.name in told:
                    found.append((metric, told[metric.name]))
                elif metric not in PROCESS:
                    places = product(*(values[label] for label in metric.labels))
                    found.append((metric, {labels: self._counted(metric, labels) for labels in places}))
        return found

    def _counted(self, metric: Metric, labels: Labels) -> float | Distribution:
        if metric.kind is Kind.HISTOGRAM:
            return self._distribution(metric.name, labels).copy()
        return self._counts[metric.name, labels]

    def _of_tasks(self, types: Sequence[str]) -> dict[str, Series]:
        now_ms = time.time_ns() // 1_000_000
        tasks = self._standing.get(TASKS, _NOTHING)
        fetched = self._consumers.get(TASKS, _NO_STATISTICS).fetched
        ages = {name: max(0, now_ms - at_ms) / 1000 for name, at_ms in tasks.written_at_ms.items() if at_ms > 0}
        return {
            "kantoku_tasks_in_flight": {(name,): tasks.in_flight.get(name, 0) for name in types},
            "kantoku_tasks_waiting": {(name,): tasks.waiting.get(name, 0) for name in types},
            "kantoku_oldest_waiting_seconds": {(name,): ages.get(name, 0) for name in types},
            "kantoku_paused_partitions": {(): tasks.paused},
            "kantoku_blocked_partitions": {(): tasks.blocked},
            "kantoku_lag_records": {
                (place[0], str(place[1])): lag(undone, fetched[place])
                for place, undone in tasks.undone.items()
                if place in fetched
            },
        }

    def _of_timers(self) -> dict[str, Series]:
        topics, timers = self._kantoku.topics, self._standing.get(TIMERS, _NOTHING)
        late_us = 0 if timers.due_at_us is None else time.time_ns() // 1000 - timers.due_at_us
        return {
            "kantoku_timers_pending": {(t,): timers.pending.get(t, 0) for t in (topics.timers, topics.schedules)},
            "kantoku_timers_overdue_seconds": {(): max(0, late_us) / 1_000_000},
            "kantoku_assigned_partitions": {
                (loop,): self._standing.get(loop, _NOTHING).assigned for loop in self._loops
            },
        }

    def _of_consumers(self) -> dict[str, Series]:
        found = {loop: self._consumers.get(loop, _NO_STATISTICS) for loop in self._loops}
        return {
            name: {(loop,): getattr(statistics, field) for loop, statistics in found.items()}
            for name, field in _OF_CONSUMERS.items()
        }


def lag(undone: Undone, fetched: Fetched) -> int:
    """Records that are not done. What the client has passed over is none: markers of transactions take offsets, too."""
    passed = fetched.next_offset if fetched.queued == 0 else 0
    return undone.records + max(0, fetched.end - max(undone.taken_to, passed))
