"""Executors as users run them: processes of the command line, which end with this one however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from kantoku_kafka.demo import RUNS_VARIABLE
from kantoku_kafka.dev.processes import GuardedProcess
from kantoku_kafka.errors import KantokuError

__all__ = ["Fleet"]

_DRAIN_SECONDS = 10.0
_LOG_LINES = 5


class Fleet:
    """Executor processes, each with a slot of its own: one that is killed and started again goes on at once.

    Parameters:
        count: how many.
        options: of the command line, where Kafka is and in which namespace.
        directory: where their logs and the lines of their runs go.

    Not thread-safe. As a context manager it starts them, and kills what is left in the end.
    """

    def __init__(self, count: int, options: Sequence[str], directory: Path) -> None:
        self._options = list(options)
        self._directory = directory
        self._runs = directory / "runs"
        self._processes: list[GuardedProcess | None] = [None] * count

    def __enter__(self) -> Self:
        self._runs.mkdir()
        try:
            for number in range(len(self._processes)):
                self.start(number)
        except BaseException:
            self.kill_all()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill_all()

    def __len__(self) -> int:
        return len(self._processes)

    def start(self, number: int) -> None:
        """Start one executor; returns at once."""
        command = [sys.executable, "-P", "-m", "kantoku_kafka", "run-executor", "kantoku_kafka.demo.tasks:kan"]
        command += [*self._options, "--slot", f"demo-{number}"]
        with self._log(number).open("ab") as log:
            self._processes[number] = GuardedProcess(
                command,
                env={**os.environ, RUNS_VARIABLE: str(self._runs)},
                stdout=log,
                stderr=subprocess.STDOUT,
                scratch=self._directory,
            )

    def kill(self, number: int) -> int:
        """SIGKILL one executor; returns its process id when it is gone."""
        process = self._running(number)
        process.signal(signal.SIGKILL)
        process.join(_DRAIN_SECONDS)
        return process.process.pid

    def check(self) -> None:
        """Raise KantokuError, with the end of its log, if an executor has ended by itself."""
        for number, process in enumerate(self._processes):
            if process is not None and not process.alive:
                tail = "\n".join(self._log(number).read_text(errors="replace").splitlines()[-_LOG_LINES:])
                raise KantokuError(f"Executor {number} ended with code {process.process.returncode}; its log:\n{tail}")

    def stop(self) -> None:
        """SIGTERM to all: they drain and end. Blocks until they have."""
        running = [process for process in self._processes if process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + _DRAIN_SECONDS
        for process in running:
            process.join(deadline - time.monotonic())

    def kill_all(self) -> None:
        """SIGKILL to all; nothing of them is left. Idempotent."""
        for process in self._processes:
            if process is not None:
                process.join(0)

    def runs(self) -> list[str]:
        """The task id of every run that was begun, in any executor."""
        return [line for path in sorted(self._runs.iterdir()) for line in path.read_text().splitlines()]

    def _running(self, number: int) -> GuardedProcess:
        process = self._processes[number]
        assert process is not None, "the executor was not started"
        return process

    def _log(self, number: int) -> Path:
        return self._directory / f"executor-{number}.log"
