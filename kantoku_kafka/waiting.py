"""The waiting half of a client: results of tasks, by whomever they were spawned."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures import wait as wait_futures
from queue import Empty, SimpleQueue
from typing import Protocol

from kantoku_kafka.errors import WaitTimeout
from kantoku_kafka.kafka.reader import ResultReader
from kantoku_kafka.model import Result

__all__ = ["Waiting"]


class Handle(Protocol):
    """What knows the id of a task and when it was spawned: :class:`~kantoku_kafka.client.Spawned`."""

    @property
    def id(self) -> str: ...

    @property
    def spawned_at(self) -> float: ...


class Waiting:
    """All waits of a client share one reader. All methods are thread-safe."""

    def _connected_reader(self) -> ResultReader:
        raise NotImplementedError

    def wait(self, task_id: str, *, timeout_seconds: float | None = None) -> Result:
        """Wait for a task's result, whatever its status.

        Parameters:
            task_id: of a task that was spawned by anybody.
            timeout_seconds: None waits as long as it takes.

        Raises:
            WaitTimeout: no result in time; the task may still run.
            TopicMismatch, AccessDenied, BrokerUnavailable: the results cannot be read.
        """
        return self.gather([task_id], timeout_seconds=timeout_seconds)[0]

    def gather(self, tasks: Iterable[Handle | str], *, timeout_seconds: float | None = None) -> list[Result]:
        """The results of several tasks, in their order. Raises as :meth:`wait`."""
        listed = list(tasks)
        found = {result.task_id: result for result in self.as_completed(listed, timeout_seconds=timeout_seconds)}
        return [found[_id_and_time(task)[0]] for task in listed]

    def as_completed(self, tasks: Iterable[Handle | str], *, timeout_seconds: float | None = None) -> Iterator[Result]:
        """The results of several tasks as they come. Raises as :meth:`wait`."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        reader = self._connected_reader()
        futures = {task_id: reader.expect(task_id, at) for task_id, at in dict(map(_id_and_time, tasks)).items()}
        ended: SimpleQueue[Future[Result]] = SimpleQueue()
        for future in futures.values():
            future.add_done_callback(ended.put)
        try:
            while futures:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                try:
                    result = ended.get(timeout=left).result()
                except Empty:
                    raise WaitTimeout(
                        f"No result within {timeout_seconds:g} s for {len(futures)} tasks, e.g. {next(iter(futures))}; "
                        "is an executor running? The tasks stay accepted."
                    ) from None
                del futures[result.task_id]
                yield result
        finally:
            for task_id, future in futures.items():
                reader.forget(task_id, future)

    def find_results(self, task_ids: Iterable[str], *, timeout_seconds: float = 0.0) -> dict[str, Result]:
        """The results that are there by now, or come within ``timeout_seconds``; never WaitTimeout.

        Raises:
            TopicMismatch, AccessDenied, BrokerUnavailable: they cannot be read.
        """
        reader = self._connected_reader()
        futures = {task_id: reader.expect(task_id) for task_id in task_ids}
        try:
            reader.catch_up(futures, lambda: all(future.done() for future in futures.values()))
            wait_futures(futures.values(), timeout_seconds)
            return {task_id: future.result() for task_id, future in futures.items() if future.done()}
        finally:
            for task_id, future in futures.items():
                reader.forget(task_id, future)

    async def wait_async(self, task_id: str, *, timeout_seconds: float | None = None) -> Result:
        """:meth:`wait` for asyncio."""
        return (await self.gather_async([task_id], timeout_seconds=timeout_seconds))[0]

    async def gather_async(
        self, tasks: Iterable[Handle | str], *, timeout_seconds: float | None = None
    ) -> list[Result]:
        """:meth:`gather` for asyncio: no thread waits."""
        reader = await asyncio.to_thread(self._connected_reader)
        listed = [_id_and_time(task) for task in tasks]
        ids = [task_id for task_id, _ in listed]
        futures = [reader.expect(task_id, at) for task_id, at in listed]
        try:
            async with asyncio.timeout(timeout_seconds):
                return list(await asyncio.gather(*map(asyncio.wrap_future, futures)))
        except TimeoutError:
            raise WaitTimeout(f"Not all of {len(ids)} results came within {timeout_seconds:g} s.") from None
        finally:
            for task_id, future in zip(ids, futures, strict=True):
                reader.forget(task_id, future)


def _id_and_time(task: Handle | str) -> tuple[str, float | None]:
    return (task, None) if isinstance(task, str) else (task.id, task.spawned_at)
