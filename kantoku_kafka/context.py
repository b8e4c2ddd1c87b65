"""What a task function sees of the task it runs: ``def resize(data: bytes, ctx: Context) -> bytes``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from kantoku_kafka.engine.judge import limits_of
from kantoku_kafka.errors import UsageError
from kantoku_kafka.job import Job, Message
from kantoku_kafka.model import ErrorInfo, Event, Headers, Source, Status, Task, TaskEnvelope, now_us
from kantoku_kafka.names import is_topic
from kantoku_kafka.plugins import run_after
from kantoku_kafka.spawning import prepare, spawned_event

if TYPE_CHECKING:
    from kantoku_kafka.app import Kantoku

__all__ = ["Context"]

_MOST_PROGRESS = 16 << 10


class Context:
    """The running task. Belongs to the thread (or coroutine) that runs it, until the function returns.

    What :meth:`spawn`, :meth:`produce` and :meth:`event` take is committed in the transaction of the result;
    if the attempt fails, none of it is published.
    """

    __slots__ = ("_envelope", "_job", "kantoku")

    def __init__(self, kantoku: Kantoku, job: Job) -> None:
        self.kantoku = kantoku
        self._job = job
        self._envelope: TaskEnvelope | None = None

    @property
    def task_id(self) -> str:
        """Id of the task."""
        return self._job.task_id

    @property
    def type(self) -> str:
        """Type of the task."""
        return self._job.type

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self._job.attempt

    @property
    def key(self) -> bytes | None:
        """The record's key: the ordering key, or else the task id."""
        return self._job.key

    @property
    def headers(self) -> Headers:
        """The task's own headers, which go on to the result."""
        return self._job.headers

    @property
    def source(self) -> Source:
        """The input record this task came from."""
        return self._job.source

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels it was spawned with."""
        return self.envelope.labels

    @property
    def envelope(self) -> TaskEnvelope:
        """Everything that was written of the task."""
        if self._envelope is None:
            self._envelope = self.kantoku.codec.decode_task(self._job.value)
        return self._envelope

    @property
    def cancelled(self) -> str | None:
        """Why the task should stop (``revoked``, ``stopping``), or None. A long function looks at it now and then."""
        return self._job.cancelled

    @property
    def status(self) -> Status | None:
        """How the task ended; None while it runs."""
        return self._job.status

    @property
    def output(self) -> bytes:
        """What the function returned; empty while it runs or if it failed."""
        return self._job.output

    @property
    def error(self) -> ErrorInfo | None:
        """Why it failed; None while it runs or if it did not."""
        return self._job.error

    @property
    def deadline(self) -> datetime | None:
        """When this attempt is ended if it has not ended by itself, aware, in UTC; None without a limit."""
        job = self._job
        limits = job.limits or limits_of(self.kantoku.task_types[job.type].rules, self.envelope)
        end_us = limits.end_us(job.started_at_us or now_us())
        return None if end_us is None else datetime.fromtimestamp(end_us / 1_000_000, UTC)

    def heartbeat(self, /, **progress: str) -> None:
        """Say that the task is alive: for types with ``heartbeat_seconds``, and for people who look at it.

        What it says is logged as event ``progress`` at once, not with the result; of many within a second the last one.
        May be called from any thread.

        Raises:
            UsageError: for progress that is no text, or has more than 16 KiB.
        """
        for name, value in progress.items():
            if not _is_text(name) or not _is_text(value):
                raise UsageError(f"Progress {name!r} must be text: str() makes it so.")
        if sum(len(name) + len(value) for name, value in progress.items()) > _MOST_PROGRESS:
            raise UsageError(f"Progress has at most {_MOST_PROGRESS:,} characters: more belongs into the result.")
        self._job.beat(progress)

    def spawn(self, task: Task) -> str:
        """Spawn a child task with the result of this one; returns its id.

        Raises:
            Exception: whatever a plugin's before hook raises.
        """
        spawn, message = prepare(self.kantoku, task, parent_id=self.task_id)
        self._stage(message)
        self._record(spawned_event(spawn))
        run_after(spawn.hooks.after_scheduled, spawn)
        return spawn.id

    def produce(self, topic: str, key: bytes | None, value: bytes, headers: Headers = ()) -> None:
        """Write a record to any topic, with the result of this task.

        Raises:
            UsageError: for what cannot be a record.
        """
        self._stage(Message(topic, key, value, headers))

    def event(self, name: str, /, **attributes: str) -> None:
        """Log a step of your own with the result of this task; the name has a dot in it: ``image.loaded``.

        Raises:
            UsageError: for another kind of name, or an attribute that is no text.
        """
        if not isinstance(name, str) or "." not in name or "/" in name or not _is_text(name):
            raise UsageError(f"Event name {name!r}: a name of your own has a dot and no slash, e.g. 'image.{name}'.")
        for attribute, value in attributes.items():
            if not _is_text(attribute) or not _is_text(value):
                raise UsageError(f"Attribute {attribute!r} of event {name!r} must be text: str() makes it so.")
        job = self._job
        self._record(Event(job.task_id, job.type, name, job.attempt, now_us(), None, job.source, None, attributes))

    def _stage(self, message: Message) -> None:
        """Checked here, where the task can still fail for it."""
        topic, key, value, headers, _ = message
        if not isinstance(topic, str) or not is_topic(topic):
            raise UsageError(f"{str(topic)[:300]!r} cannot be a topic: letters, digits, '.', '_' and '-', at most 249.")
        if not isinstance(value, bytes) or not isinstance(key, bytes | None):
            raise UsageError(f"Key and value of a record for {topic} must be bytes: encode them first.")
        if headers:
            message = message._replace(headers=_checked(headers))
        if self._job.effects is None:
            self._job.effects = []
        self._job.effects.append(message)

    def _record(self, event: Event) -> None:
        if self._job.events is None:
            self._job.events = []
        self._job.events.append(event)


def _is_text(value: object) -> bool:
    """Whether it is a string that UTF-8 can carry."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def _checked(headers: Headers) -> Headers:
    try:
        found = tuple((name, value) for name, value in headers)
    except (TypeError, ValueError):
        raise UsageError("Headers are (name, bytes) pairs, e.g. (('traceparent', b'...'),).") from None
    for name, value in found:
        if not _is_text(name) or not isinstance(value, bytes | None):
            raise UsageError(f"Header {name!r} must have a text as name and bytes as value.")
    return found
