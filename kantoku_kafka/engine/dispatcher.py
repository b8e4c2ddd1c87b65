"""Jobs handed to their pools, and taken back: those that have ended go into the checkpoint."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from queue import Empty, SimpleQueue

from kantoku_kafka.engine.cancel import CANCELLED_REASON
from kantoku_kafka.engine.checkpoint import Checkpoint
from kantoku_kafka.engine.failures import FailureLog
from kantoku_kafka.engine.judge import TIMED_OUT_REASON, Judge
from kantoku_kafka.engine.pools import PoolBinding, Pools
from kantoku_kafka.engine.window import Window
from kantoku_kafka.job import Job, Partition
from kantoku_kafka.model import Command

__all__ = ["Dispatcher"]


class Dispatcher:
    """The loop thread owns it, but for what may be called from any thread.

    Parameters:
        pools: where jobs wait, and run.
        judge: says which may start, and how they have ended.
        checkpoint: where they go then.
        windows: of the assigned partitions; what ends of others is dropped.
        max_tasks: so many are started in all; None: no limit.
    """

    def __init__(
        self,
        pools: Pools,
        judge: Judge,
        checkpoint: Checkpoint,
        windows: Mapping[Partition, Window],
        max_tasks: int | None,
    ) -> None:
        self._pools = pools
        self._judge = judge
        self._checkpoint = checkpoint
        self._windows = windows
        self._startable_left = max_tasks
        self._ended: SimpleQueue[Job | None] = SimpleQueue()  # None: something else has happened
        self._commands: SimpleQueue[Sequence[Command]] = SimpleQueue()
        self._failures = FailureLog()

    def open(self) -> None:
        """Start the pools."""
        self._pools.open(self._ended.put)

    def wake(self) -> None:
        """End :meth:`await_ended`. From any thread."""
        self._ended.put(None)

    def command(self, commands: Sequence[Command]) -> None:
        """Have these obeyed soon. From any thread."""
        self._commands.put(commands)
        self.wake()

    @property
    def is_exhausted(self) -> bool:
        """As many have started as may."""
        return self._startable_left == 0

    def start(self, pool: PoolBinding) -> bool:
        """Hand over some of the jobs that may start. Whether there were any."""
        jobs = pool.take(self._startable_left, time.monotonic())
        if not jobs:
            return False
        if self._startable_left is not None:
            self._startable_left -= len(jobs)
        now_us = time.time_ns() // 1000
        for job in jobs:
            job.received_at_us = now_us
        if self._judge.cancellations or any(job.envelope is not None for job in jobs):
            jobs = self._startable(jobs, now_us)
        self._checkpoint.start(jobs)
        self._pools.run(pool, jobs)
        return True

    def _startable(self, jobs: list[Job], now_us: int) -> list[Job]:
        """Those that may start now; the others have ended."""
        started = []
        for job in jobs:
            if self._judge.start(job, now_us):
                started.append(job)
            else:
                self._pools.ended(job)
                self._failures.note(job)
                self.end(job)
        return started

    def obey(self) -> None:
        """What waits and is cancelled ends now; what runs is told to end."""
        if self._commands.empty():
            return
        while not self._commands.empty():
            self._judge.cancellations.add(self._commands.get_nowait())
        for job in self._pools.pull(self._judge.is_cancelled):
            self.end(job)
        running = [job for job in self._pools.running if job.cancelled is None and self._judge.cancelling(job)]
        self._pools.cancel(running, CANCELLED_REASON)

    def end_overdue(self) -> None:
        """Tell those that have had their time to end."""
        now_us = time.time_ns() // 1000
        overdue = {job for job in self._pools.running if self._judge.is_over(job, now_us)}
        self._pools.cancel(overdue, TIMED_OUT_REASON)

    def collect(self) -> bool:
        """Take back what has ended. Whether anything has."""
        ended = self._ended
        count = ended.qsize()
        for _ in range(count):
            job = ended.get_nowait()
            if job is not None:
                self._settle(job)
        return count > 0

    def await_ended(self, seconds: float) -> bool:
        """Wait until a job has ended, and take it back, or something else has happened; False: nothing has."""
        try:
            job = self._ended.get(timeout=seconds)
        except Empty:
            return False
        if job is not None:
            self._settle(job)
        return True

    def _settle(self, job: Job) -> None:
        """A job came back: its result is due, or another attempt, unless its partition went away meanwhile."""
        self._pools.ended(job)
        if job.partition not in self._windows:
            return
        self._judge.conclude(job)
        if job.status is not None:
            if job.error is not None:
                self._failures.note(job)
                self._judge.settle(job)
            self.end(job)

    def end(self, job: Job) -> None:
        """Nothing more is to be done for this one here."""
        self._windows[job.partition].finish(job.offset)
        self._checkpoint.end(job)
