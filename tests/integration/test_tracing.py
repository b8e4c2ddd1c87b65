"""Traces across processes: who spawns, who executes, the children of pool process; what an OTLP collector is sent."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from access import as_user, environment_of, rights
from collector import Collector, Span, collecting
from executors import HERE, ExecutorUnderTest, until

from kantoku_kafka import Kantoku, Task, headers
from kantoku_kafka.kafka import topics

PRODUCER, CONSUMER, CLIENT = 4, 5, 3
TYPES = ("threaded", "awaited", "forked", "child", "slow")


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


@pytest.fixture(scope="module")
def traced(
    bootstrap: str, collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Kantoku, Path]]:
    """The spawning side, and the log of an executor that traces."""
    kan = Kantoku(f"t-{uuid.uuid4().hex[:8]}", **as_user(bootstrap))
    log = tmp_path_factory.mktemp("traced") / "executor.log"
    with rights(kan.namespace, map(kan.topics.of_type, TYPES)), pytest.MonkeyPatch.context() as patch:
        topics.create(kan.clients, topics.plan(kan.topics, TYPES))
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        patch.setenv("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "process")
        with ExecutorUnderTest(
            bootstrap, kan.namespace, "--otel", "--log-format", "json", log=log, app="tracing_app:kan"
        ) as executor:
            yield kan, log
            executor.kill(15)
            assert executor.wait(60) == 0
    kan.close()


def spawn(kan: Kantoku, task_type: str, collector: Collector) -> str:
    """By a process of its own; the id."""
    command = ["spawn", task_type, "data", "--otel", "-b", kan.connection.bootstrap_servers, "-n", kan.namespace]
    environment = {
        **environment_of(*command),
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "process",
    }
    done = subprocess.run(
        [sys.executable, "-m", "kantoku_kafka", *command],
        cwd=HERE, env=environment, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout.split()[0]


def one(spans: list[Span]) -> Span:
    (span,) = spans
    return span


@pytest.mark.parametrize("task_type", ["threaded", "awaited", "forked"])
def test_a_trace_joins_spawn_attempts_retry_and_result(
    traced: tuple[Kantoku, Path], collector: Collector, task_type: str
) -> None:
    kan, log = traced
    task_id = spawn(kan, task_type, collector)
    mine = {"messaging__message__id": task_id}
    until(lambda: collector.named(f"settle {task_type}", kantoku__task__outcome="OK", **mine), 60, "its result")
    until(lambda: len(collector.named(f"process {task_type}", **mine)) == 2, 60, "its attempts")
    sent, put_back = sorted(collector.named(f"send {kan.namespace}.tasks.{task_type}", **mine), key=lambda s: s.parent)
    first, second = sorted(collector.named(f"process {task_type}", **mine), key=_attempt)
    retried, ended = sorted(collector.named(f"settle {task_type}", **mine), key=_attempt)
    looks = [span for span in collector.named("look") if span.trace == sent.trace]
    child = one([span for span in collector.named(f"send {kan.namespace}.tasks.child") if span.trace == sent.trace])
    until(lambda: [s for s in collector.named("process child") if s.parent == child.id], 60, "the child's attempt")

    assert {span.trace for span in (sent, put_back, first, second, retried, ended)} == {sent.trace}
    assert sent.parent == "" and {s.parent for s in (put_back, first, second, retried, ended)} == {sent.id}
    assert [s.kind for s in (sent, put_back, first, second, ended)] == [PRODUCER, PRODUCER, CONSUMER, CONSUMER, CLIENT]
    assert (_attempt(first), _attempt(second)) == (1, 2)
    assert (first.error, second.error) == ("not yet", "")
    assert first.attributes["error.type"] == "ValueError"
    assert retried.attributes["kantoku.task.outcome"] == "retry_scheduled"
    assert {span.parent for span in looks} == {first.id, second.id}, "the function's own spans nest"
    assert child.parent == second.id, "what the failed attempt spawned was not sent"
    assert sent.process not in (first.process, put_back.process)
    assert (first.process != ended.process) == (task_type == "forked")
    assert sent.attributes["messaging.destination.name"] == f"{kan.namespace}.tasks.{task_type}"
    result = kan.wait(task_id, timeout_seconds=60)
    assert (dict(result.headers)["traceparent"] or b"").startswith(f"00-{sent.trace}-{sent.id}-".encode())
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    said = [line for line in lines if line.get("action") == "look" and line["task_id"] == task_id]
    assert {line["span_id"] for line in said} == {span.id for span in looks}
    assert {line["trace_id"] for line in said} == {sent.trace}


@pytest.mark.parametrize("task_type", ["awaited", "forked"])
def test_attempts_of_a_task_that_nobody_traced_are_one_trace(
    traced: tuple[Kantoku, Path], collector: Collector, task_type: str
) -> None:
    kan, _ = traced
    result = kan.spawn(Task(task_type, b"data")).result(60)
    mine = {"messaging__message__id": result.task_id}
    until(lambda: collector.named(f"settle {task_type}", kantoku__task__outcome="OK", **mine), 60, "its result")
    until(lambda: len(collector.named(f"process {task_type}", **mine)) == 2, 60, "its attempts")
    began = one(collector.named(f"receive {kan.namespace}.tasks.{task_type}", **mine))
    spans = [s for what in ("process", "settle") for s in collector.named(f"{what} {task_type}", **mine)]
    assert began.parent == "" and began.kind == CLIENT
    assert {(span.trace, span.parent) for span in spans} == {(began.trace, began.id)} and len(spans) == 4
    assert (dict(result.headers)["traceparent"] or b"").startswith(f"00-{began.trace}-{began.id}-".encode())


def test_an_attempt_that_is_cancelled_has_its_span(traced: tuple[Kantoku, Path], collector: Collector) -> None:
    kan, _ = traced
    task_id = spawn(kan, "slow", collector)
    mine = {"messaging__message__id": task_id}
    until(lambda: collector.named("settle slow", **mine) and collector.named("process slow", **mine), 60, "its spans")
    assert one(collector.named("settle slow", **mine)).attributes["kantoku.task.outcome"] == "TIMED_OUT"
    assert one(collector.named("process slow", **mine)).attributes["kantoku.task.status"] == "interrupted"


def test_a_task_with_a_header_that_is_no_trace_runs(traced: tuple[Kantoku, Path]) -> None:
    kan, _ = traced
    for value in (b"00-zz-zz-zz", b"\xff\xfe", b"", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01"):
        spec = Task("child", b"x").with_(headers(traceparent=value, tracestate=b"\xff=,=", baggage=b"%%%;;="))
        assert kan.spawn(spec).result(60).ok


def _attempt(span: Span) -> int:
    return int(span.attributes["kantoku.task.attempt"])
