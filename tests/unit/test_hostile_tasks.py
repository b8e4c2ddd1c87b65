"""Task functions that do what no function should: each has its own result, and the executor goes on."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from kantoku_kafka import Context, Kantoku, Plugin, Retry, Retryable, Status, Task
from kantoku_kafka.job import Job
from kantoku_kafka.pools import threads
from kantoku_kafka.settings import ExecutorSettings
from kantoku_kafka.testing import run_tasks


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Strict(Exception):
    """Knows nothing but its payload, not even what every exception may be asked for."""

    def __init__(self, payload: dict[str, Any]) -> None:
        super().__init__("strict")
        self.payload = payload

    def __getattr__(self, name: str) -> Any:
        return self.payload[name]


class Leaving(Exception):
    def __str__(self) -> str:
        sys.exit(3)


class Unsure(Retryable):
    @property
    def after_seconds(self) -> float:  # type: ignore[override]  # that is the point
        raise RuntimeError("who knows")

    @after_seconds.setter
    def after_seconds(self, _: float | None) -> None:
        """As the constructor does."""


def cancelled(_: bytes) -> bytes:
    raise asyncio.CancelledError


def interrupted(_: bytes) -> bytes:
    raise KeyboardInterrupt


def generator_exit(_: bytes) -> bytes:
    raise GeneratorExit


def mute(_: bytes) -> bytes:
    raise Mute


def strict(_: bytes) -> bytes:
    raise Strict({})


def leaving(_: bytes) -> bytes:
    raise Leaving


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


def unsure(_: bytes) -> bytes:
    raise Unsure


PLAIN = [cancelled, interrupted, generator_exit, mute, strict, leaving]
AGAIN = [forgetful, told_when_in_words, unsure]
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


def test_what_a_strict_exception_says_is_kept() -> None:
    app = Kantoku("test")
    app.task("bad")(strict)
    (result,) = run_tasks(app, [Task("bad")]).results
    assert result.error is not None
    assert (result.error.type, result.error.message, result.error.retryable) == ("Strict", "strict", False)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ends_keeps_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(job: Job, error: BaseException) -> None:
        raise error

    monkeypatch.setattr(threads, "fail", fail)
    app = Kantoku("test")
    app.task("bad")(interrupted)
    app.task("fine")(bytes)
    results = run_tasks(app, [Task("bad"), Task("fine")], settings=ExecutorSettings(concurrency=2)).results
    assert [result.status for result in results] == [Status.CRASHED, Status.OK]


@pytest.mark.parametrize("pool", ["thread", "inline", "asyncio"])
def test_a_context_variable_is_one_tasks_own_and_its_hooks(pool: str) -> None:
    variable = contextvars.ContextVar("variable", default=b"nothing")

    class Sets(Plugin):
        def before_execute(self, ctx: Context) -> None:
            self.before = variable.get()
            self.token = variable.set(b"of the hook")

        def after_execute(self, ctx: Context) -> None:
            after.append((self.before, variable.get()))
            variable.reset(self.token)

    def look(data: bytes) -> bytes:
        seen = variable.get()
        variable.set(data)
        return seen

    async def coroutine(data: bytes) -> bytes:
        return look(data)

    after: list[tuple[bytes, bytes]] = []
    for plugins, expected in (([], b"nothing"), ([Sets()], b"of the hook")):
        app = Kantoku("test", plugins=plugins)
        app.task("look", pool=pool)(coroutine if pool == "asyncio" else look)
        tasks = [Task("look", b"%d" % n) for n in range(3)]
        results = run_tasks(app, tasks, settings=ExecutorSettings(concurrency=1)).results
        assert [result.data for result in results] == [expected] * 3
    assert sorted(after) == [(b"nothing", b"%d" % n) for n in range(3)]


FORKS = """
import os, signal, sys
from kantoku_kafka import Kantoku, Task
from kantoku_kafka.settings import ExecutorSettings
from kantoku_kafka.testing import run_tasks

kan = Kantoku("test")

def fork(data):
    copy = os.fork()
    if copy != 0:
        return str(os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])).encode()
    signal.alarm(10)  # no later, whatever becomes of it
    sys.exit() if data == b"exit" else None
    return data

async def coroutine(data):
    return fork(data)

kan.task("fork", pool=sys.argv[1])(coroutine if sys.argv[1] == "asyncio" else fork)
kan.task("where", pool="inline" if sys.argv[1] == "asyncio" else sys.argv[1])(lambda _: print(os.getpid()) or b"")
tasks = [Task("fork", b"exit"), Task("fork", b"return"), *[Task("where")] * 3]
results = run_tasks(kan, tasks, settings=ExecutorSettings(concurrency=1), timeout_seconds=30).results
print(os.getpid(), *(result.data.decode() for result in results))
"""


@pytest.mark.parametrize("pool", ["thread", "inline", "asyncio"])
def test_a_forked_copy_that_leaves_its_function_goes_no_further(pool: str) -> None:
    done = subprocess.run([sys.executable, "-c", FORKS, pool], capture_output=True, text=True, timeout=60)
    *where, last = done.stdout.splitlines()
    own, *answers = last.split()
    assert (where, answers) == ([own] * 3, ["0", "0"]), done.stderr


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
