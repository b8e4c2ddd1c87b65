"""OpenTelemetry traces of tasks (extra ``otel``), by the semantic conventions for messaging.

One trace holds all of a task, for its context travels in the headers ``traceparent`` and ``tracestate`` of its record,
through timers too:

    send TOPIC (producer)        a task is handed to the client, or put onto its input by a timer
    receive TOPIC (client)       else: a task has come in that nobody has begun a trace for
      process TYPE (consumer)    one attempt; the function runs within it, and what it spawns is part of the trace
      settle TYPE (client)       what became of the attempt is in the topics: a result, or a retry

``process`` is lost where the process that runs the function is killed; ``settle`` tells of it all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import wraps
from importlib.metadata import version
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

from kantoku_kafka.errors import UsageError
from kantoku_kafka.job import Job, Message
from kantoku_kafka.meter import TASKS, TIMERS, Committed, Meter
from kantoku_kafka.model import OF_TRACING, SIGNATURE, ErrorInfo, Headers, Source
from kantoku_kafka.plugins import Plugin, SpawnContext

try:
    from opentelemetry import context, propagate, trace
    from opentelemetry.context import Context as Surroundings
except ImportError as error:
    raise UsageError("Traces need an extra: pip install 'kantoku-kafka[otel]'.") from error
except ValueError as error:  # a propagator that is not installed
    raise UsageError(f"OTEL_PROPAGATORS cannot be: {error}") from error

if TYPE_CHECKING:
    from kantoku_kafka.app import Kantoku
    from kantoku_kafka.context import Context

__all__ = ["Tracing", "flush", "trace_app"]

_log = logging.getLogger(__name__)
_FLUSH_MS = 5_000
Hooked = TypeVar("Hooked")


@runtime_checkable
class _Flushing(Protocol):
    """A provider of the SDK."""

    def force_flush(self, timeout_millis: int) -> bool: ...


def _harmless(hook: Callable[[Tracing, Hooked], None]) -> Callable[[Tracing, Hooked], None]:
    """What a before hook raises is a veto: no sampler and no propagator of somebody else's has one."""

    @wraps(hook)
    def guarded(self: Tracing, ctx: Hooked) -> None:
        try:
            hook(self, ctx)
        except Exception:  # noqa: BLE001 - the task goes on without its span
            _log.warning("a span could not be begun", exc_info=True, extra={"action": "trace"})

    return guarded


class Tracing(Plugin, Meter):
    """A plugin for both sides: ``Kantoku(..., plugins=[Tracing()])``, or ``--otel`` on the command line. Thread-safe.

    Parameters:
        provider: makes the spans; default: the one that the program has set, whenever it does.

    Raises (import of the module):
        UsageError: the extra ``otel`` is not installed.
    """

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("kantoku_kafka", version("kantoku-kafka"), provider)
        self._attempt: ContextVar[trace.Span | None] = ContextVar("attempt", default=None)

    # --- where tasks are spawned

    @_harmless
    def before_scheduled(self, ctx: SpawnContext) -> None:
        if ctx.is_template:  # each of its tasks is a trace of its own
            return
        topic = ctx.topic or ctx.kantoku.topics.of_type(ctx.type)
        within = context.get_current()
        if not _is_traced(within):
            within = _extracted(ctx.headers)
        attributes = _attributes("send", topic, ctx.id, ctx.type)
        span = self._tracer.start_span(f"send {topic}", within, trace.SpanKind.PRODUCER, attributes)
        ctx.headers = _injected(ctx.headers, trace.set_span_in_context(span, within))
        ctx.bag[self] = span

    def after_scheduled(self, ctx: SpawnContext) -> None:
        span = ctx.bag.pop(self, None)
        if span is not None:
            span.end()

    # --- where they run

    def received(self, loop: str, jobs: Sequence[Job]) -> None:  # noqa: ARG002 - there is one that receives
        signatures_stay_good = propagate.get_global_textmap().fields <= OF_TRACING
        for job in jobs:
            may_begin = signatures_stay_good or SIGNATURE not in dict(job.raw_headers or ())
            if may_begin and not _is_traced(_extracted(job.headers)):
                self._begin(job)

    def _begin(self, job: Job) -> None:
        """A trace, for all attempts and the result to be in: from here on the record is as if it had come with it."""
        within, topic = _extracted(job.headers), job.partition.topic  # no trace, but maybe baggage
        attributes = _attributes("receive", topic, job.task_id, job.type) | _place(job.source, job.attempt)
        span = self._tracer.start_span(f"receive {topic}", within, trace.SpanKind.CLIENT, attributes)
        job.raw_headers = _injected(tuple(job.raw_headers or ()), trace.set_span_in_context(span, within))
        span.end()

    @_harmless
    def before_execute(self, ctx: Context) -> None:
        within = _extracted(ctx.headers)
        source = ctx.source
        attributes = _attributes("process", source.topic, ctx.task_id, ctx.type) | _place(source, ctx.attempt)
        span = self._tracer.start_span(f"process {ctx.type}", within, trace.SpanKind.CONSUMER, attributes)
        self._attempt.set(span)
        context.attach(trace.set_span_in_context(span, within))  # ends with the context that the function runs in

    def after_execute(self, ctx: Context) -> None:
        span = self._attempt.get()
        if span is not None:  # else a plugin before this one has vetoed
            span.set_attribute("kantoku.task.status", ctx.status or "interrupted")
            _note(span, ctx.error)
            span.end()

    # --- where what became of them is published

    def committed(self, loop: str, checkpoint: Committed) -> None:
        for job in checkpoint.ended:
            if loop == TASKS and job.raw_headers and job.has_ended:  # else no task was read from it, or none believed
                self._settle(job)
            elif loop == TIMERS and job.move is not None:
                for message in job.move.messages:
                    self._fire(job, message)

    def _settle(self, job: Job) -> None:
        within = _extracted(job.headers)
        if not _is_traced(within):
            return
        attributes = _attributes("settle", job.partition.topic, job.task_id, job.type) | _place(job.source, job.attempt)
        step = job.move.step if job.move is not None else None
        attributes["kantoku.task.outcome"] = str(step or job.status)
        ended_at_ns = 1_000 * getattr(job, "finished_at_us", job.received_at_us)  # what never ran has not finished
        kind = trace.SpanKind.CLIENT
        span = self._tracer.start_span(f"settle {job.type}", within, kind, attributes, start_time=ended_at_ns)
        _note(span, job.error)
        span.end()

    def _fire(self, job: Job, message: Message) -> None:
        """A timer has put a task onto its input, as late as the span is long."""
        within = _extracted(message.headers)
        if not _is_traced(within):
            return
        attributes = _attributes("send", message.topic, job.task_id, job.type)
        due_at_ns = 1_000 * job.received_at_us
        kind = trace.SpanKind.PRODUCER
        self._tracer.start_span(f"send {message.topic}", within, kind, attributes, start_time=due_at_ns).end()


