"""What the topics and the group's offsets say, so that it can be judged: read, changed into facts, nothing concluded.

The order of reading makes a log that is still written to judgeable. A task, its result, its events and the mark that
its record is done come by one transaction, so:

- where the group stood *before* the ends were taken: all that was done then has left its traces below the ends;
- where it stood *after* all was read: it counts as done everything that left a trace below the ends;
- the inputs are read last: every source of a trace is among them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from kantoku_kafka.avro.control import decode_timer
from kantoku_kafka.engine import doneset
from kantoku_kafka.errors import EnvelopeError, WaitTimeout
from kantoku_kafka.kafka.config import Clients, headers_of
from kantoku_kafka.kafka.scan import Offsets, Record, Scan, beginnings, ends, first_at
from kantoku_kafka.names import Topics
from kantoku_kafka.protocols import Codec
from kantoku_kafka.replay.fold import LoggedEvent

__all__ = ["Evidence", "Input", "Letter", "Outcome", "Place", "Position", "Spawn", "collect"]

_MARGIN_MS = 60_000
_UNSTABLE = frozenset({KafkaError.UNSTABLE_OFFSET_COMMIT})


class Place(NamedTuple):
    """Where a record stands."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


class Spawn(NamedTuple):
    """An input record; without an id nobody can read it."""

    task_id: str | None
    attempt: int
    at_ms: int


class Outcome(NamedTuple):
    """A result, and the input record it names as its source."""

    at: Place
    task_id: str
    status: str
    attempt: int
    executor_id: str
    source: Place


