"""Which waiting job starts next: orderings, concurrency, fairness. Pure: no clock, no I/O, one thread.

A *lane* is a queue whose jobs may be ordered: one per partition, or one per key where the type is ordered by key.
Types take turns, and so do the lanes of a type.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from kantoku_kafka.job import Job, Partition

__all__ = ["Ordering", "Scheduler", "TypeLimits"]


class Ordering(StrEnum):
    """What must not run side by side within one task type."""

    UNORDERED = "unordered"
    KEY = "key"
    PARTITION = "partition"


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeLimits:
    """How one task type may be run: its ordering, and how many at once in this process (None: no limit)."""

    ordering: Ordering = Ordering.UNORDERED
    concurrency: int | None = None


class _Lane:
    __slots__ = ("in_rotation", "jobs", "key", "kind", "running")

    def __init__(self, kind: _Kind, key: object) -> None:
        self.kind = kind
        self.key = key
        self.jobs: deque[Job] = deque()
        self.running = 0
        self.in_rotation = False


class _Kind:
    """One task type: its lanes, and those of them that may start a job."""

    __slots__ = ("by_key", "concurrency", "in_rotation", "lanes", "ordered", "ready", "running")

    def __init__(self, limits: TypeLimits) -> None:
        self.ordered = limits.ordering is not Ordering.UNORDERED
        self.by_key = limits.ordering is Ordering.KEY
        self.concurrency = limits.concurrency
        self.lanes: dict[object, _Lane] = {}
        self.ready: deque[_Lane] = deque()
        self.running = 0
        self.in_rotation = False

    def startable(self, wanted: int) -> int:
        return wanted if self.concurrency is None else min(wanted, self.concurrency - self.running)


class Scheduler:
    """Queues jobs and hands out those that may start.

    Parameters:
        types: every task type that will be added, with its limits.

    Not thread-safe: the loop thread owns it.
    """

    def __init__(self, types: dict[str, TypeLimits]) -> None:
        self._kinds = {name: _Kind(limits) for name, limits in types.items()}
        self._rotation: deque[_Kind] = deque()
        self.waiting = 0
        self.running = 0

    def running_by_type(self) -> dict[str, int]:
        """How many of each type run. May be called from any thread."""
        return {name: kind.running for name, kind in self._kinds.items()}

    def add(self, jobs: Iterable[Job]) -> None:
        """Queue jobs behind those of their lane."""
        count = 0
        lane: _Lane | None = None
        last_type: str | None = None
        last_partition: Partition | None = None
        for job in jobs:
            if lane is None or job.type != last_type or job.partition is not last_partition or lane.kind.by_key:
                last_type, last_partition = job.type, job.partition
                kind = self._kinds[job.type]
                key = (job.partition, job.key) if kind.by_key else job.partition
                lane = kind.lanes.get(key)
                if lane is None:
                    lane = kind.lanes[key] = _Lane(kind, key)
                lane.jobs.append(job)
                self._offer(lane)
            else:
                lane.jobs.append(job)
            job.lane = lane
            count += 1
        self.waiting += count

    def take(self, wanted: int) -> list[Job]:
        """Up to ``wanted`` jobs that may start now; each must come back through :meth:`done`."""
        taken: list[Job] = []
        while self._rotation and len(taken) < wanted:
            kind = self._rotation.popleft()
            kind.in_rotation = False
            share = -(-(wanted - len(taken)) // (len(self._rotation) + 1))
            self._take_of(kind, kind.startable(share), taken)
            if kind.ready and kind.startable(1) > 0:
                self._rotate(kind)
        self.waiting -= len(taken)
        self.running += len(taken)
        return taken

    def done(self, job: Job) -> None:
        """A job that was taken has ended, however it ended."""
        lane = job.lane
        assert isinstance(lane, _Lane)
        kind = lane.kind
        lane.running -= 1
        kind.running -= 1
        self.running -= 1
        if lane.jobs:
            self._offer(lane)
        elif not lane.running and not lane.in_rotation:
            kind.lanes.pop(lane.key, None)
        if kind.ready and not kind.in_rotation:
            self._rotate(kind)

    def pull(self, wanted: Callable[[Job], object]) -> list[Job]:
        """Forget the waiting jobs for which ``wanted`` is true and return them. Looks at every waiting job."""
        pulled: list[Job] = []
        for kind in self._kinds.values():
            for lane in kind.lanes.values():
                chosen = [job for job in lane.jobs if wanted(job)]
                if chosen:
                    pulled += chosen
                    lane.jobs = deque(job for job in lane.jobs if job not in set(chosen))
            self._forget_empty(kind)
        self.waiting -= len(pulled)
        return pulled

    def drop(self, partition: Partition) -> list[Job]:
        """Forget the waiting jobs of a partition and return them; running ones still come back."""
        dropped: list[Job] = []
        for kind in self._kinds.values():
            for lane in list(kind.lanes.values()):
                owner = lane.key[0] if isinstance(lane.key, tuple) else lane.key
                if owner is partition:
                    dropped += lane.jobs
                    lane.jobs.clear()
                    if lane.in_rotation:
                        kind.ready.remove(lane)
                        lane.in_rotation = False
                    del kind.lanes[lane.key]
        self.waiting -= len(dropped)
        return dropped

    def _forget_empty(self, kind: _Kind) -> None:
        for lane in [lane for lane in kind.lanes.values() if not lane.jobs]:
            if lane.in_rotation:
                kind.ready.remove(lane)
                lane.in_rotation = False
            if not lane.running:
                del kind.lanes[lane.key]

    def _take_of(self, kind: _Kind, wanted: int, taken: list[Job]) -> None:
        """Move up to ``wanted`` jobs of one type, its ready lanes in turn."""
        while kind.ready and wanted > 0:
            lane = kind.ready.popleft()
            lane.in_rotation = False
            share = 1 if kind.ordered else min(-(-wanted // (len(kind.ready) + 1)), len(lane.jobs))
            popleft = lane.jobs.popleft
            taken += [popleft() for _ in range(share)]
            lane.running += share
            kind.running += share
            wanted -= share
            if lane.jobs and not kind.ordered:
                lane.in_rotation = True
                kind.ready.append(lane)

    def _offer(self, lane: _Lane) -> None:
        """Let a lane with jobs take part, unless it must wait for its own running job."""
        kind = lane.kind
        if not lane.in_rotation and not (kind.ordered and lane.running):
            lane.in_rotation = True
            kind.ready.append(lane)
            if not kind.in_rotation:
                self._rotate(kind)

    def _rotate(self, kind: _Kind) -> None:
        kind.in_rotation = True
        self._rotation.append(kind)
