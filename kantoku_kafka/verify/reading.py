"""What the topics and the group's offsets say, so that it can be judged: read, changed into facts, nothing concluded.

The order of reading makes a log that is still written to judgeable. A task, its result, its events and the mark that
its record is done come by one transaction, so:

- where the group stood *before* any end was taken: all that was done then has left its traces below the ends;
- the end of each topic is taken when its turn comes: the transactions of all results that were read are decided by
  then, so that their events are below the end of the events; what events tell of is below a later end of the results;
- where it stood *after* all was read: it counts as done everything that left a trace below the ends;
- the inputs are read last: every source of a trace is among them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from kantoku_kafka.engine.foreign import ForeignReader
from kantoku_kafka.errors import EnvelopeError, WaitTimeout
from kantoku_kafka.job import Job, Partition
from kantoku_kafka.kafka.clients import Clients
from kantoku_kafka.kafka.committed import committed_offsets
from kantoku_kafka.kafka.records import headers_of, value_of
from kantoku_kafka.kafka.scan import Offsets, Record, Scan, beginnings, ends, first_at
from kantoku_kafka.kafka.topics import partition_count, topic_configs
from kantoku_kafka.names import Topics
from kantoku_kafka.protocols import Codec
from kantoku_kafka.verify.evidence import Coordinates, Evidence, Gathering, Input, Position, position

__all__ = ["collect"]

_MARGIN_MS = 60_000


def collect(
    clients: Clients,
    topics: Topics,
    codec: Codec,
    inputs: Sequence[str],
    *,
    readers: Mapping[str, ForeignReader] = MappingProxyType({}),
    since_ms: int | None = None,
    patience_seconds: float = 60.0,
) -> Evidence:
    """Read everything. Writes nothing, joins no group, and may run beside executors.

    Parameters:
        inputs: the input topics.
        readers: of the foreign ones among them, as far as known.
        since_ms: tasks that were spawned before are not judged; default: all that the topics still hold.
        patience_seconds: how long the reading may stand still; longer than transactions may stay open.

    Raises:
        TopicMismatch, AccessDenied, BrokerUnavailable.
    """
    reading = _Reading(clients, topics, codec, since_ms, patience_seconds)
    gathering, evidence = reading.gathering, reading.evidence
    evidence.timers = topics.timers
    before = _positions(clients, topics.group, inputs, patience_seconds)
    traces: Mapping[str, Callable[[Record], None]] = {
        topics.timers: lambda record: gathering.timer(_place(record), record.key() or b"", record.value() or b""),
        topics.dlq: lambda record: gathering.letter(_place(record), value_of(record), tuple(headers_of(record) or ())),
        topics.results: lambda record: gathering.result(_place(record), value_of(record)),
        topics.events: lambda record: gathering.event(_place(record), record.key() or b"", value_of(record) or None),
    }
    until: dict[str, Offsets] = {}
    for topic, take in traces.items():
        until[topic] = ends(clients, topic)
        reading.gather(reading.traces(topic, until[topic]), take)
    early = len(evidence.outcomes)
    rest = reading.records(topics.results, until[topics.results], ends(clients, topics.results))
    reading.gather(rest, traces[topics.results])
    evidence.late.update(outcome.at for outcome in evidence.outcomes[early:])
    after = _positions(clients, topics.group, inputs, patience_seconds)
    for topic in inputs:
        reader, ours = readers.get(topic), topics.is_ours(topic)
        starts = reading.starts(topic, None if reader is None else reader.format.since_ms)
        for partition, first in starts.items():
            place = topic, partition
            evidence.inputs[place] = Input(first, before.get(place, Position(first)), after.get(place, Position(first)))
        for record in reading.records(topic, starts, ends(clients, topic)):
            value = value_of(record) if reader is None else _as_ours(record, reader)
            if value is not None:
                headers = () if reader is not None else tuple(headers_of(record) or ())
                known = ours or reader is not None
                gathering.spawn(_place(record), value, headers, record.timestamp()[1], ours=known)
    return evidence


def _as_ours(record: Record, reader: ForeignReader) -> bytes | None:
    """The envelope that executors make of a foreign record, empty if it is a dead letter; None: it is none of ours."""
    place, value = _place(record), record.value()
    job = Job(Partition(*place[:2], 0), place.offset, record.key(), value or b"", headers_of(record))
    job.written_at_ms, job.is_null = record.timestamp()[1], value is None
    try:
        return job.value if reader(job) else None
    except EnvelopeError:
        return b""


class _Reading:
    """One pass over the topics of a namespace."""

    def __init__(
        self, clients: Clients, topics: Topics, codec: Codec, since_ms: int | None, patience_seconds: float
    ) -> None:
        self._clients = clients
        self._since_ms = since_ms
        self._patience_seconds = patience_seconds
        self._timers, self._letters = topics.timers, topics.dlq
        self._began_ms = time.time_ns() // 1_000_000
        self.gathering = Gathering(codec)
        self.evidence = self.gathering.evidence
        self.evidence.settled_from_ms = since_ms or 0

    def starts(self, topic: str, served_since_ms: int | None = None) -> Offsets:
        """From where to read a topic: what is judged, and a little more, for clocks differ; no more than is served."""
        judged_ms = 0 if self._since_ms is None or topic == self._timers else max(0, self._since_ms - _MARGIN_MS)
        from_ms = max(judged_ms, served_since_ms or 0)
        return first_at(self._clients, topic, from_ms) if from_ms else beginnings(self._clients, topic)

    def traces(self, topic: str, until: Mapping[int, int]) -> Iterator[Record]:
        """The records of a topic; where some are deleted, what is older than the rest is not judged."""
        starts = self.starts(topic)
        firsts = starts if self._since_ms is None else beginnings(self._clients, topic)
        cut = {p for p, first in firsts.items() if topic != self._timers and starts.get(p, first) <= first > 0}
        for record in self.records(topic, starts, until):
            if record.partition() in cut:
                cut.discard(record.partition() or 0)
                self._deleted_before(topic, record.timestamp()[1] + _MARGIN_MS)
            yield record
        if cut:
            self._deleted_before(topic, self._began_ms - self._retention_ms(topic))

    def _retention_ms(self, topic: str) -> int:
        """How old a record is at least that is deleted; 0 where that is not by age alone: letters are purged too."""
        if topic == self._letters:
            return 0
        configs = topic_configs(self._clients, [topic]).get(topic, {})
        retention_ms, limit_bytes = (int(configs.get(name, -1)) for name in ("retention.ms", "retention.bytes"))
        return max(0, retention_ms) if limit_bytes < 0 else 0

    def _deleted_before(self, topic: str, at_ms: int) -> None:
        evidence = self.evidence
        if topic == self._letters:
            evidence.letters_from_ms = max(evidence.letters_from_ms, at_ms)
        else:
            evidence.settled_from_ms = max(evidence.settled_from_ms, at_ms)

    def gather(self, records: Iterable[Record], take: Callable[[Record], None]) -> None:
        """Take these; one that is not of ours is a fact as well."""
        for record in records:
            try:
                take(record)
            except EnvelopeError:
                if record.value() is not None:
                    self.evidence.unreadable.append(_place(record))

    def records(self, topic: str, starts: Mapping[int, int], until: Mapping[int, int]) -> Iterator[Record]:
        """The records of a topic from these offsets to those."""
        begun = {p: start for p, start in starts.items() if p in until}  # a partition may be younger than the ends
        scan = Scan(self._clients, topic, begun, until, self._patience_seconds)
        try:
            for batch in scan.batches():
                yield from batch
        except WaitTimeout as error:
            self.evidence.stuck.append(str(error))


def _place(record: Record) -> Coordinates:
    return Coordinates(record.topic() or "", record.partition() or 0, record.offset() or 0)


def _positions(
    clients: Clients, group: str, inputs: Iterable[str], patience_seconds: float
) -> dict[tuple[str, int], Position]:
    """Where the group stands; waits for transactions that are about to change it, also for one whose member is dead."""
    places = [(topic, n) for topic in inputs for n in range(partition_count(clients, topic))]
    found = committed_offsets(clients, group, places, settled=True, seconds=patience_seconds)
    return {offset.place: position(*offset) for offset in found if offset.offset >= 0}
