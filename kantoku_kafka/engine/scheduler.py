"""Which waiting job starts next: orderings, concurrency, fairness. Pure: no clock, no I/O, one thread.

A *lane* is a queue whose jobs may be ordered: one per partition, or one per key where the type is ordered by key.
Types take turns, and so do the lanes of one topic; the topics of a type share its starts by their weights.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter

from kantoku_kafka.job import Job, Partition

__all__ = ["Ordering", "Scheduler", "TypeLimits"]


class Ordering(StrEnum):
    """What must not run side by side within one task type."""

    UNORDERED = "unordered"
    KEY = "key"
    PARTITION = "partition"


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeLimits:
    """How one task type may be run.

    Parameters:
        ordering: what must not run side by side.
        concurrency: how many at once in this process; None: no limit.
        key_concurrency: how many of one key at once, if it is ordered by key.
        rate_per_second: how many may start in the whole group; None: no limit.
    """

    ordering: Ordering = Ordering.UNORDERED
    concurrency: int | None = None
    key_concurrency: int = 1
    rate_per_second: float | None = None


_BURST_SECONDS = 0.1
_passed = attrgetter("passed")


class _Lane:
    __slots__ = ("in_rotation", "jobs", "key", "kind", "running", "share")

    def __init__(self, kind: _Kind, key: object, share: _Share) -> None:
        self.kind = kind
        self.key = key
        self.share = share
        self.jobs: deque[Job] = deque()
        self.running = 0
        self.in_rotation = False


class _Share:
    """The lanes of one topic that may start a job. ``passed``: its starts so far, divided by its weight; the least one
    is next (stride scheduling: C. Waldspurger and W. Weihl, 1995)."""

    __slots__ = ("passed", "ready", "weight")

    def __init__(self, weight: int) -> None:
        self.weight = weight
        self.ready: deque[_Lane] = deque()
        self.passed = 0.0


class _Bucket:
    """So many starts a second: what was not used within a tenth of a second is gone."""

    __slots__ = ("_at", "_rate", "_tokens")

    def __init__(self, rate_per_second: float) -> None:
        self._rate = rate_per_second
        self._tokens = 0.0
        self._at: float | None = None

    def allowed(self, now: float) -> int:
        """How many may start now."""
        if self._at is not None:
            most = max(1.0, self._rate * _BURST_SECONDS)
            self._tokens = min(most, self._tokens + (now - self._at) * self._rate)
        self._at = now
        return max(0, int(self._tokens))

    def spend(self, count: int) -> None:
        """So many have started."""
        self._tokens -= count


class _Kind:
    """One task type: its lanes, and those of its shares that have a lane which may start a job."""

    __slots__ = (
        "bucket",
        "by_key",
        "clock",
        "concurrency",
        "in_rotation",
        "lane_limit",
        "lanes",
        "ready",
        "running",
        "shares",
    )

    def __init__(self, limits: TypeLimits) -> None:
        self.by_key = limits.ordering is Ordering.KEY
        ordered = limits.ordering is not Ordering.UNORDERED
        self.lane_limit = limits.key_concurrency if self.by_key else 1 if ordered else None
        self.bucket = None if limits.rate_per_second is None else _Bucket(limits.rate_per_second)
        self.concurrency = limits.concurrency
        self.lanes: dict[object, _Lane] = {}
        self.shares: dict[str, _Share] = {}
        self.ready: list[_Share] = []
        self.clock = 0.0
        self.running = 0
        self.in_rotation = False

    def offer(self, lane: _Lane) -> None:
        """A lane may start a job."""
        lane.in_rotation = True
        if not lane.share.ready:
            self.ready.append(lane.share)
        lane.share.ready.append(lane)

    def withdraw(self, lane: _Lane) -> None:
        """It may not any more."""
        if lane.in_rotation:
            lane.in_rotation = False
            lane.share.ready.remove(lane)
            if not lane.share.ready:
                self.ready.remove(lane.share)

    def next_share(self) -> _Share:
        """The topic whose turn it is. For the time it was idle one makes up by a single turn at most."""
        share = self.ready[0] if len(self.ready) == 1 else min(self.ready, key=_passed)
        share.passed = max(share.passed, self.clock - 1.0)
        self.clock = max(self.clock, share.passed)
        return share

    def startable(self, wanted: int, now: float) -> int:
        if self.concurrency is not None:
            wanted = min(wanted, self.concurrency - self.running)
        return wanted if self.bucket is None else min(wanted, self.bucket.allowed(now))


class Scheduler:
    """Queues jobs and hands out those that may start.

    Parameters:
        types: every task type that will be added, with its limits.
        weights: of topics that weigh more than 1.

    Not thread-safe: the loop thread owns it.
    """

    def __init__(self, types: Mapping[str, TypeLimits], weights: Mapping[str, int] | None = None) -> None:
        self._weights = weights or {}
        self._kinds = {name: _Kind(limits) for name, limits in types.items()}
        self._rotation: deque[_Kind] = deque()
        self.waiting = 0
        self.running = 0

    def running_by_type(self) -> dict[str, int]:
        """How many of each type run. May be called from any thread."""
        return {name: kind.running for name, kind in self._kinds.items()}

    def waiting_by_type(self) -> dict[str, tuple[int, int | None]]:
        """How many of each type wait, and when the record of the oldest was written, if any tells."""
        found: dict[str, tuple[int, int | None]] = {}
        for name, kind in self._kinds.items():
            lanes = [lane.jobs for lane in kind.lanes.values() if lane.jobs]
            written = (getattr(jobs[0], "written_at_ms", None) for jobs in lanes)
            found[name] = sum(map(len, lanes)), min((at_ms for at_ms in written if at_ms is not None), default=None)
        return found

    def limit_rate(self, task_type: str, per_second: float) -> None:
        """From now on so many of a type may start here."""
        self._kinds[task_type].bucket = _Bucket(per_second)

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
                    lane = kind.lanes[key] = _Lane(kind, key, self._share(kind, job.partition.topic))
                lane.jobs.append(job)
                self._offer(lane)
            else:
                lane.jobs.append(job)
            job.lane = lane
            partition = job.partition
            partition.waiting += 1
            partition.waiting_bytes += len(job.value)
            count += 1
        self.waiting += count

    def take(self, wanted: int, now: float = 0.0) -> list[Job]:
        """Up to ``wanted`` jobs that may start now; each must come back through :meth:`done`.

        ``now``: monotonic, in seconds; it matters only to types with a rate.
        """
        taken: list[Job] = []
        throttled: list[_Kind] = []
        while self._rotation and len(taken) < wanted:
            kind = self._rotation.popleft()
            kind.in_rotation = False
            share = -(-(wanted - len(taken)) // (len(self._rotation) + 1))
            before = len(taken)
            self._take_of(kind, kind.startable(share, now), taken)
            if kind.bucket is not None:
                kind.bucket.spend(len(taken) - before)
            if kind.ready and kind.startable(1, now) > 0:
                self._rotate(kind)
            elif kind.ready and kind.bucket is not None:
                throttled.append(kind)
        for kind in throttled:  # its turn comes with the time, not with the end of a job
            self._rotate(kind)
        self._no_longer_wait(taken)
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
                chosen = {job for job in lane.jobs if wanted(job)}
                if chosen:
                    pulled += [job for job in lane.jobs if job in chosen]
                    lane.jobs = deque(job for job in lane.jobs if job not in chosen)
            self._forget_empty(kind)
        self._no_longer_wait(pulled)
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
                    kind.withdraw(lane)
                    del kind.lanes[lane.key]
        self._no_longer_wait(dropped)
        return dropped

    def _no_longer_wait(self, jobs: Sequence[Job]) -> None:
        self.waiting -= len(jobs)
        for job in jobs:
            partition = job.partition
            partition.waiting -= 1
            partition.waiting_bytes -= len(job.value)

    def _forget_empty(self, kind: _Kind) -> None:
        for lane in [lane for lane in kind.lanes.values() if not lane.jobs]:
            kind.withdraw(lane)
            if not lane.running:
                del kind.lanes[lane.key]

    def _take_of(self, kind: _Kind, wanted: int, taken: list[Job]) -> None:
        """Move up to ``wanted`` jobs of one type: its topics by weight, the ready lanes of each in turn."""
        ready = kind.ready
        while ready and wanted > 0:
            share = kind.next_share()
            lane = share.ready.popleft()
            lane.in_rotation = False
            if kind.lane_limit is not None:
                count = 1
            elif len(ready) == 1:
                count = min(-(-wanted // (len(share.ready) + 1)), len(lane.jobs))
            else:
                count = min(wanted, share.weight, len(lane.jobs))
            popleft = lane.jobs.popleft
            taken += [popleft() for _ in range(count)]
            lane.running += count
            kind.running += count
            wanted -= count
            share.passed += count / share.weight
            if len(ready) == 1:
                kind.clock = share.passed
            if lane.jobs and (kind.lane_limit is None or lane.running < kind.lane_limit):
                lane.in_rotation = True
                share.ready.append(lane)
            elif not share.ready:
                ready.remove(share)

    def _share(self, kind: _Kind, topic: str) -> _Share:
        share = kind.shares.get(topic)
        if share is None:
            share = kind.shares[topic] = _Share(self._weights.get(topic, 1))
        return share

    def _offer(self, lane: _Lane) -> None:
        """Let a lane with jobs take part, unless it must wait for its own running job."""
        kind = lane.kind
        if not lane.in_rotation and (kind.lane_limit is None or lane.running < kind.lane_limit):
            kind.offer(lane)
            if not kind.in_rotation:
                self._rotate(kind)

    def _rotate(self, kind: _Kind) -> None:
        kind.in_rotation = True
        self._rotation.append(kind)
