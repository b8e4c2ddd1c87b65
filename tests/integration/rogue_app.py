"""Tasks that end their process, or do not end, as their data say."""

from __future__ import annotations

import asyncio
import ctypes
import os
import subprocess
import sys
import time

from kantoku_kafka import Context, Kantoku, Retry

kan = Kantoku("rogues")


@kan.task("rogue", pool="process", timeout_seconds=2, retry=Retry(max_attempts=2, initial_seconds=0.1))
def rogue(data: bytes) -> bytes:
    match data:
        case b"segfault":
            ctypes.string_at(0)
        case b"exit":
            os._exit(3)
        case b"hang":  # in C, with the interpreter lock held
            ctypes.PyDLL(None).sleep(3600)
        case b"memory":
            hoard = []
            while True:
                hoard.append(bytearray(16 << 20))
        case b"grandchildren":
            for _ in range(3):
                subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)", "kantoku-grandchild"])
            os._exit(4)
    return data


@kan.task("loop", pool="process")
def loop(data: bytes) -> bytes:
    """A loop in C that holds the interpreter lock for ever."""
    ctypes.PyDLL(None).sleep(3600)
    return data


@kan.task("waits")
def waits(data: bytes, ctx: Context) -> bytes:
    """Looks now and then whether to go on."""
    until = time.monotonic() + float(data)
    while time.monotonic() < until and ctx.cancelled is None:
        time.sleep(0.02)
    return data


@kan.task("sleeps")
async def sleeps(data: bytes) -> bytes:
    await asyncio.sleep(float(data))
    return data


@kan.task("fails", retry=Retry(max_attempts=9, initial_seconds=60))
def fails(data: bytes) -> bytes:
    raise ConnectionError
