"""Tasks that end their process, or do not end, as their data say."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time

from kantoku_kafka import Kantoku, Retry

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
def waits(data: bytes) -> bytes:
    time.sleep(float(data))
    return data
