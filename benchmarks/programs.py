"""Contestants as subprocesses: started, watched, measured from outside, stopped."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cpu import CpuSeconds, cpu_seconds

ROOT = Path(__file__).resolve().parent.parent
STOP_SECONDS = 15


class ContestantError(Exception):
    """A contestant ended, or did nothing, before it was done. Its last lines on stderr follow."""

    @property
    def reason(self) -> str:
        return str(self).partition("\n")[0]


class Program:
    """One running subprocess; its output goes to files, so that it never waits for a reader."""

    def __init__(self, arguments: Sequence[str], directory: Path, interpreter: Sequence[str] = ()) -> None:
        self._stdout, self._stderr = directory / "stdout", directory / "stderr"
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            command = [sys.executable, *interpreter, *arguments]
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=stdout, stderr=stderr)

    def check_alive(self) -> None:
        code = self._process.poll()
        if code is not None:
            raise self.failure(f"ended with exit code {code}")

    def failure(self, reason: str) -> ContestantError:
        lines = self._stderr.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return ContestantError("\n    ".join([reason, *lines[-6:]]))

    def cpu_seconds(self) -> CpuSeconds | None:
        """See :func:`benchmarks.cpu.cpu_seconds`."""
        return cpu_seconds(self._process.pid)

    def report(self, timeout_seconds: float) -> dict[str, Any]:
        """Waits for the end; returns the JSON object on the last line of stdout."""
        try:
            code = self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired as error:
            raise self.failure(f"did not end within {timeout_seconds:.0f} s") from error
        if code:
            raise self.failure(f"ended with exit code {code}")
        answer = json.loads(self._stdout.read_text(encoding="utf-8").splitlines()[-1])
        assert isinstance(answer, dict)
        return answer

    def stop(self) -> None:
        """SIGTERM, and SIGKILL to what does not heed it."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def running(arguments: Sequence[str], interpreter: Sequence[str] = ()) -> Iterator[Program]:
    """A program that is stopped at the end of the block, whatever happens in it."""
    with tempfile.TemporaryDirectory(prefix="kantoku-bench-") as directory:
        program = Program(arguments, Path(directory), interpreter)
        try:
            yield program
        finally:
            program.stop()
