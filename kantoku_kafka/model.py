"""The values that travel: what a user spawns, what stands in the topics, what comes back.

Everything here is immutable and free of I/O. Times are integers in microseconds since the epoch (``_us``),
as on the wire; the properties without a unit give aware ``datetime`` objects.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from kantoku_kafka.errors import UsageError
from kantoku_kafka.names import check_task_type

if TYPE_CHECKING:
    from kantoku_kafka.plugins import SpawnContext

__all__ = [
    "CatchUp",
    "Command",
    "ErrorInfo",
    "Event",
    "EventName",
    "Headers",
    "Heartbeat",
    "Option",
    "Overlap",
    "Result",
    "Schedule",
    "ScheduleState",
    "Source",
    "Status",
    "Step",
    "Task",
    "TaskEnvelope",
    "Timer",
    "Trail",
    "now_us",
]

Headers = tuple[tuple[str, bytes | None], ...]
Option = Callable[["SpawnContext"], None]

SIGNATURE = "kantoku-signature"
"""Header of a signed task."""
OF_TRACING = frozenset(("traceparent", "tracestate", "baggage"))
"""Headers of W3C that no signature covers: who traces may add them on the way."""
VALUE_SCHEMA_ID = "__value_schema_id"
"""The header by which Confluent's header form names the schema of a record's value."""
_SCHEMA_IDS = frozenset((VALUE_SCHEMA_ID, "__key_schema_id"))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Status(StrEnum):
    """How a task ended. The order is that of the Avro enum."""

    __hash__ = str.__hash__  # Enum's own is written in Python: these are looked up for every task

    OK = "OK"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"
    CANCELLED = "CANCELLED"
    CRASHED = "CRASHED"
    EXPIRED = "EXPIRED"
    REJECTED = "REJECTED"


class EventName(StrEnum):
    """The steps the system itself records."""

    __hash__ = str.__hash__

    SPAWNED = "spawned"
    RECEIVED_TASK = "received_task"
    EXECUTED_TASK = "executed_task"
    SENT_OUTPUTS = "sent_outputs"
    ERROR = "error"
    DEAD_LETTERED = "dead_lettered"
    DELAYED = "delayed"
    RETRY_SCHEDULED = "retry_scheduled"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    DUPLICATE = "duplicate"
    PROGRESS = "progress"


class Source(NamedTuple):
    """The input record a task came from, and the assignment epoch in which the executor held its partition."""

    topic: str
    partition: int
    offset: int
    epoch: int = 0


class ErrorInfo(NamedTuple):
    """Why a task did not end well: the ``Error`` of the envelopes."""

    type: str
    message: str
    detail: str | None = None
    retryable: bool = False


class Result(NamedTuple):
    """The terminal result of a task; there is one per task id.

    ``headers`` are the record's own, as carried over from the task; they are not part of the Avro envelope.
    """

    task_id: str
    type: str
    status: Status
    data: bytes
    error: ErrorInfo | None
    attempt: int
    executor_id: str
    started_at_us: int | None
    finished_at_us: int
    source: Source
    headers: Headers = ()

    @property
    def ok(self) -> bool:
        """True if the task function returned."""
        return self.status is Status.OK

    @property
    def finished_at(self) -> datetime:
        """When the task ended, aware, in UTC; what is beyond all years of ``datetime`` is the end of them."""
        return _datetime(self.finished_at_us)


class Event(NamedTuple):
    """One step of one task, as it stands in the audit topic."""

    task_id: str
    type: str
    name: str
    attempt: int
    at_us: int
    executor_id: str | None = None
    source: Source | None = None
    error: ErrorInfo | None = None
    attributes: Mapping[str, str] = {}

    @property
    def at(self) -> datetime:
        """When the step happened; as :attr:`Result.finished_at`."""
        return _datetime(self.at_us)


class Heartbeat(NamedTuple):
    """What an executor says of itself now and then. ``in_flight``: tasks handed to a pool, of every type it serves."""

    executor_id: str
    slot: str
    host: str
    pid: int
    version: str
    started_at_us: int
    at_us: int
    interval_ms: int
    draining: bool
    in_flight: Mapping[str, int]
    attributes: Mapping[str, str] = {}


Step = tuple[str, int, ErrorInfo | None, Mapping[str, str]]
"""What an :class:`Event` says besides whose it is: name, at_us, error, attributes."""


class Trail(NamedTuple):
    """Events of one task in a row: what they have in common, and the steps in their order."""

    task_id: str
    type: str
    attempt: int
    executor_id: str | None
    source: Source | None
    steps: Sequence[Step]

    @classmethod
    def of(cls, event: Event) -> Trail:
        """One event."""
        task_id, type_, name, attempt, at_us, executor_id, source, error, attributes = event
        return cls(task_id, type_, attempt, executor_id, source, ((name, at_us, error, attributes),))

    def events(self) -> list[Event]:
        """One by one."""
        task_id, type_, attempt, executor_id, source, steps = self
        return [
            Event(task_id, type_, name, attempt, at_us, executor_id, source, error, attributes)
            for name, at_us, error, attributes in steps
        ]


class TaskEnvelope(NamedTuple):
    """A task as it stands in an input topic: the ``Task`` of the schemas, field by field."""

    id: str
    type: str
    data: bytes
    created_at_us: int
    attempt: int = 1
    max_attempts: int | None = None
    timeout_ms: int | None = None
    not_before_us: int | None = None
    expires_at_us: int | None = None
    parent_id: str | None = None
    context_id: str | None = None
    restarted_from: str | None = None
    idempotency_key: str | None = None
    labels: Mapping[str, str] = {}
    options: Mapping[str, bytes] = {}


class Command(NamedTuple):
    """What a person tells executors: ``cancel`` tasks, ``quiet`` or ``stop`` executors.

    Tasks that were created after ``at_us``, and executors that were started later, are not meant.
    """

    kind: str
    at_us: int
    task_id: str | None = None
    type: str | None = None
    labels: Mapping[str, str] = {}
    executor_id: str | None = None
    reason: str | None = None


class Timer(NamedTuple):
    """A task that is due later: the record to be written to its input then. ``task``: its envelope, as it will stand
    there; ``attempt`` and ``type`` are the task's own."""

    task_id: str
    type: str
    attempt: int
    due_at_us: int
    topic: str
    key: bytes | None
    task: bytes
    headers: Headers = ()