def trace_app(kantoku: Kantoku) -> None:
    """``--otel``: the app traces, and has the provider that the program has set, else one as ``OTEL_*`` variables have
    it, whose spans go to a collector by OTLP over HTTP. It becomes the program's."""
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        trace.set_tracer_provider(_provider())
    if not any(isinstance(plugin, Tracing) for plugin in kantoku.plugins):
        kantoku.use(Tracing())
    for plugin in kantoku.plugins:
        if isinstance(plugin, Tracing):
            plugin.for_children = f"{__name__}:{trace_app.__name__}"


def flush() -> None:
    """Export what has ended by now; for a few seconds."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, _Flushing):
        provider.force_flush(_FLUSH_MS)


def _provider() -> trace.TracerProvider:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create()
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):  # no variable names it
        resource = resource.merge(Resource({SERVICE_NAME: "kantoku-kafka"}))
    provider = TracerProvider(resource=resource)
    try:
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    except ValueError as error:
        raise UsageError(f"The OTEL_* variables do not go together: {error}") from error
    return provider


def _is_traced(within: Surroundings) -> bool:
    return trace.get_current_span(within).get_span_context().is_valid


def _extracted(headers: Headers) -> Surroundings:
    """What the headers of a record say."""
    carrier = {name.lower(): value.decode("utf-8", "replace") for name, value in headers if value is not None}
    return propagate.extract(carrier, Surroundings())


def _injected(headers: Headers, surroundings: Surroundings) -> Headers:
    carrier: dict[str, str] = {}
    propagate.inject(carrier, surroundings)
    if not carrier:
        return headers
    fields = propagate.get_global_textmap().fields
    kept = (header for header in headers if header[0].lower() not in fields)
    return (*kept, *((name, value.encode()) for name, value in carrier.items()))


def _attributes(operation: str, topic: str, task_id: str, task_type: str) -> dict[str, str | int]:
    return {
        "messaging.system": "kafka",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": topic,
        "messaging.message.id": task_id,
        "kantoku.task.type": task_type,
    }


def _place(source: Source, attempt: int) -> dict[str, str | int]:
    return {
        "messaging.destination.partition.id": str(source.partition),
        "messaging.kafka.offset": source.offset,
        "kantoku.task.attempt": attempt,
    }


def _note(span: trace.Span, error: ErrorInfo | None) -> None:
    if error is not None:
        span.set_status(trace.StatusCode.ERROR, error.message)
        span.set_attribute("error.type", error.type)
        detail = {} if error.detail is None else {"exception.stacktrace": error.detail}
        span.add_event("exception", {"exception.type": error.type, "exception.message": error.message, **detail})