class Letter(NamedTuple):
    """A dead letter, and where its record stood before."""

    at: Place
    source: Place | None


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
        histories: events by task.
        letters: dead letters.
        pending: where the timers stand that have not fired, by task.
        settled_from_ms: records older than this may have left traces that are deleted by now, or were not read.
        unreadable: what stands among results and events and is none.
        stuck: topics that could not be read to their ends, with the reason.
    """

    inputs: dict[tuple[str, int], Input] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    histories: defaultdict[str, list[LoggedEvent]] = field(default_factory=lambda: defaultdict(list))
    letters: list[Letter] = field(default_factory=list)
    pending: dict[str, Place] = field(default_factory=dict)
    settled_from_ms: int = 0
    unreadable: list[Place] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)

    @property
    def spawns(self) -> Iterator[tuple[Place, Spawn]]:
        """Every input record."""
        for (topic, partition), held in self.inputs.items():
            for offset, spawn in held.records.items():
                yield Place(topic, partition, offset), spawn


def collect(
    clients: Clients,
    topics: Topics,
    codec: Codec,
    inputs: Sequence[str],
    *,
    since_ms: int | None = None,
    patience_seconds: float = 60.0,
) -> Evidence:
    """Read everything. Writes nothing, joins no group, and may run beside executors.

    Parameters:
        inputs: the input topics.
        since_ms: tasks that were spawned before are not judged; default: all that the topics still hold.
        patience_seconds: how long the reading may stand still; longer than transactions may stay open.

    Raises:
        TopicMismatch, AccessDenied, BrokerUnavailable.
    """
    reading = _Reading(clients, topics, codec, since_ms, patience_seconds)
    before = _positions(clients, topics.group, inputs)
    traces = {topic: ends(clients, topic) for topic in (topics.timers, topics.dlq, topics.results, topics.events)}
    for topic, read in (
        (topics.timers, reading.timer),
        (topics.dlq, reading.letter),
        (topics.results, reading.result),
        (topics.events, reading.event),
    ):
        for record in reading.traces(topic, traces[topic]):
            try:
                read(record)
            except EnvelopeError:
                reading.evidence.unreadable.append(_place(record))
    evidence = reading.evidence
    after = _positions(clients, topics.group, inputs)
    for topic in inputs:
        for partition, first in reading.starts(topic).items():
            place = topic, partition
            evidence.inputs[place] = Input(first, before.get(place, Position(first)), after.get(place, Position(first)))
        for record in reading.records(topic, ends(clients, topic)):
            reading.spawn(record)
    return evidence


class _Reading:
    """One pass over the topics of a namespace."""

    def __init__(
        self, clients: Clients, topics: Topics, codec: Codec, since_ms: int | None, patience_seconds: float
    ) -> None:
        self._clients = clients
        self._codec = codec
        self._since_ms = since_ms
        self._patience_seconds = patience_seconds
        self._timers = topics.timers
        self.evidence = Evidence(settled_from_ms=since_ms or 0)

    def starts(self, topic: str) -> Offsets:
        """From where to read a topic: what is judged, and of its traces a little more, for clocks differ."""
        if self._since_ms is None or topic == self._timers:
            return beginnings(self._clients, topic)
        return first_at(self._clients, topic, max(0, self._since_ms - _MARGIN_MS))

    def traces(self, topic: str, until: Mapping[int, int]) -> Iterator[Record]:
        """The records of a topic; where the first ones are deleted, what is older than the rest is not judged."""
        cut = {p for p, first in beginnings(self._clients, topic).items() if first > 0 and topic != self._timers}
        for record in self.records(topic, until):
            if record.partition() in cut and self._since_ms is None:
                cut.discard(record.partition() or 0)
                oldest_ms = record.timestamp()[1] + _MARGIN_MS
                self.evidence.settled_from_ms = max(self.evidence.settled_from_ms, oldest_ms)
            yield record

    def records(self, topic: str, until: Mapping[int, int]) -> Iterator[Record]:
        """The records of a topic up to these ends."""
        scan = Scan(self._clients, topic, self.starts(topic), until, self._patience_seconds)
        try:
            for batch in scan.batches():
                yield from batch
        except WaitTimeout as error:
            self.evidence.stuck.append(str(error))

    def spawn(self, record: Record) -> None:
        topic, partition, offset = _place(record)
        try:
            task_id, _, _, attempt, _ = self._codec.peek_task(record.value() or b"")
        except EnvelopeError:
            task_id, attempt = None, 0
        held = self.evidence.inputs.get((topic, partition))
        if held is not None:
            held.records[offset] = Spawn(task_id, attempt, record.timestamp()[1])

    def result(self, record: Record) -> None:
        value = record.value()
        if value is not None:
            found = self._codec.decode_result(value)
            source = Place(*found.source[:3])
            self.evidence.outcomes.append(
                Outcome(_place(record), found.task_id, found.status, found.attempt, found.executor_id, source)
            )

    def event(self, record: Record) -> None:
        value = record.value()
        if value is not None:
            event = self._codec.decode_event(value)
            place = _place(record)
            self.evidence.histories[event.task_id].append(LoggedEvent(event, place.partition, place.offset))

    def letter(self, record: Record) -> None:
        self.evidence.letters.append(Letter(_place(record), _source_of(record)))

    def timer(self, record: Record) -> None:
        """By the key the last one counts; a tombstone says that it has fired."""
        value, key = record.value(), (record.key() or b"").decode("utf-8", "replace")
        if value is None:
            self.evidence.pending.pop(key, None)
            return
        with suppress(EnvelopeError):  # it becomes a dead letter
            self.evidence.pending[decode_timer(value).task_id] = _place(record)


def _place(record: Record) -> Place:
    return Place(record.topic() or "", record.partition() or 0, record.offset() or 0)


def _source_of(record: Record) -> Place | None:
    """What the headers of a dead letter say; of several with the same name the last one is the system's."""
    said = {name: (value or b"").decode("utf-8", "replace") for name, value in headers_of(record) or ()}
    try:
        return Place(
            said["kantoku-source-topic"], int(said["kantoku-source-partition"]), int(said["kantoku-source-offset"])
        )
    except (KeyError, ValueError):
        return None


def _positions(clients: Clients, group: str, inputs: Iterable[str]) -> dict[tuple[str, int], Position]:
    """Where the group stands; waits for transactions that are about to change it."""
    places = [TopicPartition(topic, p) for topic in inputs for p in beginnings(clients, topic)]
    observer = clients.consumer(**{"group.id": group})

    def asked() -> list[TopicPartition]:
        found = list(observer.committed(places, clients.connection.timeout_seconds))
        for place in found:
            if place.error is not None:
                raise KafkaException(place.error)
        return found

    try:
        answered = clients.insist(asked, f"reading the committed offsets of {group}", _UNSTABLE)
    finally:
        observer.close()
    return {(p.topic, p.partition): _position(p) for p in answered if p.offset >= 0}


def _position(place: TopicPartition) -> Position:
    name = f"{place.topic}/{place.partition}"
    done = doneset.decode(place.metadata, name, place.offset) if place.metadata else None
    return Position(place.offset, tuple(done.runs) if done else ())
