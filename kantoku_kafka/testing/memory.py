"""Inputs, Outputs, Events and Transaction in memory, for tests without any broker.

They keep the promises of the Kafka ones, and the contract suite checks both: a transaction is all or nothing, a
member that missed a rebalance publishes nothing, offsets and metadata come back with the next assignment.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence

from kantoku_kafka.errors import KantokuError
from kantoku_kafka.job import Job, Message, Offset, Partition, Place
from kantoku_kafka.kafka.outputs import EventWriter
from kantoku_kafka.model import Result, Trail
from kantoku_kafka.protocols import EXACTLY_ONCE, Codec, Rebalance
from kantoku_kafka.testing.memory_log import InMemoryLog, Record

__all__ = ["InMemoryEvents", "InMemoryInputs", "InMemoryLog", "InMemoryOutputs", "InMemoryTransaction", "Record"]

_ENVELOPE_BYTES = 1_024


class InMemoryInputs:
    """A member of the log's group. One thread owns it.

    Parameters:
        log: what it reads; several Inputs on one log share the partitions.
    """

    def __init__(self, log: InMemoryLog) -> None:
        self._log = log
        self._topics: list[str] = []
        self._rebalance: Rebalance | None = None
        self._assigned: dict[Place, Partition] = {}
        self._positions: dict[Place, int] = {}
        self._paused: set[Place] = set()

    def subscribe(self, topics: Sequence[str], rebalance: Rebalance) -> None:
        """See :class:`~kantoku_kafka.protocols.Inputs`."""
        self._topics = list(topics)
        self._rebalance = rebalance

    def poll(self, max_jobs: int, timeout_seconds: float) -> list[Job]:
        """See :class:`~kantoku_kafka.protocols.Inputs`. Raises KantokuError before subscribe and after close."""
        if self._rebalance is None:
            raise KantokuError("These Inputs are closed, or have not subscribed.")
        deadline = time.monotonic() + timeout_seconds
        while True:
            version = self._log.version
            self._take_part(self._rebalance)
            jobs = self._fetch(max_jobs)
            left = deadline - time.monotonic()
            if jobs or left <= 0:
                return jobs
            self._log.wait(version, left)

    def ends_of(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        """See :class:`~kantoku_kafka.protocols.TableInputs`."""
        return {partition: self._log.end(partition.place) for partition in partitions}

    def read_up_to(self, partition: Partition) -> int:
        """See :class:`~kantoku_kafka.protocols.TableInputs`."""
        place = partition.place
        end, position = self._log.stable_end(place), self._positions[place]
        return position if self._log.fetch(place, position, 1) else end

    def pause(self, partitions: Iterable[Partition]) -> None:
        """See :class:`~kantoku_kafka.protocols.Inputs`."""
        self._paused |= {partition.place for partition in partitions}

    def resume(self, partitions: Iterable[Partition]) -> None:
        """See :class:`~kantoku_kafka.protocols.Inputs`."""
        self._paused -= {partition.place for partition in partitions}

    def close(self) -> None:
        """See :class:`~kantoku_kafka.protocols.Inputs`."""
        rebalance, self._rebalance = self._rebalance, None
        if rebalance is None:
            return
        self._give_up_lost(rebalance)
        if self._assigned:
            rebalance.revoked(list(self._assigned.values()))
            self._forget(list(self._assigned))
        self._log.leave(self)

    def _take_part(self, rebalance: Rebalance) -> None:
        """1. Let go of what was taken from us. 2. Join. 3. Give up what is due to others. 4. Take what is free."""
        self._give_up_lost(rebalance)
        due = self._log.join(self, self._topics)
        going = sorted(self._assigned.keys() - due)
        if going:
            rebalance.revoked([self._assigned[place] for place in going])
            self._forget(going)
            self._log.release(going)
        offsets = self._log.claim(self, due - self._assigned.keys())
        if offsets:
            partitions = rebalance.assigned(offsets)
            for partition, offset in zip(partitions, offsets, strict=True):
                self._assigned[offset.topic, offset.partition] = partition
                begin = offset.offset if partition.begin is None else partition.begin
                self._positions[offset.topic, offset.partition] = begin

    def _give_up_lost(self, rebalance: Rebalance) -> None:
        lost = sorted(self._assigned.keys() - self._log.owned(self))
        if lost:
            rebalance.lost([self._assigned[place] for place in lost])
            self._forget(lost)

    def _fetch(self, max_jobs: int) -> list[Job]:
        jobs: list[Job] = []
        for place, partition in self._assigned.items():
            if place not in self._paused:
                for record in self._log.fetch(place, self._positions[place], max_jobs - len(jobs)):
                    job = Job(partition, record.offset, record.key, record.value, record.headers)
                    job.is_null, job.written_at_ms = not record.value, record.timestamp_us // 1_000
                    jobs.append(job)
                    self._positions[place] = record.offset + 1
        return jobs

    def _forget(self, places: Collection[Place]) -> None:
        self._paused -= set(places)
        for place in places:
            del self._assigned[place], self._positions[place]


class InMemoryTransaction:
    """Makes what was staged visible at once, with the offsets. One thread at a time.

    Parameters:
        log: where it becomes visible.
        inputs: the member whose offsets are committed.
    """

    promise = EXACTLY_ONCE

    def __init__(self, log: InMemoryLog, inputs: InMemoryInputs) -> None:
        self._log = log
        self._inputs = inputs
        self._staged: list[Message] | None = None

    def begin(self) -> None:
        """Open. Raises KantokuError if one is open already."""
        if self._staged is not None:
            raise KantokuError("The last transaction is still open: commit or abort it first.")
        self._staged = []

    def produce(self, messages: Sequence[Message]) -> None:
        """Stage records. Raises KantokuError outside of a transaction, as all but begin, abort and close do."""
        self._open().extend(messages)

    def commit(self, offsets: Sequence[Offset]) -> None:
        """See :class:`~kantoku_kafka.protocols.Transaction`."""
        staged, self._staged = self._open(), None
        self._log.publish(self._inputs, staged, offsets)

    def probe(self) -> None:
        """See :class:`~kantoku_kafka.protocols.Transaction`."""
        self._log.check(self._open())

    def abort(self) -> None:
        """Give up what was staged."""
        self._staged = None

    def close(self) -> None:
        """Give up what was staged."""
        self._staged = None

    def _open(self) -> list[Message]:
        if self._staged is None:
            raise KantokuError("No transaction is open: begin one first.")
        return self._staged


class InMemoryOutputs:
    """Results, keyed by task id, staged into a transaction. One thread at a time.

    Parameters:
        transaction: what makes the results visible.
        topic: of the results.
        codec: of the envelopes.
        max_data_bytes: what the log takes as one record, less the envelope around the data.
    """

    promise = EXACTLY_ONCE

    def __init__(self, transaction: InMemoryTransaction, topic: str, codec: Codec, max_data_bytes: int) -> None:
        self._transaction = transaction
        self._topic = topic
        self._codec = codec
        self.max_data_bytes = max_data_bytes

    @classmethod
    def of(cls, log: InMemoryLog, transaction: InMemoryTransaction, topic: str, codec: Codec) -> InMemoryOutputs:
        """With the limit that follows from the log's."""
        limit = log.max_record_bytes
        return cls(transaction, topic, codec, limit - min(_ENVELOPE_BYTES, limit // 2))

    def prepare(self, results: Sequence[Result]) -> Sequence[Message]:
        """See :class:`~kantoku_kafka.protocols.Outputs`."""
        encode = self._codec.encode_result
        return [Message(self._topic, r.task_id.encode(), encode(r), r.headers) for r in results]

    def stage(self, prepared: Sequence[Message]) -> None:
        """See :class:`~kantoku_kafka.protocols.Outputs`."""
        self._transaction.produce(prepared)


class InMemoryEvents:
    """Events, keyed by task id, attempt and name, staged into a transaction. One thread at a time.

    Parameters:
        transaction: what makes the events visible.
        writer: turns them into records.
    """

    promise = EXACTLY_ONCE

    def __init__(self, transaction: InMemoryTransaction, writer: EventWriter) -> None:
        self._transaction = transaction
        self._writer = writer

    def prepare(self, trails: Sequence[Trail]) -> Sequence[Message]:
        """See :class:`~kantoku_kafka.protocols.Events`."""
        return [self._writer.message(event) for trail in trails for event in trail.events()]

    def stage(self, prepared: Sequence[Message]) -> None:
        """See :class:`~kantoku_kafka.protocols.Events`."""
        self._transaction.produce(prepared)
