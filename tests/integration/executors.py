"""Executors as users run them: processes of the command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

HERE = Path(__file__).parent
CONFIG_VARIABLE = "KANTOKU_TEST_EXECUTOR_CONFIG"


class ExecutorUnderTest:
    """One ``run-executor`` process in a session of its own; killed, if it still runs, at the end of the test."""

    def __init__(
        self,
        bootstrap_servers: str,
        namespace: str,
        *options: str,
        log: Path,
        app: str = "task_app:kan",
        cwd: Path = HERE,
        command: str = "run-executor",
    ) -> None:
        self._command = [
            *(sys.executable, "-m", "kantoku_kafka", command, app),
            *("-b", bootstrap_servers, "-n", namespace, *options),
        ]
        self._log = log
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._log_begin = log.tell()
            self._process = subprocess.Popen(
                self._command,
                cwd=self._cwd,
                stdout=log,
                stderr=log,
                env=_environment(),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        assert self._process is not None
        return self._process.poll()

    def kill(self, number: int = signal.SIGKILL) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        if number == signal.SIGKILL:
            self._process.wait()

    def wait(self, timeout_seconds: float) -> int:
        """The exit code. Before the time is over in vain, the log has where all threads are."""
        assert self._process is not None
        try:
            return self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGUSR1)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(2)
            sys.stderr.write(self.log()[-10_000:])
            raise

    def is_up(self) -> bool:
        """It has said who it is: signals have their meaning by now."""
        return b" kantoku_kafka.executor: executor " in self._log.read_bytes()[self._log_begin :]

    def log(self) -> str:
        return self._log.read_text()

    def __enter__(self) -> ExecutorUnderTest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.returncode is None:
            self.kill()


def _environment() -> dict[str, str]:
    """In a secured run, executors are a user of their own."""
    config = os.environ.get(CONFIG_VARIABLE)
    return {**os.environ, "KANTOKU_CONFIG": config} if config else dict(os.environ)


def until(condition: Callable[[], object], timeout_seconds: float, what: str) -> float:
    """Wait for a condition; returns how long it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < timeout_seconds, f"not within {timeout_seconds} s: {what}"
        time.sleep(0.05)
    return time.monotonic() - started
