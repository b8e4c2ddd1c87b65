"""The app that the crash tests run: tasks that take a little while, and finish out of order."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

from kantoku_kafka import Context, Kantoku

kan = Kantoku("crash")


@kan.task("work")
def work(data: bytes) -> bytes:
    """Takes 0 to 5 ms; now and then 100."""
    time.sleep(0.1 if random.random() < 0.01 else random.random() / 200)
    return data


@kan.task("note")
def note(data: bytes, ctx: Context) -> bytes:
    """Leaves a line in a file for every run, so that a test can count them; ``data`` is seconds to take."""
    path = Path(os.environ["NOTES"])
    with path.open("ab", buffering=0) as notes:
        notes.write(f"start {ctx.task_id}\n".encode())
    time.sleep(float(data))
    with path.open("ab", buffering=0) as notes:
        notes.write(f"end {ctx.task_id}\n".encode())
    return data
