"""An event loop in a thread of its own, for ``async def`` functions."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from kantoku_kafka.invoke import Invoker
from kantoku_kafka.job import Job

__all__ = ["AsyncioExecutor"]

_log = logging.getLogger(__name__)
_ACTION = {"action": "event_loop_ended"}


class AsyncioExecutor:
    """Coroutines, so many at once. Cancellation is asyncio's own.

    Parameters:
        invoker: calls the functions.
        concurrency: number of coroutines at once.
    """

    def __init__(self, invoker: Invoker, concurrency: int) -> None:
        self._invoker = invoker
        self._concurrency = concurrency
        self.backlog = concurrency
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="kantoku-asyncio", daemon=True)
        self._waiting: deque[Job] = deque()
        self._tasks: dict[Job, asyncio.Task[None]] = {}
        self._closing = False

    def start(self, deliver: Callable[[Job], None]) -> None:
        self._deliver = deliver
        self._thread.start()

    def submit(self, jobs: Sequence[Job]) -> None:
        self._loop.call_soon_threadsafe(self._begin, jobs)

    def cancel(self, jobs: Iterable[Job], reason: str) -> None:
        marked = list(jobs)
        for job in marked:
            job.cancelled = reason
        if marked and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._cancel, marked)

    def close(self, timeout_seconds: float) -> None:
        self._closing = True
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._cancel, list(self._tasks))
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout_seconds)
        elif not self._loop.is_closed():
            self._loop.close()

    # --- below: only on the event loop's thread

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        while not self._closing:
            try:
                self._loop.run_forever()
            except BaseException:  # noqa: BLE001 - SystemExit of a task that a function started besides its own
                _log.exception("a background task of a function ended the event loop; it goes on", extra=_ACTION)
        pending = asyncio.all_tasks(self._loop)
        if pending:
            self._loop.run_until_complete(asyncio.wait(pending, timeout=1.0))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def _begin(self, jobs: Sequence[Job]) -> None:
        self._waiting += jobs
        while self._waiting and len(self._tasks) < self._concurrency:
            job = self._waiting.popleft()
            task = self._tasks[job] = self._loop.create_task(self._run(job))
            task.add_done_callback(partial(self._ended, job))

    async def _run(self, job: Job) -> None:
        if job.cancelled is None:
            await self._invoker.run_async(job)

    def _ended(self, job: Job, task: asyncio.Task[None]) -> None:
        """However it ended, and if it was cancelled before its first step."""
        if task.cancelled() and job.cancelled is None:
            self._invoker.interrupted(job)
        del self._tasks[job]
        self._deliver(job)
        if self._waiting and not self._closing:
            self._begin(())

    def _cancel(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            task = self._tasks.get(job)
            if task is not None:
                task.cancel()
            elif job in self._waiting:
                self._waiting.remove(job)
                self._deliver(job)
