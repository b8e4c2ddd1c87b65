"""What has ended since the last checkpoint, and how it is made durable."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from kantoku_kafka.engine import doneset
from kantoku_kafka.engine.culprits import culprits_among, withdraw
from kantoku_kafka.engine.prepared import Prepared, Preparer
from kantoku_kafka.engine.steps import Note, Steps
from kantoku_kafka.errors import KantokuError
from kantoku_kafka.job import Job, Offset, Partition, place_name
from kantoku_kafka.meter import UNMETERED, Committed, Meters
from kantoku_kafka.model import now_us
from kantoku_kafka.protocols import EXACTLY_ONCE, CheckpointRefused, Events, Outputs, Transaction
from kantoku_kafka.settings import EventDetail

__all__ = ["Batch", "Checkpoint", "Progress"]

_log = logging.getLogger(__name__)
_WITHDRAWALS = 4


class Progress(Protocol):
    """Where a partition stands: what a checkpoint commits for it."""

    @property
    def base(self) -> int:
        """The offset."""
        ...

    def done_runs(self) -> list[doneset.Run]:
        """What is done beyond it."""
        ...

    @property
    def remembered_from(self) -> int | None:
        """From where on a successor has to know the ids, to recognise them."""
        ...

    @property
    def past_end(self) -> int | None:
        """Up to where it has to know what was before the group was set back."""
        ...


@dataclass(frozen=True, slots=True)
class Batch:
    """One checkpoint on its way: jobs that ended, jobs to announce as received, what running ones say, and where the
    partitions stand."""

    ended: list[Job]
    announced: list[Job]
    notes: list[Note]
    claimed: set[Partition]
    offsets: list[Offset]
    prepared: Prepared
    size_bytes: int


class Checkpoint:
    """Collects what has ended and makes it durable together with the offsets.

    The loop thread collects, prepares and calls :meth:`take`; :meth:`publish` may run in another thread, one at a
    time: that thread then owns Transaction and the jobs of the batch.

    Parameters:
        outputs, events, transaction: where it goes.
        detail: which events are staged.
        executor_id: who writes.
        writer: whom the commit metadata of a partition name.
        meters: who is told of it.

    Attributes:
        size_bytes: of what the jobs leave behind that have ended.
        answered_at: when the checkpoint that is being published began, or the last of its questions was answered.
    """

    def __init__(
        self,
        *,
        outputs: Outputs,
        events: Events,
        transaction: Transaction,
        detail: EventDetail,
        executor_id: str,
        writer: Callable[[Partition], str],
        meters: Meters = UNMETERED,
    ) -> None:
        self._outputs = outputs
        self._events = events
        self._transaction = transaction
        self._preparer = Preparer(outputs, events, Steps(detail, executor_id), executor_id)
        self._announces = detail is EventDetail.FULL
        self._writer = writer
        self._meters = meters
        self._number = random.getrandbits(32)  # not from 0: a restarted process must not repeat those of the last one
        self._started: list[Job] = []
        self._notes: dict[Job, Note] = {}
        self._ended: list[Job] = []
        self._prepared = Prepared()
        self._claimed: set[Partition] = set()
        self.max_data_bytes = outputs.max_data_bytes
        self.size_bytes = 0
        self.answered_at = 0.0

    @property
    def due(self) -> bool:
        """Something has to be committed; what has only started can wait for the next commit."""
        return bool(self._ended or self._claimed or self._notes)

    @property
    def unannounced(self) -> bool:
        """Tasks were started whose event is not on its way yet."""
        return bool(self._started)

    def __len__(self) -> int:
        return len(self._ended)

    def start(self, jobs: Sequence[Job]) -> None:
        """Tasks were handed to an executor."""
        if self._announces:
            self._started += jobs

    def note(self, jobs: Iterable[Job]) -> None:
        """These run, and have said how far they are."""
        for job in jobs:
            progress, job.progress = job.progress, None
            if self._announces and progress is not None:
                self._notes[job] = job, job.beat_at_us or now_us(), progress

    def end(self, job: Job) -> None:
        """A job is terminal: it has a result, or a dead letter, or both."""
        self._ended.append(job)
        self.size_bytes += job.size_bytes

    def claim(self, partition: Partition) -> None:
        """Name us in the partition's metadata: a successor then knows whose transaction may hang."""
        self._claimed.add(partition)

    def prepare(self, most: int) -> bool:
        """Encode so many of the jobs that have ended, while the last batch is on its way. Whether there were any.

        It is work taken off the publisher, which encodes the rest.
        """
        begin = self._prepared.jobs
        fresh = self._ended[begin : begin + most]
        self._prepared += self._preparer.of(fresh)
        return bool(fresh)

    def take(self, windows: Mapping[Partition, Progress]) -> Batch:
        """All that was collected, as one checkpoint. Before the next one it is published, or restored.

        It has to be all of it: the offsets count a job as done as soon as its window does.
        """
        announced = [job for job in self._started if not job.has_ended and job.partition in windows]
        for job in announced:
            job.announced = True
        notes = [note for job, note in self._notes.items() if not job.has_ended and job.partition in windows]
        touched = {job.partition for job in self._ended}
        touched.update((job.partition for job in announced), (job.partition for job, _, _ in notes), self._claimed)
        self._number += 1
        offsets = [self._offset(partition, windows[partition]) for partition in touched]
        batch = Batch(self._ended, announced, notes, self._claimed, offsets, self._prepared, self.size_bytes)
        self._started, self._notes, self._claimed = [], {}, set()
        self._collect([])
        return batch

    def restore(self, batch: Batch) -> None:
        """A batch was refused: collect it again, before what has ended since."""
        self._meters.tell(lambda meter, loop: meter.refused(loop))
        for job in batch.announced:
            job.announced = False
        self._started = batch.announced + self._started
        self._notes = {note[0]: note for note in batch.notes} | self._notes
        self._claimed |= batch.claimed
        self._collect(batch.ended + self._ended)

    def forget(self, partitions: Iterable[Partition]) -> None:
        """The partitions are gone: what was collected of them must not be published by us."""
        gone = set(partitions)
        self._claimed -= gone
        self._started = [job for job in self._started if job.partition not in gone]
        self._notes = {job: note for job, note in self._notes.items() if job.partition not in gone}
        self._collect([job for job in self._ended if job.partition not in gone])

    def publish(self, batch: Batch) -> None:
        """Make a batch durable, or nothing of it. Blocks until it is.

        Raises:
            CheckpointRefused: nothing became visible; restore the batch and try again.
            KantokuError: not even the shortest form of a record is accepted.
        """
        self.answered_at = begun_at = time.monotonic()
        prepared = batch.prepared
        prepared += self._preparer.of(batch.ended[prepared.jobs :])
        withdrawn: list[Job] = []
        for _ in range(_WITHDRAWALS):
            prepared.events += self._preparer.events_of_running(batch.announced, batch.notes)
            try:
                self._commit(prepared, batch.offsets)
                break
            except CheckpointRefused as refusal:
                withdrawn = self._withdraw(batch, refusal) or withdrawn
                prepared = self._preparer.of(batch.ended)
        else:
            raise KantokuError(
                f"Of {len(withdrawn)} records, e.g. {[job.source for job in withdrawn[:1]]}, not even the shortest "
                "result or dead letter is accepted: see what max.message.bytes of results, events and dead letters are."
            )
        committed = Committed(batch.ended, prepared.records, batch.size_bytes, time.monotonic() - begun_at)
        self._meters.tell(lambda meter, loop: meter.committed(loop, committed))

    def _commit(self, prepared: Prepared, offsets: Sequence[Offset]) -> None:
        """1. Begin. 2. Stage side effects and dead letters, results, events. 3. Commit, with the offset and done-set of
        every partition concerned: that is the only fence."""
        self._transaction.begin()
        try:
            self._stage(prepared)
        except BaseException:
            self._transaction.abort()
            raise
        self._transaction.commit(offsets)

    def _stage(self, prepared: Prepared) -> None:
        if prepared.effects:
            self._transaction.produce(prepared.effects)
            # Without a transaction: no result whose side effects are refused, no timer gone before its task is there.
            if self._transaction.promise != EXACTLY_ONCE:
                self._transaction.probe()
        if prepared.marks:
            self._transaction.produce(prepared.marks)
        self._outputs.stage(prepared.results)
        if prepared.events:
            self._events.stage(prepared.events)

    def _collect(self, ended: list[Job]) -> None:
        """These jobs, and nothing prepared of them yet."""
        self._ended = ended
        self._prepared = Prepared()
        self.size_bytes = sum(job.size_bytes for job in ended)

    def _offset(self, partition: Partition, window: Progress) -> Offset:
        base = window.base
        writer, runs = self._writer(partition), window.done_runs()
        metadata = doneset.encode(
            writer, place_name(*partition.place), base, runs, self._number, window.remembered_from, window.past_end
        )
        return Offset(*partition.place, base, metadata)

    def _withdraw(self, batch: Batch, refusal: CheckpointRefused) -> list[Job]:
        """Shorten what can never be published; whose it was. Raises the refusal if there is nothing to shorten."""
        culprits = culprits_among(batch.ended, self._accepts) if refusal.culprit else []
        for job in culprits:
            withdraw(job, self._accepts)
        if not culprits:
            if not (refusal.culprit and batch.notes):
                raise refusal
            _log.warning("what running tasks say is refused, and left out", extra={"action": "progress_refused"})
            batch.notes.clear()
        return culprits

    def _accepts(self, jobs: list[Job]) -> bool:
        """Whether the broker takes what these leave behind; nothing becomes visible."""
        self._transaction.begin()
        try:
            self._stage(self._preparer.of(jobs))
            self._transaction.probe()
        except CheckpointRefused as refusal:
            if not refusal.culprit:
                raise
            return False
        finally:
            self._transaction.abort()
            self.answered_at = time.monotonic()
        return True
