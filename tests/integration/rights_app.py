"""Tasks that need every right that an executor has."""

from __future__ import annotations

from kantoku_kafka import Context, Kantoku, Retry, Task

kan = Kantoku("rights")


@kan.task("echo", pool="inline", priorities={"high": 2})
def echo(data: bytes) -> bytes:
    return data


@kan.task("parent")
def parent(data: bytes, ctx: Context) -> bytes:
    """Spawns a child; its id is the result."""
    ctx.event("child.made")
    return ctx.spawn(Task("echo", data)).encode()


@kan.task("flaky", retry=Retry(max_attempts=3, initial_seconds=0.1, max_seconds=0.2))
def flaky(data: bytes, ctx: Context) -> bytes:
    """Fails until the attempt whose number is its data."""
    if ctx.attempt < int(data):
        raise ConnectionError(f"attempt {ctx.attempt}")
    return b"%d" % ctx.attempt