class Overlap(StrEnum):
    """What to do when a schedule is due and its last task has not ended: spawn it all the same, leave it out, or cancel
    the last one and spawn it."""

    ALLOW = "allow"
    SKIP = "skip"
    CANCEL = "cancel"


class CatchUp(StrEnum):
    """What of the times that nobody was there to serve is made up for: nothing, the last one, or all."""

    SKIP = "skip"
    ONE = "one"
    ALL = "all"


class Schedule(NamedTuple):
    """A task that is spawned again and again: when, and the record to be written to its input then.

    ``cron`` or ``every_us``: one of the two. ``task``: its envelope; id and times are new each time. Times before
    ``changed_at_us`` are none of it; ``grace_us``: what is later than that was missed.
    """

    name: str
    changed_at_us: int
    topic: str
    task: bytes
    cron: str | None = None
    every_us: int | None = None
    time_zone: str = "UTC"
    jitter_us: int = 0
    start_at_us: int | None = None
    end_at_us: int | None = None
    overlap: Overlap = Overlap.ALLOW
    catch_up: CatchUp = CatchUp.ONE
    grace_us: int = 60_000_000
    paused: bool = False
    key: bytes | None = None
    headers: Headers = ()


class ScheduleState(NamedTuple):
    """How far a schedule is: the last time that was dealt with, the last task spawned, and how many in all."""

    due_at_us: int
    task_id: str | None
    spawned: int
    skipped: int


@dataclass(frozen=True, slots=True)
class Task:
    """What a user asks for: a type, its data, and options that plugins act on.

    Parameters:
        type: the task type; it must match ``[A-Za-z0-9][A-Za-z0-9._-]*``.
        data: the payload, opaque bytes; default empty.
        options: what :meth:`with_` collected, applied in order when the task is spawned.

    Raises:
        UsageError: if the type is not a valid name or the data are not bytes.
    """

    type: str
    data: bytes = b""
    options: tuple[Option, ...] = ()

    def __post_init__(self) -> None:
        check_task_type(self.type)
        if not isinstance(self.data, bytes):
            raise UsageError(
                f"The data of task {self.type!r} must be bytes, not {type(self.data).__name__}: "
                "encode them first, e.g. json.dumps(value).encode()."
            )

    def with_(self, *options: Option) -> Task:
        """A copy of this task with more options, e.g. ``Task("t", b"").with_(key("k"))``."""
        return Task(self.type, self.data, self.options + options)


def now_us() -> int:
    """The wall clock in microseconds since the epoch."""
    return time.time_ns() // 1000


def _datetime(at_us: int) -> datetime:
    """Other programs write times, too, and some of them in nanoseconds."""
    try:
        return _EPOCH + timedelta(microseconds=at_us)
    except OverflowError:
        return (datetime.max if at_us > 0 else datetime.min).replace(tzinfo=UTC)


def utf8_safe(text: str) -> str:
    """``text`` as UTF-8 can carry it: lone surrogates are escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def carried_headers(headers: Iterable[tuple[str, bytes | None]] | None) -> Headers:
    """The headers that go from a task to its result: all but the system's own ``kantoku-`` ones, and those that name
    the schemas of the record's own bytes."""
    if not headers:
        return ()
    return tuple(header for header in headers if not _is_own(header[0]))


def lasting_headers(headers: Iterable[tuple[str, bytes | None]] | None) -> Headers:
    """The headers that a task has wherever it stands: those it carries, and its signature."""
    if not headers:
        return ()
    return tuple(header for header in headers if header[0] == SIGNATURE or not _is_own(header[0]))


def _is_own(name: str) -> bool:
    return name.startswith("kantoku-") or name in _SCHEMA_IDS
