"""Tasks without a broker: what a user's own tests rest on."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from kantoku_kafka import Context, Kantoku, Plugin, Reject, Status, Task, headers, key, labels
from kantoku_kafka.errors import WaitTimeout
from kantoku_kafka.job import Message
from kantoku_kafka.settings import ExecutorSettings
from kantoku_kafka.testing import InMemoryLog, run_tasks, runner


@pytest.fixture
def kan() -> Kantoku:
    app = Kantoku("test")

    @app.task("upper")
    def upper(data: bytes) -> bytes:
        return data.upper()

    @app.task("nap")
    async def nap(data: bytes) -> bytes:
        await asyncio.sleep(0)
        return data

    @app.task("effects")
    def effects(data: bytes, ctx: Context) -> bytes:
        ctx.spawn(Task("upper", b"child"))
        ctx.produce("side", b"k", data)
        ctx.event("image.loaded", name="x")
        if data == b"fail":
            raise ValueError("after the side effects")
        return data

    @app.task("reject", pool="inline")
    def reject(data: bytes) -> bytes:
        raise Reject("no")

    return app


def test_results_come_in_the_order_of_the_tasks(kan: Kantoku) -> None:
    tasks = [Task("upper" if n % 2 else "nap", b"a%d" % n) for n in range(200)]
    results = run_tasks(kan, tasks).results
    assert [r.data for r in results] == [b"A%d" % n if n % 2 else b"a%d" % n for n in range(200)]


def test_labels_and_headers_arrive(kan: Kantoku) -> None:
    seen: list[Any] = []

    @kan.task("look")
    def look(data: bytes, ctx: Context) -> bytes:
        seen.append((dict(ctx.labels), ctx.key, ctx.attempt, ctx.type, ctx.source.topic))
        return b""

    run = run_tasks(kan, [Task("look").with_(labels(a="1"), headers(trace="t"), key("k"))])
    assert seen == [({"a": "1"}, b"k", 1, "look", "test.tasks.look")]
    assert run.results[0].headers == (("trace", b"t"),)


def test_children_and_side_effects_of_success_only(kan: Kantoku) -> None:
    run = run_tasks(kan, [Task("effects", b"fine"), Task("effects", b"fail")])
    assert [r.status for r in run.results] == [Status.OK, Status.FAILED]
    assert [r.value for r in run.log.read("side")] == [b"fine"]
    assert [r.data for r in run.all_results if r.type == "upper"] == [b"CHILD"]
    own = [e for e in run.events if "." in e.name]
    assert [(e.task_id, e.name, e.attributes) for e in own] == [(run.results[0].task_id, "image.loaded", {"name": "x"})]


def test_garbage_and_unknown_types_are_dead_letters(kan: Kantoku) -> None:
    log = InMemoryLog()
    log.append(Message("test.tasks.upper", b"k", b"garbage", (("h", b"1"),)))
    run = run_tasks(kan, [Task("upper", b"x"), Task("reject")], log=log)
    assert [r.status for r in run.results] == [Status.OK, Status.REJECTED]
    (dead,) = run.dead_letters
    assert (dead.key, dead.value, dead.headers[0]) == (b"k", b"garbage", ("h", b"1"))
    assert ("kantoku-error-type", b"EnvelopeError") in dead.headers


def test_too_large_a_result_fails_for_itself(kan: Kantoku) -> None:
    run = run_tasks(kan, [Task("upper", b"x" * 9_000), Task("upper", b"x")], log=InMemoryLog(max_record_bytes=9_500))
    assert [(r.status, r.error.type if r.error else None) for r in run.results] == [
        (Status.FAILED, "result_too_large"),
        (Status.OK, None),
    ]


def test_an_undeliverable_side_output_fails_for_itself(kan: Kantoku) -> None:
    log = InMemoryLog(max_record_bytes=9_500)

    @kan.task("echo")
    def echo(data: bytes, ctx: Context) -> bytes:
        ctx.produce("side", b"key", b"x" * int(data))
        return b""

    results = run_tasks(kan, [Task("echo", b"9999" if n == 2 else b"1") for n in range(5)], log=log).results
    assert [r.status for r in results] == [Status.OK] * 2 + [Status.FAILED] + [Status.OK] * 2


@pytest.mark.parametrize("ordering", ["key", "partition"])
def test_orderings(kan: Kantoku, ordering: str) -> None:
    running: dict[bytes, int] = {}
    order: dict[bytes, list[int]] = {}
    lock = threading.Lock()

    @kan.task("ordered", ordering=ordering)
    def ordered(data: bytes, ctx: Context) -> bytes:
        assert ctx.key is not None
        with lock:
            assert running.get(ctx.key, 0) == 0, "two of one key at once"
            running[ctx.key] = 1
            order.setdefault(ctx.key, []).append(int(data))
        with lock:
            running[ctx.key] = 0
        return b""

    tasks = [Task("ordered", b"%d" % n).with_(key(f"k{n % 5}")) for n in range(200)]
    assert all(r.ok for r in run_tasks(kan, tasks).results)
    assert all(numbers == sorted(numbers) for numbers in order.values())
    assert sum(map(len, order.values())) == 200


def test_concurrency_of_a_type_is_kept(kan: Kantoku) -> None:
    now, most = 0, 0
    lock = threading.Lock()
    both = threading.Barrier(2, timeout=5)

    @kan.task("limited", concurrency=2)
    def limited(data: bytes) -> bytes:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        both.wait()  # two do run at once
        with lock:
            now -= 1
        return b""

    assert all(r.ok for r in run_tasks(kan, [Task("limited")] * 20).results)
    assert most == 2


def test_the_order_of_hooks() -> None:
    calls: list[str] = []

    class Recorder(Plugin):
        def before_initialized(self, ctx: Any) -> None:
            calls.append("before_initialized")

        def after_initialized(self, ctx: Any) -> None:
            calls.append("after_initialized")
            raise RuntimeError("changes nothing")

        def before_scheduled(self, ctx: Any) -> None:
            calls.append("before_scheduled")

        def after_scheduled(self, ctx: Any) -> None:
            calls.append("after_scheduled")

        def before_execute(self, ctx: Any) -> None:
            calls.append("before_execute")
            if ctx.envelope.data == b"veto":
                raise PermissionError("not this one")

        def after_execute(self, ctx: Any) -> None:
            calls.append(f"after_execute {ctx.status}")

    app = Kantoku("test", plugins=[Recorder()])

    @app.task("echo", pool="inline")
    def echo(data: bytes) -> bytes:
        calls.append("run")
        return data

    run_tasks(app, [Task("echo", b"x")])
    creation = ["before_initialized", "after_initialized", "before_scheduled", "after_scheduled"]
    assert calls == [*creation, "before_execute", "run", "after_execute OK"]
    calls.clear()
    (vetoed,) = run_tasks(app, [Task("echo", b"veto")]).results
    assert vetoed.status is Status.REJECTED
    assert vetoed.error is not None and "not this one" in vetoed.error.message
    assert calls == [*creation, "before_execute", "after_execute REJECTED"]


def test_the_hooks_of_the_app_run_around_all_tasks_in_the_thread_of_the_loop() -> None:
    app = Kantoku("test")
    calls: list[tuple[str, int]] = []

    def note(word: str) -> None:
        calls.append((word, threading.get_ident()))

    app.on_startup(lambda: note("up"))
    app.on_startup(lambda: note("up too"))
    app.on_shutdown(lambda: note("down"))

    @app.task("note", pool="inline")
    def of_a_task(data: bytes) -> bytes:
        note("task")
        return data

    assert all(result.ok for result in run_tasks(app, [Task("note")] * 2).results)
    assert [word for word, _ in calls] == ["up", "up too", "task", "task", "down"]
    assert len({thread for _, thread in calls}) == 1


def test_the_time_of_startup_hooks_is_not_that_of_the_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(runner, "time", SimpleNamespace(monotonic=lambda: now[0]))
    app = Kantoku("test")
    app.task("echo")(bytes)

    @app.on_startup
    def load() -> None:
        now[0] += 100.0

    assert run_tasks(app, [Task("echo", b"x")]).results[0].ok


@pytest.mark.parametrize("when", ["on_startup", "on_shutdown"])
def test_what_a_hook_of_the_app_raises_is_raised(when: str) -> None:
    app = Kantoku("test")
    app.task("echo")(bytes)

    def hook() -> None:
        raise LookupError("no model")

    getattr(app, when)(hook)
    with pytest.raises(LookupError, match="no model"):
        run_tasks(app, [Task("echo")])


def test_a_task_that_does_not_end() -> None:
    app = Kantoku("test")
    release = threading.Event()

    @app.task("stuck")
    def stuck(data: bytes) -> bytes:
        release.wait(20)
        return b""

    with pytest.raises(WaitTimeout):
        run_tasks(app, [Task("stuck")], timeout_seconds=0.05, settings=ExecutorSettings(drain_seconds=0.0))
    release.set()
