"""The pools of an executor, each with the scheduler of its task types: what waits for them, and what runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kantoku_kafka.engine.scheduler import Scheduler
from kantoku_kafka.job import Job, Partition
from kantoku_kafka.protocols import Executor

__all__ = ["PoolBinding", "Pools", "Rate"]

_CHUNK = 64
_CLOSE_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class PoolBinding:
    """A pool, and the scheduler of the task types that run in it."""

    executor: Executor
    scheduler: Scheduler
    capacity: int

    def take(self, most: int | None, now: float) -> list[Job]:
        """Some of the jobs that may start now; ``most``: no more than that. ``now``: monotonic, in seconds."""
        scheduler = self.scheduler
        if not scheduler.waiting:
            return []
        wanted = min(_CHUNK, self.capacity - scheduler.running)
        if most is not None:
            wanted = min(wanted, most)
        return scheduler.take(wanted, now) if wanted > 0 else []


class Rate(NamedTuple):
    """How many of a task type may start in the whole group, and among the partitions of which topics, so many in all,
    that is divided."""

    per_second: float
    topics: Collection[str]
    partitions: int


class Pools:
    """The loop thread owns it.

    Parameters:
        bindings: by task type; types that share a pool share the binding.
        rates: of the task types that have one.

    Attributes:
        running: what was handed to a pool and has not come back.
    """

    def __init__(self, bindings: Mapping[str, PoolBinding], rates: Mapping[str, Rate]) -> None:
        self._by_type = dict(bindings)
        self._rates = dict(rates)
        self._all = list(dict.fromkeys(bindings.values()))
        self.running: set[Job] = set()

    def __contains__(self, task_type: str) -> bool:
        return task_type in self._by_type

    def __iter__(self) -> Iterator[PoolBinding]:
        return iter(self._all)

    def running_by_type(self) -> dict[str, int]:
        """How many tasks of each type run. May be called from any thread."""
        return {name: count for pool in self._all for name, count in pool.scheduler.running_by_type().items()}

    def waiting_by_type(self) -> dict[str, tuple[int, int | None]]:
        """As :meth:`Scheduler.waiting_by_type <kantoku_kafka.engine.scheduler.Scheduler.waiting_by_type>`."""
        return {name: waiting for pool in self._all for name, waiting in pool.scheduler.waiting_by_type().items()}

    def open(self, deliver: Callable[[Job], None]) -> None:
        """Start the pools; ``deliver`` takes ended jobs, in any thread."""
        for pool in self._all:
            pool.executor.start(deliver)

    def close(self) -> None:
        """Stop them; what still runs is left to itself."""
        for pool in self._all:
            pool.executor.close(_CLOSE_SECONDS)

    def add(self, jobs: Sequence[Job]) -> None:
        """These wait for their start."""
        if len(self._all) == 1:
            self._all[0].scheduler.add(jobs)
            return
        by_pool: defaultdict[PoolBinding, list[Job]] = defaultdict(list)
        for job in jobs:
            by_pool[self._by_type[job.type]].append(job)
        for pool, queued in by_pool.items():
            pool.scheduler.add(queued)

    def run(self, pool: PoolBinding, jobs: Sequence[Job]) -> None:
        """Hand over jobs that were taken."""
        self.running.update(jobs)
        pool.executor.submit(jobs)

    def ended(self, job: Job) -> None:
        """A job that was taken has ended, or is not to run after all."""
        self._by_type[job.type].scheduler.done(job)
        self.running.discard(job)

    def pull(self, wanted: Callable[[Job], object]) -> list[Job]:
        """Forget the waiting jobs for which ``wanted`` is true and return them. Looks at every waiting job."""
        return [job for pool in self._all for job in pool.scheduler.pull(wanted)]

    def drop(self, partition: Partition) -> None:
        """Forget what waits of a partition."""
        for pool in self._all:
            pool.scheduler.drop(partition)

    def cancel(self, jobs: Iterable[Job], reason: str) -> None:
        """Tell running jobs to end."""
        by_pool: defaultdict[PoolBinding, list[Job]] = defaultdict(list)
        for job in jobs:
            by_pool[self._by_type[job.type]].append(job)
        for pool, running in by_pool.items():
            pool.executor.cancel(running, reason)

    def share_rates(self, held: Collection[Partition]) -> None:
        """Our share of each rate is that of the partitions we hold."""
        for name, rate in self._rates.items():
            ours = sum(partition.topic in rate.topics for partition in held)
            self._by_type[name].scheduler.limit_rate(name, rate.per_second * ours / rate.partitions)
