"""Runs several executor processes as one command: starts, restarts, stops them together."""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

__all__ = ["Lifeline", "Supervisor"]

_log = logging.getLogger(__name__)
LIFELINE = "KANTOKU_LIFELINE"
"""Environment variable: two descriptors, of a pipe that closes when the supervisor is gone, however it went, and of one
that takes a byte when the process is ready."""
_CONFIGURATION_CODES = {2, 3, 4, 5, 7}
_HEALTHY_SECONDS = 10.0
_MAX_PAUSE_SECONDS = 10.0
_LOOK_SECONDS, _LOOK_AGAIN_SECONDS = 0.5, 0.02
_MARGIN_SECONDS = 15.0  # for the last checkpoint, and for leaving the group


class Supervisor:
    """Runs this very command line ``count`` times with ``--processes 1``.

    A process that ends is started again, with growing pauses while it ends at once. But if none has ever been ready,
    one that ends with an error of configuration ends all. SIGTERM and SIGINT are passed on; after the drain time, or
    at the second signal, what is left is killed.

    Parameters:
        count: number of processes.
        slot: the explicit slot, to which each process's number is added; None: each takes a free one.
        drain_seconds: how long they may take to end.
    """

    def __init__(self, count: int, slot: str | None, drain_seconds: float) -> None:
        self._count = count
        self._slot = slot
        self._drain_seconds = drain_seconds
        self._signals = 0
        self._proven = False
        self._failed = 0
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._started: dict[int, float] = {}
        self._restart_at: dict[int, float] = {}
        self._crashes: dict[int, int] = {}

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
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._restart_at = dict.fromkeys(range(self._count), 0.0)
        try:
            while not self._signals and not self._failed:
                now = time.monotonic()
                for number in [n for n, at in self._restart_at.items() if at <= now]:
                    self._start(number, (read_end, ready_write))
                awake, _, _ = select.select([wake_read, ready_read], [], [], _LOOK_SECONDS)
                for descriptor in awake:
                    os.read(descriptor, 512)
                self._proven = self._proven or ready_read in awake
                self._reap()
        finally:
            self._stop_children()
            signal.set_wakeup_fd(-1)
            for descriptor in (read_end, write_end, ready_read, ready_write, wake_read, wake_write):
                os.close(descriptor)
        return self._failed

    def _start(self, number: int, lifeline: tuple[int, int]) -> None:
        del self._restart_at[number]
        slot = [] if self._slot is None else ["--slot", f"{self._slot}.{number}"]
        # -P: the current directory must not come before the standard library.
        command = [sys.executable, "-P", "-m", "kantoku_kafka", *_single(sys.argv[1:], slot)]
        environment = {**os.environ, LIFELINE: ",".join(map(str, lifeline))}
        self._children[number] = subprocess.Popen(command, pass_fds=lifeline, env=environment, start_new_session=True)
        self._started[number] = time.monotonic()

    def _reap(self) -> None:
        """Take note of ended children."""
        for number, child in list(self._children.items()):
            code = child.poll()
            if code is None:
                continue
            del self._children[number]
            if code in _CONFIGURATION_CODES and not self._proven:
                self._failed = code
                return
            now = time.monotonic()
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

    def _on_signal(self, _: int, __: FrameType | None) -> None:
        self._signals += 1

    def _stop_children(self) -> None:
        for child in self._children.values():
            child.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + self._drain_seconds + _MARGIN_SECONDS
        while any(child.poll() is None for child in self._children.values()):
            if time.monotonic() > deadline or self._signals > 1:
                for child in self._children.values():
                    child.kill()
                    child.wait()
            time.sleep(_LOOK_AGAIN_SECONDS)


def _single(arguments: list[str], slot: list[str]) -> list[str]:
    """The command line without ``--processes``, and with this ``--slot`` instead of the supervisor's."""
    kept: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        name, equals, _ = argument.partition("=")
        if argument == "--":
            return [*kept, *slot, argument, *rest]
        if name in ("--processes", "--slot"):
            if not equals:
                next(rest, None)
        else:
            kept.append(argument)
    return [*kept, *slot]


class Lifeline:
    """What ties an executor process to its supervisor. Without one, nothing happens.

    Not for the processes that it starts in turn: they inherit neither the variable nor the descriptors.
    """

    def __init__(self) -> None:
        text = os.environ.pop(LIFELINE, None)
        self._descriptors = [int(number) for number in text.split(",")] if text else []
        for descriptor in self._descriptors:
            os.set_inheritable(descriptor, False)

    def ready(self) -> None:
        """Tell the supervisor that this process runs."""
        if self._descriptors:
            os.write(self._descriptors[1], b"\0")

    def watch(self, stop: Callable[[], None], drain_seconds: float) -> None:
        """When the supervisor is gone: stop, and end in any case once the drain time is over."""
        if not self._descriptors:
            return

        def wait() -> None:
            os.read(self._descriptors[0], 1)
            stop()
            time.sleep(drain_seconds + _MARGIN_SECONDS)
            os._exit(1)

        threading.Thread(target=wait, name="kantoku-lifeline", daemon=True).start()
