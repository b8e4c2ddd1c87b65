"""One child process as its parent sees it: the process, the socket to it, and the job that it runs."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from enum import Enum

from kantoku_kafka.job import Job
from kantoku_kafka.pools.frames import FrameBuffer, Kind, encode_task, frame

__all__ = ["Phase", "Worker"]

_READ_BYTES = 1 << 18
_CLOSED_SECONDS = 1.0
_SMALL_BYTES = 16 << 10  # one buffer of the kernel: read as a whole or not at all


class Phase(Enum):
    """STARTING: imports the app. SERVING: waits for a job or runs one. ENDING: has ended, or must."""

    STARTING = 1
    SERVING = 2
    ENDING = 3


class Worker:
    """Starts a child in a process group of its own. Belongs to the pool's I/O thread; nothing here blocks on it.

    Parameters:
        hello: the HELLO frame.
        kill_at: when it is killed if it is not ready by then.

    Attributes:
        phase: see :class:`Phase`.
        job: what it runs, or None.
        number: of that job, by which the answer is recognised.
        kill_at: monotonic time at which it is killed; None while it serves.
        was_ready: it has imported the app.
        stopped: we end it, and nothing that becomes of it is news.
        retires: it was told to end by itself.
        verdict: why we end it if it is to blame; else its exit code says what happened.

    Raises:
        OSError: no process can be started.
    """

    def __init__(self, hello: bytes, kill_at: float) -> None:
        self.socket, theirs = socket.socketpair()
        descriptor = theirs.fileno()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "kantoku_kafka.pools.child", str(descriptor)],
                stdin=subprocess.DEVNULL,
                stdout=2,  # stdout of the program carries data; whatever a task prints goes to stderr
                pass_fds=(descriptor,),
                start_new_session=True,
            )
        except BaseException:
            self.socket.close()
            raise
        finally:
            theirs.close()
        self.socket.setblocking(False)
        self.phase = Phase.STARTING
        self.job: Job | None = None
        self.number = 0
        self.kill_at: float | None = kill_at
        self.was_ready = self.stopped = self.retires = self._was_reset = False
        self.verdict: str | None = None
        self._received = FrameBuffer()
        self._task_bytes = 0
        self._unsent = memoryview(b"")
        self._say(hello)

    @property
    def pid(self) -> int:
        """Of the child, and of its process group."""
        return self._process.pid

    @property
    def wants_to_write(self) -> bool:
        """Call :meth:`flush` when the socket is writable."""
        return len(self._unsent) > 0 and self.socket.fileno() >= 0

    @property
    def job_is_untouched(self) -> bool:
        """The child has not read the job's frame, so that cannot be what ended it.

        Not a byte has left, or the connection was reset: Linux does so if bytes were left unread. A large frame may
        have been read in part, and its size be the cause.
        """
        unread = self._was_reset and self._task_bytes <= _SMALL_BYTES
        return self.job is not None and (unread or self._task_bytes <= len(self._unsent))

    def run(self, job: Job) -> None:
        """Hand over a job; there must be none. Raises FrameError if it is too large for a frame."""
        task = frame(Kind.TASK, encode_task(self.number + 1, job))
        self.number += 1
        self.job = job
        self._task_bytes = len(task)
        job.started_at_us = time.time_ns() // 1000
        self._say(task)

    def ready(self) -> None:
        """It has imported the app."""
        self.phase = Phase.SERVING
        self.was_ready = True
        self.kill_at = None

    def flush(self) -> None:
        """Send what the socket takes. An error is no news: reading will meet the end of the stream."""
        with contextlib.suppress(OSError):
            while self.wants_to_write:
                self._unsent = self._unsent[self.socket.send(self._unsent) :]

    def receive(self) -> Iterator[tuple[Kind, bytes]]:
        """The frames that have come. Raises FrameError at the first that is none; at the end, it is ENDING."""
        try:
            while data := self.socket.recv(_READ_BYTES):
                yield from self._received.feed(data)
        except BlockingIOError:
            return
        except ConnectionResetError:
            self._was_reset = True
        self.end(time.monotonic() + _CLOSED_SECONDS)

    def end(self, kill_at: float) -> None:
        """Nothing is read from it any more; it is killed then, if it has not ended."""
        self.phase = Phase.ENDING
        self.kill_at = kill_at if self.kill_at is None else min(self.kill_at, kill_at)

    def retire(self, kill_at: float) -> None:
        """Let it end by itself."""
        self.retires = True
        self.end(kill_at)
        self._say(frame(Kind.END))

    def stop(self, kill_at: float) -> None:
        """SIGTERM to its process group, because we want it so: it is not to blame."""
        self.stopped = True
        self.end(kill_at)
        self._say(frame(Kind.CANCEL))
        self.signal_group(signal.SIGTERM)

    def kill(self, verdict: str) -> None:
        """SIGKILL to its process group, because of what it did."""
        self.verdict = self.verdict or verdict
        self.phase = Phase.ENDING
        self.kill_at = float("inf")
        self.signal_group(signal.SIGKILL)

    def has_exited(self) -> bool:
        """Whether only :meth:`reap` is left to do. Does not reap: until then nobody else can get its pid."""
        if not hasattr(os, "waitid"):  # macOS before Python 3.13
            return self._process.poll() is not None
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # somebody else in this program has reaped it
            return True

    def reap(self) -> str:
        """Kill what is left of the process group, close the socket; returns how the process ended."""
        self.signal_group(signal.SIGKILL)
        code = self._process.wait()
        self.socket.close()
        if self.verdict is not None:
            return self.verdict
        if code >= 0:
            return f"ended with exit code {code}"
        hint = ", perhaps for want of memory" if -code == signal.SIGKILL else ""
        return f"was killed by {_signal_name(-code)}{hint}"

    def signal_group(self, number: signal.Signals) -> None:
        """To the child and all that it started, unless those left the group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _say(self, data: bytes) -> None:
        self._unsent = memoryview(bytes(self._unsent) + data) if self._unsent else memoryview(data)
        self.flush()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
