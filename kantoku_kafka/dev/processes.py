"""Child processes that die with this one, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from kantoku_kafka.dev import launcher

__all__ = ["GuardedProcess", "run_guarded"]

# -I and -S: the launcher needs nothing but the standard library, and starts in 10 ms.
_LAUNCHER: Final = (sys.executable, "-I", "-S", launcher.__file__)


class GuardedProcess:
    """A command in a session of its own (no Ctrl-C reaches it) that ends, at the latest, with this process.

    Args:
        command: program and arguments.
        cwd: working directory, default that of this process.
        env: the whole environment, default that of this process.
        stdout: where its output goes: a file or ``subprocess.PIPE``.
        stderr: the same for errors, or ``subprocess.STDOUT``.
        scratch: a directory to remove when this process dies before the command has ended, default none.

    Not thread-safe. ``process`` is the plain ``Popen``; its ``pid`` is that of the command itself.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdout: IO[bytes] | int,
        stderr: IO[bytes] | int,
        scratch: Path | None = None,
    ) -> None:
        lifeline, self._held = os.pipe()
        try:
            self.process = subprocess.Popen(
                [*_LAUNCHER, str(lifeline), str(os.getpid()), str(scratch or ""), *command],
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                text=True,
                encoding="utf-8",
                errors="replace",
                pass_fds=(lifeline,),
                start_new_session=True,
            )
        except BaseException:
            os.close(self._held)
            raise
        finally:
            os.close(lifeline)

    @property
    def alive(self) -> bool:
        """Whether the command still runs (a stopped one does)."""
        return self.process.poll() is None

    def signal(self, number: int) -> None:
        """Send a signal to the command; nothing happens when it has ended."""
        self.process.send_signal(number)

    def terminate(self) -> None:
        """Ask the command to end, even one that was stopped by SIGSTOP. Returns at once."""
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)

    def join(self, timeout_seconds: float) -> None:
        """Wait until the command has ended; after ``timeout_seconds`` kill it. Then nothing of it is left."""
        try:
            self.process.wait(max(0.0, timeout_seconds))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        finally:
            self._release()

    def _release(self) -> None:
        if self._held >= 0 and not self.alive:
            os.close(self._held)
            self._held = -1


def run_guarded(
    command: Sequence[str],
    *,
    timeout_seconds: float | None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and keep its output as text.

    Args:
        command: program and arguments.
        timeout_seconds: the command is killed after this time; None waits for ever.
        cwd: working directory, default that of this process.
        env: the whole environment, default that of this process.

    Raises:
        subprocess.TimeoutExpired: the command was killed after the timeout.
    """
    guarded = GuardedProcess(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        out, err = guarded.process.communicate(timeout=timeout_seconds)
    finally:
        guarded.join(0)
        for stream in (guarded.process.stdout, guarded.process.stderr):
            if stream is not None:
                stream.close()
    return subprocess.CompletedProcess(list(command), guarded.process.returncode, out, err)
