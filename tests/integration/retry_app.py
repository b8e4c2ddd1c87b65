"""Tasks that fail as their data say, and tasks that note when they ran."""

from __future__ import annotations

import os
import time
from pathlib import Path

from kantoku_kafka import Context, Kantoku, Retry

kan = Kantoku("retries")


@kan.task("flaky", retry=Retry(max_attempts=3, initial_seconds=0.2, max_seconds=2))
def flaky(data: bytes, ctx: Context) -> bytes:
    """Fails until the attempt whose number is its data."""
    time.sleep(0.001)
    if ctx.attempt < int(data):
        raise ConnectionError(f"attempt {ctx.attempt}")
    return b"%d" % ctx.attempt


@kan.task("timed", pool="inline")
def timed(data: bytes) -> bytes:
    """Its result says when it was executed."""
    return b"%d" % (time.time_ns() // 1000)


@kan.task("noted", pool="inline")
def noted(data: bytes, ctx: Context) -> bytes:
    """Notes that it ran, in one write."""
    descriptor = os.open(os.environ["NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{ctx.task_id}\n".encode())
    os.close(descriptor)
    return b""


@kan.task("fragile", retry=Retry(max_attempts=1))
def fragile(data: bytes) -> bytes:
    """Fails until a file is there."""
    if not Path(os.environ["MENDED"]).exists():
        raise ConnectionError("not mended yet")
    return data
