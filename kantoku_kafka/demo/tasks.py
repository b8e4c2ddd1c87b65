"""The tasks of the demo: ``kantoku-kafka run-executor kantoku_kafka.demo.tasks:kan`` runs them anywhere."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from functools import cache
from pathlib import Path

from kantoku_kafka import Context, Kantoku, Task
from kantoku_kafka.demo import RUNS_VARIABLE

__all__ = ["CHILD_EVERY", "kan"]

CHILD_EVERY = 10
"""Every so many-th ``fetch`` spawns a ``hash`` task with its result."""
_FAIL_EVERY = 4

kan = Kantoku("demo")


@kan.task("hash", pool="inline")
def digest(data: bytes, ctx: Context) -> bytes:
    """Some microseconds of CPU, in the executor's own loop."""
    _note_run(ctx)
    return hashlib.sha256(data).hexdigest().encode()


@kan.task("fetch")
async def fetch(data: bytes, ctx: Context) -> bytes:
    """Waits 2 to 9 ms as for a server; every tenth spawns a child, whose id is its result."""
    _note_run(ctx)
    number = _number(data)
    await asyncio.sleep((2 + number % 8) / 1000)
    return ctx.spawn(Task("hash", data)).encode() if number % CHILD_EVERY == 0 else b""


@kan.task("flaky")
def flaky(data: bytes, ctx: Context) -> bytes:
    """Every fourth raises, on purpose: its status is FAILED."""
    _note_run(ctx)
    time.sleep(0.001)
    if _number(data) % _FAIL_EVERY == 0:
        raise ConnectionError("the demo's server is down, on purpose")
    return b"done"


def _number(data: bytes) -> int:
    return int(data) if data.isdigit() else len(data)


def _note_run(ctx: Context) -> None:
    """What was written is in the file even if the process is killed at once: the kernel has it."""
    directory = os.environ.get(RUNS_VARIABLE)
    if directory is not None:
        os.write(_runs_file(directory, os.getpid()), f"{ctx.task_id}\n".encode())


@cache
def _runs_file(directory: str, pid: int) -> int:
    return os.open(Path(directory) / str(pid), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
