"""One task on its way through an executor, and the records that leave with it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from kantoku_kafka.model import ErrorInfo, Event, Headers, Result, Source, Status, carried_headers

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Job", "Message", "Offset", "Partition"]

_new = tuple.__new__  # what a NamedTuple's own does besides costs as much again


class Message(NamedTuple):
    """A record to be produced. ``partition`` -1 leaves the choice to the key (murmur2 as in the Java client)."""

    topic: str
    key: bytes | None
    value: bytes
    headers: Headers = ()
    partition: int = -1


class Offset(NamedTuple):
    """What a checkpoint commits for one input partition."""

    topic: str
    partition: int
    offset: int
    metadata: str


class Partition:
    """One assignment of an input partition to this executor.

    Every assignment is an object of its own and compares by identity: work that belongs to an earlier epoch
    of the same partition never matches the present one.
    """

    __slots__ = ("epoch", "number", "topic", "waiting", "waiting_bytes")

    def __init__(self, topic: str, number: int, epoch: int) -> None:
        self.topic = topic
        self.number = number
        self.epoch = epoch
        self.waiting = self.waiting_bytes = 0  # jobs of it that have not started

    @property
    def place(self) -> str:
        """For the commit metadata."""
        return f"{self.topic}/{self.number}"

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
        "cancelled",
        "data",
        "effects",
        "error",
        "events",
        "finished_at_us",
        "key",
        "lane",
        "letter",
        "offset",
        "output",
        "partition",
        "raw_headers",
        "received_at_us",
        "started_at_us",
        "status",
        "task_id",
        "type",
        "value",
    )

    task_id: str
    type: str
    data: bytes
    attempt: int
    received_at_us: int
    finished_at_us: int

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
        self.announced = False
        self.lane: object = None
        self._source: Source | None = None

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
        if self.effects is None and self.events is None and self.letter is None:
            return len(self.output)
        texts = (str(value) for event in self.events or () for value in event.attributes.values())
        return len(self.output) + sum(len(m.value) for m in self.messages()) + sum(map(len, texts))

    def messages(self) -> Sequence[Message]:
        """The records that go out besides the result: what the task staged if it succeeded, its dead letter."""
        if self.effects is None and self.letter is None:
            return ()
        effects = self.effects if self.effects and self.status is Status.OK else ()
        return (*effects, *(() if self.letter is None else (self.letter,)))

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
