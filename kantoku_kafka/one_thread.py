"""A thread for calls that may never return: it does not keep the process from ending."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

__all__ = ["OneThread"]

T = TypeVar("T")


class OneThread:
    """Does one call after the other. Unlike those of ``ThreadPoolExecutor`` it is a daemon. Thread-safe."""

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Have this done when all before it is."""
        future: Future[T] = Future()

        def call() -> None:
            try:
                answer = function(*arguments)
            except BaseException as error:  # noqa: BLE001 - it is the future's
                future.set_exception(error)
            else:
                future.set_result(answer)

        self._calls.put(call)
        return future

    def close(self, within_seconds: float = 0.0) -> None:
        """End when all is done, and wait so long for that."""
        self._calls.put(None)
        self._thread.join(within_seconds)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
