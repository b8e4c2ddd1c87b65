"""The trace of a task in the headers of its record. No Kafka, and nothing is exported."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import TracerProvider, sampling
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from kantoku_kafka import Kantoku, Task, headers
from kantoku_kafka.context import Context
from kantoku_kafka.invoke import Invoker
from kantoku_kafka.job import Job, Partition
from kantoku_kafka.meter import Committed, Meters
from kantoku_kafka.model import SIGNATURE, Status
from kantoku_kafka.observability.tracing import Tracing
from kantoku_kafka.plugins import run_after
from kantoku_kafka.spawning import prepare

PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Traced:
    """An app that traces, and what it has exported."""

    def __init__(self, sampler: sampling.Sampler = sampling.ALWAYS_ON) -> None:
        self.spans = InMemorySpanExporter()
        provider = TracerProvider(sampler)
        provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.kan = Kantoku("shop", plugins=[Tracing(provider)])
        self.current: list[trace.SpanContext] = []

        @self.kan.task("work")
        def work(data: bytes, ctx: Context) -> bytes:
            self.current.append(trace.get_current_span().get_span_context())
            return data

    def spawn(self, task: Task) -> dict[str, bytes | None]:
        ctx, message = prepare(self.kan, task)
        run_after(ctx.hooks.after_scheduled, ctx)
        return dict(message.headers)

    def job(self, *found: tuple[str, bytes | None]) -> Job:
        _, message = prepare(self.kan, Task("work", b"data"))
        job = Job(Partition("shop.tasks.work", 0, 1), 0, message.key, message.value or b"", found)
        job.read(self.kan.codec.peek_task)
        return job

    def run(self, *found: tuple[str, bytes | None]) -> Job:
        job = self.job(*found)
        Invoker(self.kan).run(job)
        return job


def test_a_spawn_begins_a_trace_and_its_task_goes_on_with_it() -> None:
    traced = Traced()
    sent = traced.spawn(Task("work"))
    job = traced.run(*sent.items())
    send, process = traced.spans.get_finished_spans()
    assert process.parent is not None and process.parent.span_id == send.context.span_id
    assert process.context.trace_id == send.context.trace_id == traced.current[0].trace_id
    assert traced.current[0].span_id == process.context.span_id, "the function runs within it"
    assert job.status is Status.OK
    assert not trace.get_current_span().get_span_context().is_valid, "and nobody else does"


def test_a_spawn_goes_on_with_the_trace_of_its_caller_and_else_of_its_headers() -> None:
    traced = Traced()
    of_headers = traced.spawn(Task("work").with_(headers(traceparent=PARENT, tracestate=b"a=1", other=b"x")))
    assert (of_headers["traceparent"] or b"").startswith(PARENT[:36])
    assert of_headers["traceparent"] != PARENT and of_headers["tracestate"] == b"a=1" and of_headers["other"] == b"x"
    with TracerProvider().get_tracer("test").start_as_current_span("caller") as caller:
        of_caller = traced.spawn(Task("work").with_(headers(traceparent=PARENT, tracestate=b"a=1")))
    assert f"{caller.get_span_context().trace_id:032x}".encode() in (of_caller["traceparent"] or b"")
    assert "tracestate" not in of_caller, "that was another trace's"


def test_without_a_provider_headers_go_through_as_they_are() -> None:
    kan = Kantoku("shop", plugins=[Tracing(trace.NoOpTracerProvider())])
    _, message = prepare(kan, Task("work").with_(headers(traceparent=PARENT, other=b"x")))
    assert dict(message.headers) == {"traceparent": PARENT, "other": b"x"}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["traceparent", "tracestate", "baggage", "TraceParent"]) | st.text(max_size=9),
            st.none() | st.binary(max_size=80) | st.just(PARENT),
        ),
        max_size=5,
    )
)
def test_whatever_the_headers_say_the_task_runs(found: list[tuple[str, bytes | None]]) -> None:
    traced = Traced()
    assert traced.run(*found).status is Status.OK
    assert len(traced.spans.get_finished_spans()) == 1


def test_a_sampler_that_fails_vetoes_nothing() -> None:
    class Broken(sampling.Sampler):
        def should_sample(self, *_: object, **__: object) -> sampling.SamplingResult:
            raise ValueError("no")

        def get_description(self) -> str:
            return "broken"

    traced = Traced(Broken())
    assert traced.spawn(Task("work")) == {}
    assert traced.run().status is Status.OK


def test_a_schedule_is_no_trace() -> None:
    traced = Traced()
    _, message = prepare(traced.kan, Task("work"), is_template=True)
    assert message.headers == ()
    assert traced.spans.get_finished_spans() == ()


def test_a_record_that_was_not_believed_has_no_span_and_its_neighbours_have() -> None:
    traced = Traced()
    done = [traced.run(("traceparent", PARENT)) for _ in range(2)]
    for job in done:
        job.received_at_us = 1
    distrusted = Job(done[0].partition, 7, b"key", done[0].value, (("traceparent", PARENT),))
    distrusted.read(traced.kan.codec.peek_task)  # it is not signed, say: buried, never received
    traced.spans.clear()
    checkpoint = Committed([distrusted, *done], 0, 0, 0.0)
    Meters(traced.kan.meters).tell(lambda meter, loop: meter.committed(loop, checkpoint))
    assert [span.name for span in traced.spans.get_finished_spans()] == ["settle work", "settle work"]


@pytest.mark.parametrize(
    "found", [(), (("traceparent", b"00-1"), ("other", b"x")), (("traceparent", b""), ("baggage", b"tenant=42"))]
)
def test_a_trace_begins_where_a_task_is_received_that_nobody_has_traced(found: tuple[tuple[str, bytes], ...]) -> None:
    traced = Traced()
    job, meters = traced.job(*found), Meters(traced.kan.meters)
    for _ in range(2):  # of what is traced, none begins
        meters.tell(lambda meter, loop: meter.received(loop, [job]))
    Invoker(traced.kan).run(job)
    job.received_at_us = 1
    meters.tell(lambda meter, loop: meter.committed(loop, Committed([job], 0, 0, 0.0)))
    receive, process, settle = traced.spans.get_finished_spans()
    assert (receive.name, receive.parent) == ("receive shop.tasks.work", None)
    for span in (process, settle):
        assert span.parent is not None and span.parent.span_id == receive.context.span_id
    kept = dict(job.result("executor").headers)
    assert f"{receive.context.trace_id:032x}".encode() in (kept.pop("traceparent") or b"")
    assert kept == dict(found[1:])


def test_headers_that_a_signature_covers_are_added_to_no_signed_task(monkeypatch: pytest.MonkeyPatch) -> None:
    class Named(TraceContextTextMapPropagator):
        fields = frozenset({"traceparent", "own"})  # type: ignore[assignment]  # there it is a property

    monkeypatch.setattr(propagate, "get_global_textmap", Named)
    traced = Traced()
    signed, plain = traced.job((SIGNATURE, b"1.task.k.-.x")), traced.job()
    Meters(traced.kan.meters).tell(lambda meter, loop: meter.received(loop, [signed, plain]))
    assert dict(signed.raw_headers or ()).keys() == {SIGNATURE}
    assert dict(plain.raw_headers or ()).keys() == {"traceparent"}


def test_what_a_function_raises_stands_in_its_span() -> None:
    traced = Traced()

    @traced.kan.task("fails")
    def fails(data: bytes) -> bytes:
        raise ValueError("no luck")

    _, message = prepare(traced.kan, Task("fails"))
    job = Job(Partition("shop.tasks.fails", 0, 1), 0, message.key, message.value or b"", message.headers)
    job.read(traced.kan.codec.peek_task)
    Invoker(traced.kan).run(job)
    (span,) = traced.spans.get_finished_spans()
    assert span.attributes is not None
    assert span.status.description == "no luck" and span.attributes["error.type"] == "ValueError"
    assert span.attributes["kantoku.task.status"] == "FAILED"
    (event,) = span.events
    assert event.attributes is not None and "Traceback" in str(event.attributes["exception.stacktrace"])


def test_without_the_extra_the_sentence_names_it() -> None:
    program = """
import sys
sys.modules["opentelemetry"] = None
from kantoku_kafka.cli.main import main
main(["spawn", "work", "data", "--otel"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, "error: Traces need an extra: pip install 'kantoku-kafka[otel]'.\n")


@pytest.mark.parametrize(
    ("name", "value"), [("OTEL_PROPAGATORS", "nobodys"), ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1000000")]
)
def test_variables_that_cannot_be_end_a_command_with_a_sentence(name: str, value: str) -> None:
    command = [sys.executable, "-m", "kantoku_kafka", "-b", "127.0.0.1:1", "spawn", "work", "x", "--otel"]
    done = subprocess.run(command, env={**os.environ, name: value}, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("error: ") and "OTEL_" in done.stderr
