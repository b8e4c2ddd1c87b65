"""Plugins: the order of the hooks, who may veto, and what happens to those that fail. No Kafka."""

from __future__ import annotations

import logging

import pytest

from kantoku_kafka import Kantoku, Task, idempotency_key, labels, logger
from kantoku_kafka.context import Context
from kantoku_kafka.errors import NonRetryable
from kantoku_kafka.invoke import Invoker
from kantoku_kafka.job import Job, Partition
from kantoku_kafka.model import Status
from kantoku_kafka.plugins import Plugin, SpawnContext, run_after
from kantoku_kafka.spawning import prepare

CREATION = ("before_initialized", "after_initialized", "before_scheduled", "after_scheduled")


class Recorder(Plugin):
    """Notes every call; raises where it is told to."""

    def __init__(self, name: str, calls: list[str], fails_at: str = "", error: Exception | None = None) -> None:
        self.name, self.calls, self.fails_at = name, calls, fails_at
        self.error = error or ValueError("no")

    def step(self, hook: str) -> None:
        self.calls.append(f"{self.name}.{hook}")
        if hook == self.fails_at:
            raise self.error

    def initialize(self, kantoku: Kantoku) -> None:
        self.step("initialize")

    def before_initialized(self, ctx: SpawnContext) -> None:
        assert ctx.envelope is None
        self.step("before_initialized")

    def after_initialized(self, ctx: SpawnContext) -> None:
        assert ctx.envelope is not None
        self.step("after_initialized")

    def before_scheduled(self, ctx: SpawnContext) -> None:
        self.step("before_scheduled")

    def after_scheduled(self, ctx: SpawnContext) -> None:
        self.step("after_scheduled")

    def before_execute(self, ctx: Context) -> None:
        assert ctx.status is None
        self.step("before_execute")

    def after_execute(self, ctx: Context) -> None:
        self.step(f"after_execute {ctx.status}")


def app(*plugins: Plugin) -> Kantoku:
    kan = Kantoku("shop", plugins=plugins)

    @kan.task("upper")
    def upper(data: bytes) -> bytes:
        return data.upper()

    return kan


def create(kan: Kantoku, task: Task) -> SpawnContext:
    ctx, _ = prepare(kan, task)
    run_after(ctx.hooks.after_scheduled, ctx)
    return ctx


def run(kan: Kantoku, task: Task | None = None) -> Job:
    _, message = prepare(kan, task or Task("upper", b"data"))
    job = Job(Partition("shop.tasks.upper", 0, 1), 7, message.key, message.value, message.headers)
    job.read(kan.codec.peek_task)
    Invoker(kan).run(job)
    return job


def test_hooks_run_step_by_step_in_the_order_of_registration() -> None:
    calls: list[str] = []
    create(app(Recorder("a", calls), Recorder("b", calls)), Task("upper"))
    assert calls == [f"{name}.{hook}" for hook in ("initialize", *CREATION) for name in "ab"]


def test_options_come_before_the_first_hook() -> None:
    seen = []

    class Looks(Plugin):
        def before_initialized(self, ctx: SpawnContext) -> None:
            seen.append((ctx.id, dict(ctx.labels)))
            ctx.labels["added"] = "yes"

        def after_initialized(self, ctx: SpawnContext) -> None:
            ctx.labels["late"] = "ignored"

    kan = app(Looks())
    ctx, message = prepare(kan, Task("upper").with_(labels(a="1"), idempotency_key("k")))
    assert seen == [(ctx.id, {"a": "1"})]
    assert kan.codec.decode_task(message.value).labels["added"] == "yes"
    assert "late" not in kan.codec.decode_task(message.value).labels


@pytest.mark.parametrize("hook", ["before_initialized", "before_scheduled"])
def test_a_before_hook_vetoes_and_nobody_after_it_is_asked(hook: str) -> None:
    calls: list[str] = []
    kan = app(Recorder("a", calls, hook), Recorder("b", calls))
    with pytest.raises(ValueError, match="no"):
        create(kan, Task("upper"))
    assert calls[-1] == f"a.{hook}"
    assert f"b.{hook}" not in calls


@pytest.mark.parametrize("hook", ["after_initialized", "after_scheduled"])
def test_an_after_hook_that_raises_is_logged_and_changes_nothing(hook: str, caplog: pytest.LogCaptureFixture) -> None:
    calls: list[str] = []
    create(app(Recorder("a", calls, hook), Recorder("b", calls)), Task("upper"))
    assert calls[-1] == "b.after_scheduled"
    assert f"b.{hook}" in calls
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.__dict__["action"] == "hook"
    assert record.__dict__["hook"] == f"Recorder.{hook}"


def test_execution_hooks_surround_the_function() -> None:
    calls: list[str] = []
    job = run(app(Recorder("a", calls), Recorder("b", calls)))
    assert (job.status, job.output) == (Status.OK, b"DATA")
    assert calls[-4:] == ["a.before_execute", "b.before_execute", "a.after_execute OK", "b.after_execute OK"]


def test_a_veto_before_execution_is_rejected_and_the_function_never_runs() -> None:
    calls: list[str] = []
    job = run(app(Recorder("a", calls, "before_execute"), Recorder("b", calls)))
    assert job.status is Status.REJECTED
    assert job.output == b""
    assert job.error is not None
    assert (job.error.type, job.error.message) == ("Reject", "ValueError: no")
    assert calls[-3:] == ["a.before_execute", "a.after_execute REJECTED", "b.after_execute REJECTED"]


def test_a_veto_may_choose_the_outcome() -> None:
    job = run(app(Recorder("a", [], "before_execute", NonRetryable("never"))))
    assert job.status is Status.FAILED
    assert job.error is not None
    assert (job.error.type, job.error.retryable) == ("NonRetryable", False)


def test_what_an_after_execute_hook_raises_leaves_the_result(caplog: pytest.LogCaptureFixture) -> None:
    job = run(app(Recorder("a", [], "after_execute OK")))
    assert (job.status, job.output) == (Status.OK, b"DATA")
    assert [record.__dict__["hook"] for record in caplog.records] == ["Recorder.after_execute"]


def test_hooks_that_nobody_overrides_cost_nothing() -> None:
    kan = Kantoku("shop", plugins=[Plugin()])
    assert kan.hooks_without_options.before_initialized == []
    assert not kan.hooks.around_execute


def test_log_everything_logs_and_notes_each_step(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "kantoku_kafka.logger")
    kan = app(logger.ExecutionLogger())
    task = Task("upper", b"x").with_(logger.log_everything())
    ctx = create(kan, task)
    assert ctx.log == ["before initialization", "initialized", "before scheduling", "scheduled"]
    assert [record.__dict__["action"] for record in caplog.records] == ctx.log
    assert {record.__dict__["task_id"] for record in caplog.records} == {ctx.id}
    caplog.clear()
    job = run(kan, task)
    actions = [record.__dict__["action"] for record in caplog.records if record.__dict__["task_id"] == job.task_id]
    assert actions[-2:] == ["executing", "executed: OK"]


def test_tasks_that_do_not_ask_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    kan = app(logger.ExecutionLogger())
    for task in (Task("upper"), Task("upper").with_(labels(a="1"))):
        assert create(kan, task).log == []
        run(kan, task)
    assert caplog.records == []
