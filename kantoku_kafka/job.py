"""One task on its way through an executor, and the records that leave with it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from kantoku_kafka.model import ErrorInfo, Event, EventName, Headers, Result, Source, Status, carried_headers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kantoku_kafka.engine.reply import Reply
    from kantoku_kafka.model import TaskEnvelope

__all__ = ["Job", "Limits", "Message", "Move", "Offset", "Partition", "Place", "Raised", "place_name"]

Place = tuple[str, int]
"""A partition, by topic and number."""
_new = tuple.__new__  # what a NamedTuple's own does besides costs as much again


class Message(NamedTuple):
    """A record to be produced. ``partition`` -1 leaves the choice to the key (murmur2 as in the Java client).

    ``value`` None is a tombstone.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    partition: int = -1


class Move(NamedTuple):
    """What goes with a job besides its result: the records that carry the task on, the event that tells of it, and the
    marks that this is done, which are written even if those records are refused."""

    messages: tuple[Message, ...]
    step: EventName | None = None
    attributes: Mapping[str, str] = {}
    marks: tuple[Message, ...] = ()


class Raised(NamedTuple):
    """What a function raised, for the retry policy: the qualified names of its class and of those above it.

    ``after_seconds``: when the function itself wants to be tried again; ``final``: never.
    """

    kinds: tuple[str, ...]
    after_seconds: float | None = None
    asked: bool = False
    final: bool = False


class Limits(NamedTuple):
    """Until when an attempt may run: so long after its start, until then at the latest, so long after a heartbeat.

    None: no limit.
    """

    timeout_us: int | None
    close_by_us: int | None
    heartbeat_us: int | None = None

    def end_us(self, started_at_us: int) -> int | None:
        """When an attempt that started then has to have ended."""
        ends = [self.close_by_us] if self.close_by_us is not None else []
        if self.timeout_us is not None:
            ends.append(started_at_us + self.timeout_us)
        return min(ends, default=None)


class Offset(NamedTuple):
    """What a checkpoint commits for one input partition."""

    topic: str
    partition: int
    offset: int
    metadata: str

    @property
    def place(self) -> Place:
        """Whose offset it is."""
        return self.topic, self.partition


def place_name(topic: str, number: int) -> str:
    """A partition, as commit metadata name it."""
    return f"{topic}/{number}"


class Partition:
    """One assignment of an input partition to this executor.

    Every assignment is an object of its own and compares by identity: work that belongs to an earlier epoch
    of the same partition never matches the present one.
    """

    __slots__ = ("begin", "epoch", "number", "topic", "waiting", "waiting_bytes")

    def __init__(self, topic: str, number: int, epoch: int) -> None:
        self.topic = topic
        self.number = number
        self.epoch = epoch
        self.begin: int | None = None  # where to read from; None: from the committed offset
        self.waiting = self.waiting_bytes = 0  # jobs of it that have not started

    @property
    def place(self) -> Place:
        """Which partition it is."""
        return self.topic, self.number

    def __repr__(self) -> str:
        return f"{self.topic}[{self.number}] in epoch {self.epoch}"


