"""The tasks of the runs. ``KANTOKU_FAILPOINT``, ``KANTOKU_CLOCK`` and ``KANTOKU_MUTANT`` make the process that runs
them a faulty one."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time

from kantoku_kafka import Context, Kantoku, Retry
from tests.chaos import clock, failpoints, mutants

__all__ = ["TYPES", "kan"]

TYPES = ("quick", "work", "flaky", "long", "rogue")

clock.install(os.environ.get("KANTOKU_CLOCK", ""))
failpoints.install(os.environ.get("KANTOKU_FAILPOINT", ""))
mutants.install(os.environ.get("KANTOKU_MUTANT", ""))
kan = Kantoku("chaos")


@kan.task("quick", pool="inline", deduplicate_all=True)
def quick(data: bytes) -> bytes:
    return data


@kan.task("work", deduplicate_all=True)
def work(data: bytes) -> bytes:
    """Takes as many milliseconds as its data say."""
    time.sleep(int(data) / 1000)
    return data


@kan.task("flaky", retry=Retry(max_attempts=3, initial_seconds=0.2, max_seconds=1), deduplicate_all=True)
def flaky(data: bytes, ctx: Context) -> bytes:
    """Fails until the attempt whose number is its data."""
    time.sleep(0.001)
    if ctx.attempt < int(data):
        raise ConnectionError(f"attempt {ctx.attempt}")
    return b"%d" % ctx.attempt


@kan.task("long")
def long(data: bytes, ctx: Context) -> bytes:
    """Takes as many seconds as its data say."""
    end = time.monotonic() + float(data)
    while time.monotonic() < end and ctx.cancelled is None:
        time.sleep(0.05)
    return data


@kan.task("rogue", pool="process", timeout_seconds=1, retry=Retry(max_attempts=2, initial_seconds=0.1))
def rogue(data: bytes) -> bytes:
    """Ends its process, or does not end, as its data say."""
    match data:
        case b"segfault":
            ctypes.string_at(0)
        case b"exit":
            os._exit(3)
        case b"hang":  # in C, with the interpreter lock held
            ctypes.PyDLL(None).sleep(3600)
        case b"grandchild":
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
            os._exit(4)
    return data
