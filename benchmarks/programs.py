"""Contestants as subprocesses: started, watched, measured from outside, stopped."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
STOP_SECONDS = 15
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


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

    def cpu_seconds(self) -> float | None:
        """User and system time so far, of this process only; None where there is no /proc."""
        try:
            stat = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii")
        except OSError:
            return None
        fields = stat.rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND

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
