"""The app that the integration tests run."""

from __future__ import annotations

import asyncio
import os
import random
import time
from pathlib import Path

from kantoku_kafka import Context, Kantoku, Reject, Task

kan = Kantoku("test")


@kan.task("echo", pool="inline")
def echo(data: bytes) -> bytes:
    return data


@kan.task("work")
def work(data: bytes) -> bytes:
    """Takes 0 to 5 ms; now and then 100: tasks finish out of order."""
    time.sleep(0.1 if random.random() < 0.01 else random.random() / 200)
    return data


@kan.task("note")
def note(data: bytes, ctx: Context) -> bytes:
    """Leaves a line in a file when it starts and when it ends, so that a test counts runs.

    Data: seconds to take, or the path of a file to wait for.
    """
    path = Path(os.environ["NOTES"])
    with path.open("ab", buffering=0) as notes:
        notes.write(f"start {ctx.task_id}\n".encode())
        if data.startswith(b"/"):
            while not Path(data.decode()).exists():
                time.sleep(0.05)
        else:
            time.sleep(float(data))
        notes.write(f"end {ctx.task_id}\n".encode())
    return data


@kan.task("nap")
async def nap(data: bytes) -> bytes:
    await asyncio.sleep(float(data))
    return data


@kan.task("outcome")
def outcome(data: bytes) -> object:
    """Ends as ``data`` says."""
    match data.decode().split(":"):
        case ["raise", message]:
            raise ValueError(message)
        case ["exit"]:
            raise SystemExit(3)
        case ["reject"]:
            raise Reject("not today")
        case ["big", size]:
            return b"x" * int(size)
        case ["text"]:
            return "not bytes"
        case _:
            return data


@kan.task("effects")
def effects(data: bytes, ctx: Context) -> bytes:
    """A child, a side output and an event of its own; then it fails if ``data`` says so."""
    ctx.spawn(Task("echo", b"child of " + ctx.task_id.encode()))
    topic = data[5:].decode() if data.startswith(b"side:") else ctx.kantoku.topics.of_type("side")
    ctx.produce(topic, b"side", ctx.task_id.encode())
    ctx.event("image.loaded", width="7")
    if data == b"fail":
        raise RuntimeError("after the side effects")
    return data