class Job:
    """A record popped from the inputs, what was decoded from it, and what came of it.

    The loop makes and settles it; in between, exactly one executor thread owns it.
    """

    __slots__ = (
        "_source",
        "announced",
        "attempt",
        "beat_at_us",
        "begun",
        "cancelled",
        "data",
        "effects",
        "envelope",
        "error",
        "events",
        "finished_at_us",
        "home",
        "is_null",
        "key",
        "lane",
        "letter",
        "limits",
        "move",
        "offset",
        "on_beat",
        "outcome",
        "output",
        "partition",
        "progress",
        "raised",
        "raw_headers",
        "received_at_us",
        "reply",
        "started_at_us",
        "status",
        "task_id",
        "type",
        "value",
        "written_at_ms",
    )

    task_id: str
    type: str
    data: bytes
    attempt: int
    received_at_us: int
    finished_at_us: int
    written_at_ms: int  # when its record was, by whoever stamps the topic; only where somebody measures

    def __init__(
        self,
        partition: Partition,
        offset: int,
        key: bytes | None,
        value: bytes,
        raw_headers: Sequence[tuple[str, bytes | None]] | None = None,
    ) -> None:
        self.partition = partition
        self.offset = offset
        self.key = key
        self.value = value
        self.raw_headers = raw_headers
        self.started_at_us: int | None = None
        self.status: Status | None = None
        self.output = b""
        self.error: ErrorInfo | None = None
        self.cancelled: str | None = None
        self.effects: list[Message] | None = None
        self.events: list[Event] | None = None
        self.letter: Message | None = None
        self.move: Move | None = None
        self.raised: Raised | None = None
        self.limits: Limits | None = None
        self.outcome: Status | None = None
        self.beat_at_us: int | None = None
        self.home: str | None = None  # by which topic it goes on, if not by its own; empty: nobody knows yet
        self.is_null = False  # that its record has no value; told of foreign topics alone
        self.reply: Reply | None = None  # that is due with the result
        self.progress: Mapping[str, str] | None = None  # said by the last heartbeat, and not logged yet
        self.on_beat: Callable[[Mapping[str, str]], None] | None = None  # in a child: passes heartbeats on
        self.envelope: TaskEnvelope | None = None  # of a task that says more than its type and data
        self.announced = self.begun = False
        self.lane: object = None
        self._source: Source | None = None

    def read(self, peek: Callable[[bytes], tuple[str, str, bytes, int, TaskEnvelope | None]]) -> None:
        """Take the task out of the record, by a codec's ``peek_task``. Raises EnvelopeError."""
        self.task_id, self.type, self.data, self.attempt, self.envelope = peek(self.value)

    @property
    def headers(self) -> Headers:
        """The user's headers, as they go on to the result."""
        return carried_headers(self.raw_headers) if self.raw_headers else ()

    @property
    def source(self) -> Source:
        """Where the task came from."""
        if self._source is None:
            partition = self.partition
            self._source = _new(Source, (partition.topic, partition.number, self.offset, partition.epoch))
        return self._source

    @property
    def size_bytes(self) -> int:
        """About what the job leaves behind."""
        if self.effects is None and self.events is None and self.letter is None and self.move is None:
            return len(self.output) if self.reply is None else 2 * len(self.output)
        texts = (str(value) for event in self.events or () for value in event.attributes.values())
        messages = (*self.messages(), *(self.move.marks if self.move is not None else ()))
        outputs = 1 if self.reply is None else 2
        return outputs * len(self.output) + sum(len(m.value or b"") for m in messages) + sum(map(len, texts))

    @property
    def has_ended(self) -> bool:
        """Here: with a result, or because the task goes on elsewhere."""
        return self.status is not None or self.move is not None

    @property
    def has_failed(self) -> bool:
        """It has a result, and another one than it should."""
        return self.status not in (None, Status.OK)

    def messages(self) -> Sequence[Message]:
        """The records that go out besides the result, but for the marks of its move: what the task staged if it
        succeeded, what carries it on, its dead letter."""
        if self.effects is None and self.letter is None and self.move is None:
            return ()
        effects = self.effects if self.effects and self.status is Status.OK else ()
        moved = () if self.move is None else self.move.messages
        return (*effects, *moved, *(() if self.letter is None else (self.letter,)))

    def succeed(self, output: bytes) -> None:
        """The function returned."""
        self.finished_at_us = time.time_ns() // 1000
        self.status = Status.OK
        self.output = output

    def fail(self, status: Status, error: ErrorInfo) -> None:
        """The function did not return; what it had staged is withheld."""
        self.finished_at_us = time.time_ns() // 1000
        self.status = status
        self.error = error
        self.output = b""
        self.effects = self.events = None

    def take_back(self) -> None:
        """What the function said does not count: the attempt has not ended."""
        self.status = self.error = self.effects = self.events = None
        self.output = b""

    def beat(self, progress: Mapping[str, str]) -> None:
        """The function is alive, and so far. May be called from any thread."""
        self.beat_at_us = time.time_ns() // 1000
        self.progress = progress
        if self.on_beat is not None:
            self.on_beat(progress)

    def carry_on(self, move: Move) -> None:
        """It has no result yet: the task goes on elsewhere. How its attempt ended stays, for the events."""
        self.outcome, self.status = self.status, None
        self.move = move

    def result(self, executor_id: str) -> Result:
        """The terminal result; only after :meth:`succeed` or :meth:`fail`."""
        assert self.status is not None, "the job has not ended"
        return _new(
            Result,
            (
                self.task_id,
                self.type,
                self.status,
                self.output,
                self.error,
                self.attempt,
                executor_id,
                self.started_at_us,
                self.finished_at_us,
                self.source,
                self.headers,
            ),
        )
