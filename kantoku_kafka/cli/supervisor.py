"""Runs several executor processes as one command: starts, restarts, reloads, stops them together."""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import FrameType

from kantoku_kafka.backoff import Backoff
from kantoku_kafka.cli.lifeline import LIFELINE, MARGIN_SECONDS

__all__ = ["MAX_PROCESSES", "Supervisor"]

_log = logging.getLogger(__name__)
MAX_PROCESSES = 256
"""Their numbers are bytes."""
_CONFIGURATION_CODES = {2, 3, 4, 5, 7}
_HEALTHY_SECONDS = 10.0
_PAUSE_SECONDS = (0.1, 10.0)
_LOOK_SECONDS, _LOOK_AGAIN_SECONDS = 0.5, 0.02


@dataclass(slots=True, eq=False)
class _Child:
    """One of the processes. ``kill_at``: it was told to end, and to be started again then; None: it was not.
    ``done``: it is not to be started again."""

    number: int
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    restart_at: float = 0.0
    pauses: Backoff = field(default_factory=lambda: Backoff(*_PAUSE_SECONDS))
    done: bool = False
    kill_at: float | None = None


class Supervisor:
    """Runs a command ``count`` times, each time with a lifeline.

    A process that ends is started again, with growing pauses while it ends at once. But if none has ever been ready,
    one that ends with an error of configuration ends all. SIGTERM and SIGINT are passed on; after the drain time, or
    at the second signal, what is left is killed. SIGUSR1 is passed on.

    Parameters:
        command: program and arguments.
        count: number of processes, at most ``MAX_PROCESSES``.
        drain_seconds: how long they may take to end.
        burst: one that ends well has done its work, and is not started again.
    """

    def __init__(self, command: Sequence[str], count: int, drain_seconds: float, *, burst: bool = False) -> None:
        self._command = list(command)
        self._children = [_Child(number) for number in range(count)]
        self._drain_seconds = drain_seconds
        self._burst = burst
        self._signals = 0
        self._proven = False
        self._failed = 0
        self._reload_asked = False
        self._to_reload: deque[_Child] = deque()
        self._reloading: _Child | None = None

    def run(self) -> int:
        """Supervise until told to stop; the exit code is 0, or that of a process that cannot run at all."""
        read_end, write_end = os.pipe()
        ready_read, ready_write = os.pipe()
        wake_read, wake_write = os.pipe()
        for descriptor in (wake_write, ready_read):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGUSR1, self._pass_on)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        try:
            while not self._signals and not self._failed and not all(child.done for child in self._children):
                for child in self._children:
                    if child.process is None and not child.done and child.restart_at <= time.monotonic():
                        self._start(child, (read_end, ready_write))
                awake, _, _ = select.select([wake_read, ready_read], [], [], _LOOK_SECONDS)
                told = {descriptor: os.read(descriptor, 512) for descriptor in awake}
                self._take_note_of_ready(told.get(ready_read, b""))
                for child in self._children:
                    self._reap(child)
                self._reload()
        finally:
            self._stop_children()
            signal.set_wakeup_fd(-1)
            for descriptor in (read_end, write_end, ready_read, ready_write, wake_read, wake_write):
                os.close(descriptor)
        return self._failed

    def reload(self) -> None:
        """Let the processes drain and start anew, one after the other. Any thread or signal handler may call it.

        The next one has its turn when the one before is ready. If that ends instead, the others are left as they are.
        """
        self._reload_asked = True

    def _start(self, child: _Child, lifeline: tuple[int, int]) -> None:
        environment = {**os.environ, LIFELINE: ",".join(map(str, (child.number, *lifeline)))}
        child.started = time.monotonic()
        try:
            child.process = subprocess.Popen(self._command, pass_fds=lifeline, env=environment, start_new_session=True)
        except OSError as error:  # no memory, too many processes: the others go on
            self._start_later(child, f"could not be started ({error.strerror})")

    def _take_note_of_ready(self, numbers: bytes) -> None:
        self._proven = self._proven or bool(numbers)
        if self._reloading is not None and self._reloading.kill_at is None and self._reloading.number in numbers:
            self._reloading = None

    def _reap(self, child: _Child) -> None:
        """Take note of a process that has ended, and of when it is started again."""
        code = None if child.process is None else child.process.poll()
        if code is None:
            return
        child.process = None
        if child.kill_at is not None:
            child.kill_at, child.restart_at = None, 0.0
            return
        if code in _CONFIGURATION_CODES and not self._proven:
            self._failed = code
            return
        if code == 0 and self._burst:
            child.done = True
            self._reloading = None if self._reloading is child else self._reloading
            return
        self._start_later(child, f"ended with {f'signal {-code}' if code < 0 else f'code {code}'}")
        if child is self._reloading:
            self._reloading = None
            if self._to_reload:
                self._to_reload.clear()
                _log.error("reload given up: the other processes go on as they are", extra={"action": "reload"})

    def _start_later(self, child: _Child, what: str) -> None:
        now = time.monotonic()
        if now - child.started > _HEALTHY_SECONDS:
            child.pauses.reset()
        pause_seconds = child.pauses.next_seconds()
        child.restart_at = now + pause_seconds
        text = "executor process %d %s; starting it again in %.1f s"
        _log.warning(text, child.number, what, pause_seconds, extra={"action": "restart"})

    def _reload(self) -> None:
        """Begin a reload that was asked for, or go on with the one that is under way."""
        if self._reload_asked:
            self._reload_asked = False
            self._to_reload = deque(child for child in self._children if not child.done)
            if self._reloading is not None and self._reloading.kill_at is None:
                self._reloading = None  # it has begun anew, and is not ready: with what is there now it may be
            _log.info("reloading", extra={"action": "reload"})
        now = time.monotonic()
        while self._to_reload and self._to_reload[0].done:
            self._to_reload.popleft()
        if self._reloading is None and self._to_reload:
            child = self._reloading = self._to_reload.popleft()
            child.pauses.reset()
            child.restart_at = 0.0
            if child.process is not None:
                child.process.send_signal(signal.SIGTERM)
                child.kill_at = now + self._drain_seconds + MARGIN_SECONDS
        late = self._reloading
        if late is not None and late.process is not None and late.kill_at is not None and late.kill_at < now:
            late.process.kill()

    def _on_signal(self, _: int, __: FrameType | None) -> None:
        self._signals += 1

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        for child in self._children:
            if child.process is not None:
                child.process.send_signal(number)

    def _stop_children(self) -> None:
        processes = [child.process for child in self._children if child.process is not None]
        for process in processes:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + self._drain_seconds + MARGIN_SECONDS
        while any(process.poll() is None for process in processes):
            if time.monotonic() > deadline or self._signals > 1:
                for process in processes:
                    process.kill()
                    process.wait()
            time.sleep(_LOOK_AGAIN_SECONDS)
