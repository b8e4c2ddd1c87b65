"""Task functions that do what no function should: each has its own result, and the executor goes on."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import Any

import pytest

from kantoku_kafka import Context, Kantoku, Plugin, Retry, Retryable, Status, Task
from kantoku_kafka.settings import ExecutorSettings
from kantoku_kafka.testing import run_tasks


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def cancelled(_: bytes) -> bytes:
    raise asyncio.CancelledError


def interrupted(_: bytes) -> bytes:
    raise KeyboardInterrupt


def generator_exit(_: bytes) -> bytes:
    raise GeneratorExit


def mute(_: bytes) -> bytes:
    raise Mute


def event_of_a_number(_: bytes, ctx: Context) -> bytes:
    ctx.event("image.loaded", size=5)  # type: ignore[arg-type]  # that is the point
    return b""


def event_of_a_surrogate(_: bytes, ctx: Context) -> bytes:
    ctx.event("image.loaded", path="\udcff")
    return b""


def header_of_a_number(_: bytes, ctx: Context) -> bytes:
    ctx.produce("side", None, b"", headers=(("h", 5),))  # type: ignore[arg-type]  # that is the point
    return b""


def headers_in_a_dict(_: bytes, ctx: Context) -> bytes:
    ctx.produce("side", None, b"", headers={"h": b"v"})  # type: ignore[arg-type]  # that is the point
    return b""


def topic_that_is_none(_: bytes, ctx: Context) -> bytes:
    ctx.produce("side/way", None, b"")
    return b""


class Forgetful(Retryable):
    """Does not call the constructor above it."""

    def __init__(self, code: int) -> None:
        self.code = code


def forgetful(_: bytes) -> bytes:
    raise Forgetful(429)


def told_when_in_words(_: bytes) -> bytes:
    error = Retryable("too many requests")
    error.after_seconds = "30"  # type: ignore[assignment]  # a header of HTTP
    raise error


PLAIN = [cancelled, interrupted, generator_exit, mute]
AGAIN = [forgetful, told_when_in_words]
STAGING = [event_of_a_number, event_of_a_surrogate, header_of_a_number, headers_in_a_dict, topic_that_is_none]


def check(app: Kantoku, bad: str, count: int = 8) -> None:
    @app.task("fine")
    def fine(data: bytes) -> bytes:
        return data

    tasks = [Task(bad), Task("fine", b"x")] * count
    results = run_tasks(app, tasks, settings=ExecutorSettings(concurrency=2)).results
    assert [r.status for r in results] == [Status.FAILED, Status.OK] * count
    assert all(r.error is not None and r.error.type for r in results[::2])


@pytest.mark.parametrize("function", [*PLAIN, *STAGING], ids=lambda f: f.__name__)
def test_in_threads(function: Callable[..., bytes]) -> None:
    app = Kantoku("test")
    app.task("bad", pool="thread")(function)
    check(app, "bad")


@pytest.mark.parametrize("function", [f for f in [*PLAIN, *STAGING] if f is not interrupted], ids=lambda f: f.__name__)
def test_in_the_loop_itself(function: Callable[..., bytes]) -> None:
    app = Kantoku("test")
    app.task("bad", pool="inline")(function)
    check(app, "bad")


@pytest.mark.parametrize("function", [*PLAIN, *STAGING], ids=lambda f: f.__name__)
def test_as_coroutines(function: Callable[..., bytes]) -> None:
    app = Kantoku("test")

    @app.task("bad")
    async def bad(data: bytes, ctx: Context) -> bytes:
        await asyncio.sleep(0)
        return function(data) if function in PLAIN else function(data, ctx)

    check(app, "bad")


@pytest.mark.parametrize("pool", ["thread", "inline", "asyncio"])
@pytest.mark.parametrize("function", AGAIN, ids=lambda f: f.__name__)
def test_what_asks_to_be_tried_again_is(function: Callable[..., bytes], pool: str) -> None:
    app = Kantoku("test")

    async def coroutine(data: bytes) -> bytes:
        return function(data)

    register = app.task("bad", pool=pool, retry=Retry(max_attempts=2, initial_seconds=0))
    register(coroutine if pool == "asyncio" else function)
    results = run_tasks(app, [Task("bad")] * 8, settings=ExecutorSettings(concurrency=2)).results
    assert [(r.status, r.attempt) for r in results] == [(Status.FAILED, 2)] * 8


class Leaves(Plugin):
    def after_execute(self, ctx: Context) -> None:
        sys.exit(3)


def test_a_hook_that_exits_costs_no_thread() -> None:
    app = Kantoku("test", plugins=[Leaves()])
    app.task("echo", pool="thread")(bytes)
    results = run_tasks(app, [Task("echo", b"x")] * 8, settings=ExecutorSettings(concurrency=2)).results
    assert len(results) == 8


def test_a_background_task_that_exits_ends_no_event_loop(caplog: pytest.LogCaptureFixture) -> None:
    app = Kantoku("test")
    background: set[Any] = set()

    @app.task("starts")
    async def starts(data: bytes) -> bytes:
        async def leave() -> None:
            sys.exit(3)

        background.add(asyncio.ensure_future(leave()))
        await asyncio.sleep(0.01)
        return data

    with caplog.at_level(logging.CRITICAL):
        results = run_tasks(app, [Task("starts", b"%d" % n) for n in range(6)]).results
    assert [r.data for r in results] == [b"%d" % n for n in range(6)]
    for task in background:
        with pytest.raises(SystemExit):
            task.result()
