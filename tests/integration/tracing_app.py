"""The app that the tests of tracing run."""

from __future__ import annotations

import asyncio
import logging

from opentelemetry import trace

from kantoku_kafka import Context, Kantoku, Retry, Task

kan = Kantoku("test")
_log = logging.getLogger(__name__)
_tracer = trace.get_tracer(__name__)


def fails_once(ctx: Context) -> None:
    """A span of the function's own, a line in the log, and no luck the first time."""
    with _tracer.start_as_current_span("look"):
        _log.warning("looking", extra={"action": "look", "task_id": ctx.task_id})
    if ctx.attempt == 1:
        raise ValueError("not yet")


RETRY = Retry(max_attempts=2, initial_seconds=0.05, jitter=0)


@kan.task("threaded", retry=RETRY)
def threaded(data: bytes, ctx: Context) -> bytes:
    fails_once(ctx)
    ctx.spawn(Task("child", data))
    return data


@kan.task("awaited", retry=RETRY)
async def awaited(data: bytes, ctx: Context) -> bytes:
    await asyncio.sleep(0)
    fails_once(ctx)
    ctx.spawn(Task("child", data))
    return data


@kan.task("forked", retry=RETRY, pool="process")
def forked(data: bytes, ctx: Context) -> bytes:
    fails_once(ctx)
    ctx.spawn(Task("child", data))
    return data


@kan.task("child", pool="inline")
def child(data: bytes) -> bytes:
    return data


@kan.task("slow", timeout_seconds=0.5)
async def slow(data: bytes) -> bytes:
    await asyncio.sleep(600)
    return data
