"""Runs several executor processes as one command: starts, restarts, stops them together."""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
import time
from types import FrameType

__all__ = ["LIFELINE", "Supervisor"]

_log = logging.getLogger(__name__)
LIFELINE = "KANTOKU_LIFELINE_FD"
"""Environment variable: a pipe that closes when the supervisor is gone, however it went."""
_CONFIGURATION_CODES = {2, 3, 4, 5, 7}
_HEALTHY_SECONDS = 10.0
_MAX_PAUSE_SECONDS = 10.0


class Supervisor:
    """Runs this very command line ``count`` times with ``--processes 1``.

    A process that crashes is started again, with growing pauses while it crashes at once; one that ends with an
    error of configuration ends all. SIGTERM and SIGINT are passed on, and after the drain time the rest is killed.

    Parameters:
        count: number of processes.
        slot: the explicit slot, to which each process's number is added; None: each takes a free one.
        drain_seconds: how long they may take to end.
    """

    def __init__(self, count: int, slot: str | None, drain_seconds: float) -> None:
        self._count = count
        self._slot = slot
        self._drain_seconds = drain_seconds
        self._stopping = False
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._started: dict[int, float] = {}
        self._restart_at: dict[int, float] = {}
        self._crashes: dict[int, int] = {}

    def run(self) -> int:
        """Supervise until told to stop; the exit code is 0, or that of a process that cannot run at all."""
        read_end, write_end = os.pipe()
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        code = 0
        self._restart_at = dict.fromkeys(range(self._count), 0.0)
        try:
            while not self._stopping:
                now = time.monotonic()
                for number in [n for n, at in self._restart_at.items() if at <= now]:
                    self._start(number, read_end)
                if select.select([wake_read], [], [], 0.5)[0]:
                    os.read(wake_read, 512)
                code = self._reap() or code
        finally:
            self._stop_children()
            signal.set_wakeup_fd(-1)
            for descriptor in (read_end, write_end, wake_read, wake_write):
                os.close(descriptor)
        return code

    def _start(self, number: int, lifeline: int) -> None:
        del self._restart_at[number]
        slot = [] if self._slot is None else ["--slot", f"{self._slot}.{number}"]
        command = [sys.executable, "-m", "kantoku_kafka", *_single(sys.argv[1:]), *slot]
        self._children[number] = subprocess.Popen(
            command, pass_fds=[lifeline], env={**os.environ, LIFELINE: str(lifeline)}, start_new_session=True
        )
        self._started[number] = time.monotonic()

    def _reap(self) -> int:
        """Take note of ended children; the exit code that ends everything, or 0."""
        for number, child in list(self._children.items()):
            code = child.poll()
            if code is None:
                continue
            del self._children[number]
            now = time.monotonic()
            if code in _CONFIGURATION_CODES and now - self._started[number] < _HEALTHY_SECONDS:
                self._stopping = True
                return code
            healthy = now - self._started[number] > _HEALTHY_SECONDS
            self._crashes[number] = 1 if healthy else self._crashes.get(number, 0) + 1
            pause_seconds = min(_MAX_PAUSE_SECONDS, 0.1 * 2 ** (self._crashes[number] - 1))
            self._restart_at[number] = now + pause_seconds
            _log.warning(
                "executor process %d ended with %s; starting it again in %.1f s",
                number,
                f"signal {-code}" if code < 0 else f"code {code}",
                pause_seconds,
                extra={"action": "restart"},
            )
        return 0

    def _on_signal(self, _: int, __: FrameType | None) -> None:
        self._stopping = True

    def _stop_children(self) -> None:
        for child in self._children.values():
            child.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + self._drain_seconds + 10
        for child in self._children.values():
            try:
                child.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _single(arguments: list[str]) -> list[str]:
    """The command line without ``--processes`` and ``--slot``, which are the supervisor's."""
    kept: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        name, equals, _ = argument.partition("=")
        if name in ("--processes", "--slot"):
            if not equals:
                next(rest, None)
        else:
            kept.append(argument)
    return kept
