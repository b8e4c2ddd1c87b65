"""In the loop itself: the fastest for functions that take microseconds, and a stall for any that does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from kantoku_kafka.invoke import Invoker
from kantoku_kafka.job import Job

__all__ = ["InlineExecutor"]


class InlineExecutor:
    """Runs each job within :meth:`submit`. The loop thread owns it."""

    backlog = 64  # so many are handed over at once, and have ended when submit returns

    def __init__(self, invoker: Invoker) -> None:
        self._run = invoker.run

    def start(self, deliver: Callable[[Job], None]) -> None:
        self._deliver = deliver

    def submit(self, jobs: Sequence[Job]) -> None:
        run, deliver = self._run, self._deliver
        for job in jobs:
            run(job)
            deliver(job)

    def cancel(self, jobs: Iterable[Job], reason: str) -> None:
        """Nothing runs between two calls of submit."""

    def close(self, timeout_seconds: float) -> None:
        """Nothing to stop."""
