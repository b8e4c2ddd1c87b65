"""Tasks of an app whose seal is in the environment; each notes that it ran, and with which data."""

from __future__ import annotations

import os

from kantoku_kafka import Context, Kantoku, Retry, Task

kan = Kantoku("sealed")


def note(ctx: Context, data: bytes) -> None:
    """One line in one write."""
    descriptor = os.open(os.environ["NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{ctx.type} {data.decode()}\n".encode())
    os.close(descriptor)


@kan.task("noted", pool="inline")
def noted(data: bytes, ctx: Context) -> bytes:
    note(ctx, data)
    return data


@kan.task("flaky", retry=Retry(max_attempts=3, initial_seconds=0.1, max_seconds=0.1))
def flaky(data: bytes, ctx: Context) -> bytes:
    """Fails until the attempt whose number is its data."""
    if ctx.attempt < int(data):
        raise ConnectionError(f"attempt {ctx.attempt}")
    note(ctx, data)
    return b"%d" % ctx.attempt


@kan.task("pooled", pool="process")
def pooled(data: bytes, ctx: Context) -> bytes:
    """Spawns a child from a process that has imported this app by itself."""
    ctx.spawn(Task("noted", b"child of " + data))
    note(ctx, data)
    return data
