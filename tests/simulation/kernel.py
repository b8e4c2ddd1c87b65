"""Time and threads of a simulated world: actors take turns, and who is next is a decision like any other.

An actor is a greenlet: code of the product that blocks for it in a thread blocks here in :meth:`Kernel.wait`, where
others go on and time passes. When nobody can go on, time jumps to when somebody can.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from queue import Empty
from types import ModuleType
from typing import Any, Generic, TypeVar

from greenlet import GreenletExit, getcurrent, greenlet

from kantoku_kafka import invoke, job, model
from kantoku_kafka.engine import dispatcher, failures, judge, loop, publisher, reception, timer_loop
from kantoku_kafka.testing import memory
from tests.simulation.choices import Choices

__all__ = ["Actor", "Kernel", "Process", "Stuck", "installed"]

T = TypeVar("T")

_START_US = 1_800_000_000_000_000
_STEP_US = 20
_MODULES: tuple[ModuleType, ...] = (
    dispatcher,
    failures,
    invoke,
    job,
    judge,
    loop,
    memory,
    model,
    publisher,
    reception,
    timer_loop,
)


class Stuck(Exception):
    """Nobody will ever go on, or it takes too many steps."""


class Process:
    """What dies at once. ``error``: what it died of by itself."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.frozen_until_us = 0
        self.error: Exception | None = None


class Actor:
    """Something that goes on by itself, as a thread does."""

    __slots__ = ("body", "condition", "process", "wake_at_us")

    def __init__(self, process: Process, function: Callable[[], object], hub: greenlet) -> None:
        self.process = process
        self.body = greenlet(function, hub)
        self.condition: Callable[[], object] | None = None
        self.wake_at_us: int | None = 0


class Kernel:
    """Runs actors until a condition holds.

    Parameters:
        choices: who is next.
        max_steps: after so many a schedule is stuck.
    """

    def __init__(self, choices: Choices, max_steps: int = 200_000) -> None:
        self.choices = choices
        self.now_us = _START_US
        self._max_steps = max_steps
        self._steps = 0
        self._actors: list[Actor] = []
        self._present: Actor | None = None
        self._hub = getcurrent()

    def start(self, process: Process, function: Callable[[], object]) -> Actor:
        """From now on it takes part."""

        def body() -> None:
            try:
                function()
            except Exception as error:  # noqa: BLE001 - part of the verdict
                process.error = process.error or error
                process.alive = False

        actor = Actor(process, body, self._hub)
        self._actors.append(actor)
        return actor

    def wait(self, condition: Callable[[], object] | None = None, seconds: float | None = None) -> None:
        """Let others go on until the condition holds or the time is over; without both, once."""
        actor = self._present
        assert actor is not None and actor.body is getcurrent(), "only actors wait"
        actor.condition = condition
        actor.wake_at_us = None if seconds is None and condition else self.now_us + round((seconds or 0.0) * 1e6)
        self._hub.switch()
        if not actor.process.alive:
            raise GreenletExit

    def check_alive(self) -> None:
        """Called where something gets out of a process: the dead do nothing any more."""
        if self._present is not None and not self._present.process.alive:
            raise GreenletExit

    def run(self, until: Callable[[], object], seconds: float) -> bool:
        """Let the actors go on; whether the condition came to hold within that time.

        Raises:
            Stuck.
        """
        end_us = self.now_us + round(seconds * 1e6)
        while not until():
            if any(not actor.process.alive for actor in self._actors):
                self._bury()
            if self.now_us > end_us:
                return False
            self._steps += 1
            if self._steps > self._max_steps:
                raise Stuck(f"{self._max_steps} steps were not enough")
            ready = [actor for actor in self._actors if self._is_ready(actor)]
            if ready:
                self.now_us += _STEP_US
                self._resume(ready[self.choices.below(len(ready)) if len(ready) > 1 else 0])
            else:
                self.now_us = max(self.now_us, self._next_us())
        return True

    def close(self) -> None:
        """End all actors, as a kill does."""
        for actor in self._actors:
            actor.process.alive = False
        self._bury()

    def _is_ready(self, actor: Actor) -> bool:
        if actor.process.frozen_until_us > self.now_us:
            return False
        if actor.wake_at_us is not None and actor.wake_at_us <= self.now_us:
            return True
        return actor.condition is not None and bool(actor.condition())

    def _next_us(self) -> int:
        times = [
            max(actor.wake_at_us or 0, actor.process.frozen_until_us)
            for actor in self._actors
            if actor.wake_at_us is not None or actor.process.frozen_until_us > self.now_us
        ]
        if not times:
            raise Stuck("nobody will ever go on")
        return min(times)

    def _resume(self, actor: Actor) -> None:
        actor.condition = None
        self._present = actor
        actor.body.switch()
        self._present = None
        if actor.body.dead:
            self._actors.remove(actor)

    def _bury(self) -> None:
        for actor in [actor for actor in self._actors if not actor.process.alive]:
            self._present = actor
            actor.body.throw(GreenletExit)
            self._present = None
            self._actors.remove(actor)


class _Time:
    """Stands for the module ``time``."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def monotonic(self) -> float:
        return self._kernel.now_us / 1e6

    time = monotonic

    def time_ns(self) -> int:
        return self._kernel.now_us * 1000

    def sleep(self, seconds: float) -> None:
        self._kernel.wait(seconds=seconds)


class _Queue(Generic[T]):
    """Stands for ``SimpleQueue``."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._items: deque[T] = deque()

    def put(self, item: T) -> None:
        self._items.append(item)

    def get(self, timeout: float) -> T:
        if not self._items:
            self._kernel.wait(lambda: self._items, timeout)
        return self.get_nowait()

    def get_nowait(self) -> T:
        if not self._items:
            raise Empty
        return self._items.popleft()

    def empty(self) -> bool:
        return not self._items

    def qsize(self) -> int:
        return len(self._items)


class _Future(Future[T]):
    """Its ``exception`` waits as actors do."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self._kernel = kernel

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if not self.done():
            self._kernel.wait(self.done, timeout)
        return super().exception(0)


class _Threads:
    """Stands for ``OneThread``, of the process that makes it."""

    def __init__(self, kernel: Kernel) -> None:
        assert kernel._present is not None, "only actors make threads"
        self._kernel = kernel
        self._process = kernel._present.process
        self._last: _Future[Any] | None = None

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        future: _Future[T] = _Future(self._kernel)

        def work() -> None:
            try:
                outcome = function(*arguments)
            except Exception as error:  # noqa: BLE001 - it is the future's
                future.set_exception(error)
            else:
                future.set_result(outcome)

        self._last = future
        self._kernel.start(self._process, work)
        return future

    def close(self, within_seconds: float) -> None:
        if self._last is not None and not self._last.done() and self._process.alive:
            self._kernel.wait(self._last.done, within_seconds)


@contextmanager
def installed(kernel: Kernel) -> Iterator[None]:
    """The product's modules see this world's time, queues and threads."""
    stand_in: Any = _Time(kernel)
    names: dict[tuple[ModuleType, str], object] = {(module, "time"): stand_in for module in _MODULES}
    names[dispatcher, "SimpleQueue"] = lambda: _Queue(kernel)
    names[publisher, "OneThread"] = lambda *_: _Threads(kernel)
    before = {(module, name): getattr(module, name) for module, name in names}
    assert all(value is time for (_, name), value in before.items() if name == "time"), "it is installed already"
    try:
        for (module, name), value in names.items():
            setattr(module, name, value)
        yield
    finally:
        for (module, name), value in before.items():
            setattr(module, name, value)
