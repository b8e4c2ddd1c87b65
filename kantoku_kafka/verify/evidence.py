"""Facts by which the promises are judged, and how records of the topics are changed into them. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from kantoku_kafka.avro.control import decode_timer
from kantoku_kafka.engine import doneset
from kantoku_kafka.engine.deadletter import cause_of, source_of
from kantoku_kafka.engine.judge import was_moved
from kantoku_kafka.errors import EnvelopeError
from kantoku_kafka.job import place_name
from kantoku_kafka.model import Headers
from kantoku_kafka.protocols import Codec
from kantoku_kafka.replay.fold import LoggedEvent

__all__ = ["Coordinates", "Evidence", "Gathering", "Input", "Letter", "Outcome", "Position", "Spawn", "position"]


class Coordinates(NamedTuple):
    """Where a record stands."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


class Spawn(NamedTuple):
    """An input record; without an id nobody can read it. ``moved``: a timer, or a redrive, has put it there."""

    task_id: str | None
    attempt: int
    at_ms: int
    moved: bool = False

    @property
    def is_first(self) -> bool:
        """Whether a task begins with it."""
        return self.attempt == 1 and not self.moved


class Outcome(NamedTuple):
    """A result, and the input record it names as its source."""

    at: Coordinates
    task_id: str
    status: str
    attempt: int
    executor_id: str
    source: Coordinates


class Letter(NamedTuple):
    """A dead letter, where its record stood before, and the task that it is, if that was a timer's."""

    at: Coordinates
    source: Coordinates | None
    task_id: str | None = None


@dataclass(frozen=True, slots=True)
class Position:
    """Where the group stands in a partition: all below ``base`` is done, and the runs beyond."""

    base: int
    runs: Sequence[doneset.Run] = ()

    def is_done(self, offset: int) -> bool:
        if offset < self.base:
            return True
        at = bisect_right(self.runs, (offset, 1 << 63)) - 1
        return at >= 0 and offset < self.runs[at][1]


@dataclass(slots=True)
class Input:
    """One partition of an input topic. ``first``: from where on it was read."""

    first: int
    before: Position
    after: Position
    records: dict[int, Spawn] = field(default_factory=dict)


@dataclass(slots=True)
class Evidence:
    """Facts by which the promises are judged.

    Attributes:
        inputs: by topic and partition.
        outcomes: results in the order of the log.
        late: where results stand that were read after the events: theirs may not be among those.
        histories: events by task.
        letters: dead letters.
        timers: their topic.
        pending: where the timers stand that have not fired, by task.
        settled_from_ms: records older than this may have left traces that are deleted by now, or were not read.
        letters_from_ms: dead letters older than this may be deleted, or were not read.
        unreadable: what stands among results and events and is none.
        stuck: topics that could not be read to their ends, with the reason.
        untold: how many records of inputs that are not ours nothing tells of: nobody knows whether they are tasks.
    """

    inputs: dict[tuple[str, int], Input] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    late: set[Coordinates] = field(default_factory=set)
    histories: defaultdict[str, list[LoggedEvent]] = field(default_factory=lambda: defaultdict(list))
    letters: list[Letter] = field(default_factory=list)
    timers: str = ""
    pending: dict[str, Coordinates] = field(default_factory=dict)
    settled_from_ms: int = 0
    letters_from_ms: int = 0
    unreadable: list[Coordinates] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    untold: int = 0

    @property
    def spawns(self) -> Iterator[tuple[Coordinates, Spawn]]:
        """Every input record."""
        for (topic, partition), held in self.inputs.items():
            for offset, spawn in held.records.items():
                yield Coordinates(topic, partition, offset), spawn


class Gathering:
    """Changes records into facts, in the order of :func:`~kantoku_kafka.verify.collect`. Pure.

    Each method takes one record of its topic, and raises EnvelopeError if it is none of ours.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self.evidence = Evidence()

    def spawn(self, at: Coordinates, value: bytes, headers: Headers, at_ms: int, *, ours: bool = True) -> None:
        """Of an input; what nobody can read is a fact as well.

        Where others may write as they like it is the task that its traces name, and no fact if it has none.
        """
        task_id: str | None
        try:
            task_id, _, _, attempt, _ = self._codec.peek_task(value)
        except EnvelopeError:
            task_id, attempt = (None, 0) if ours else (self._told.get(at), 1)
            if not ours and at not in self._told:
                self.evidence.untold += 1
                return
        held = self.evidence.inputs.get((at.topic, at.partition))
        if held is not None:
            held.records[at.offset] = Spawn(task_id, attempt, at_ms, was_moved(headers))

    @cached_property
    def _told(self) -> dict[Coordinates, str | None]:
        """Which tasks the traces name, by where their records stand; None: it is a dead letter alone."""
        events = (one.event for history in self.evidence.histories.values() for one in history)
        named = {Coordinates(*event.source[:3]): event.task_id for event in events if event.source is not None}
        named |= {outcome.source: outcome.task_id for outcome in self.evidence.outcomes}
        return {letter.source: None for letter in self.evidence.letters if letter.source is not None} | named

    def result(self, at: Coordinates, value: bytes) -> None:
        """Of the results."""
        found = self._codec.decode_result(value)
        source = Coordinates(*found.source[:3])
        self.evidence.outcomes.append(
            Outcome(at, found.task_id, found.status, found.attempt, found.executor_id, source)
        )

    def event(self, at: Coordinates, key: bytes, value: bytes | None) -> None:
        """Of the events; a tombstone (None) removes those before it that have its key."""
        if value is None:
            self._prune(key.decode("utf-8", "replace"))
            return
        event = self._codec.decode_event(value)
        self.evidence.histories[event.task_id].append(LoggedEvent(event, at.partition, at.offset))

    def _prune(self, key: str) -> None:
        task_id, _, step = key.partition("/")
        histories = self.evidence.histories
        kept = [one for one in histories.pop(task_id, ()) if f"{one.event.attempt}/{one.event.name}" != step]
        if kept:
            histories[task_id] = kept

    def letter(self, at: Coordinates, value: bytes, headers: Headers) -> None:
        """A dead letter."""
        source = source_of(cause_of(headers))
        letter = Letter(at, Coordinates(*source) if source is not None else None)
        if letter.source is not None and letter.source.topic == self.evidence.timers:
            with suppress(EnvelopeError):
                letter = letter._replace(task_id=self._codec.peek_task(value)[0])
        self.evidence.letters.append(letter)

    def timer(self, at: Coordinates, key: bytes, value: bytes) -> None:
        """Of one key the last one counts; a tombstone says that it has fired."""
        task_id = key.decode("utf-8", "replace")
        if not value:
            self.evidence.pending.pop(task_id, None)
            return
        with suppress(EnvelopeError):  # it becomes a dead letter
            self.evidence.pending[decode_timer(value).task_id] = at


def position(topic: str, partition: int, offset: int, metadata: str | None) -> Position:
    """What a commit says."""
    done = doneset.decode(metadata, place_name(topic, partition), offset) if metadata else None
    return Position(offset, tuple(done.runs) if done else ())
