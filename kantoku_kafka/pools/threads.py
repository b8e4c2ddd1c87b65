"""Threads of this process, for functions that wait or that release the interpreter lock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from queue import SimpleQueue

from kantoku_kafka.invoke import Invoker, fail
from kantoku_kafka.job import Job

__all__ = ["ThreadExecutor"]


class ThreadExecutor:
    """A fixed number of threads. A thread cannot be killed: cancellation is a flag that the function looks at.

    Parameters:
        invoker: calls the functions.
        concurrency: number of threads.
    """

    def __init__(self, invoker: Invoker, concurrency: int) -> None:
        self._invoker = invoker
        self._concurrency = concurrency
        self.backlog = concurrency
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._begins = threading.Lock()  # whether a job is run or handed back is decided once

    def start(self, deliver: Callable[[Job], None]) -> None:
        self._deliver = deliver
        self._threads = [
            threading.Thread(target=self._work, name=f"kantoku-task-{n}", daemon=True) for n in range(self._concurrency)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._jobs.put(job)

    def cancel(self, jobs: Iterable[Job], reason: str) -> None:
        for job in jobs:
            job.cancelled = reason
            if self._takes(job):
                self._deliver(job)

    def close(self, timeout_seconds: float) -> None:
        for _ in self._threads:
            self._jobs.put(None)
        deadline = time.monotonic() + timeout_seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._threads = []

    def _takes(self, job: Job) -> bool:
        with self._begins:
            mine = not job.begun
            job.begun = True
        return mine

    def _work(self) -> None:
        run, deliver, get = self._invoker.run, self._deliver, self._jobs.get
        while (job := get()) is not None:
            if not self._takes(job):
                continue
            try:
                run(job)
            except BaseException as error:  # noqa: BLE001 - KeyboardInterrupt of the function, SystemExit of a hook
                fail(job, error)
            finally:
                deliver(job)  # without an outcome it is CRASHED
