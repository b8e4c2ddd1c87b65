"""What has ended since the last checkpoint, and how it is made durable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from kantoku_kafka.engine import doneset
from kantoku_kafka.engine.window import Window
from kantoku_kafka.job import Job, Offset, Partition
from kantoku_kafka.model import ErrorInfo, Event, EventName, Status
from kantoku_kafka.protocols import CheckpointRefused, Events, Outputs, Transaction
from kantoku_kafka.settings import EventDetail

__all__ = ["Batch", "Checkpoint"]

_TOO_LARGE = ErrorInfo(
    "result_too_large",
    "The result, or a record the task produced, is more than its topic takes; nothing was kept.",
)
_UNDELIVERABLE = ErrorInfo(
    "undeliverable",
    "A record the task produced cannot be written: its topic is missing, forbidden or takes less.",
)
_RECEIVED, _EXECUTED, _SENT = EventName.RECEIVED_TASK, EventName.EXECUTED_TASK, EventName.SENT_OUTPUTS
_ERROR, _DEAD_LETTERED = EventName.ERROR, EventName.DEAD_LETTERED
_ENDED = {status: {"status": status.value} for status in Status}


@dataclass(frozen=True, slots=True)
class Batch:
    """One checkpoint on its way: jobs that ended, jobs to announce as received, and where the partitions stand."""

    ended: list[Job]
    announced: list[Job]
    claimed: set[Partition]
    offsets: list[Offset]


class Checkpoint:
    """Collects what has ended and makes it durable together with the offsets.

    The loop thread collects and calls :meth:`take`; :meth:`publish` may run in another thread, one at a time:
    that thread then owns Outputs, Events, Transaction and the jobs of the batch.

    Parameters:
        outputs, events, transaction: where it goes.
        detail: which events are staged.
        executor_id: who writes.
        writer: whom the commit metadata of a partition name.
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
    ) -> None:
        self._outputs = outputs
        self._events = events
        self._transaction = transaction
        self._detail = detail
        self._executor_id = executor_id
        self._writer = writer
        self._started: list[Job] = []
        self._ended: list[Job] = []
        self._claimed: set[Partition] = set()
        self.max_data_bytes = outputs.max_data_bytes
        self.size_bytes = 0

    @property
    def due(self) -> bool:
        """Something has to be committed; what has only started can wait for the next commit."""
        return bool(self._ended or self._claimed)

    @property
    def unannounced(self) -> bool:
        """Tasks were started whose event is not on its way yet."""
        return bool(self._started)

    def __len__(self) -> int:
        return len(self._ended)

    def start(self, jobs: Sequence[Job]) -> None:
        """Tasks were handed to an executor."""
        if self._detail is EventDetail.FULL:
            self._started += jobs

    def end(self, job: Job) -> None:
        """A job is terminal: it has a result, or a dead letter, or both."""
        self._ended.append(job)
        self.size_bytes += len(job.output)

    def claim(self, partition: Partition) -> None:
        """Name us in the partition's metadata: a successor then knows whose transaction may hang."""
        self._claimed.add(partition)

    def forget(self, partitions: Iterable[Partition]) -> None:
        """The partitions are gone: what was collected of them must not be published by us."""
        gone = set(partitions)
        self._claimed -= gone
        self._started = [job for job in self._started if job.partition not in gone]
        self._ended = [job for job in self._ended if job.partition not in gone]

    def take(self, windows: Mapping[Partition, Window]) -> Batch:
        """All that was collected, as one checkpoint. Before the next one it is published, or restored.

        It has to be all of it: the offsets count a job as done as soon as its window does.
        """
        announced = [job for job in self._started if job.status is None and job.partition in windows]
        touched = {job.partition for job in self._ended}
        touched.update(job.partition for job in announced)
        touched |= self._claimed
        offsets = [self._offset(partition, windows[partition]) for partition in touched]
        batch = Batch(self._ended, announced, self._claimed, offsets)
        self._started, self._ended, self._claimed, self.size_bytes = [], [], set(), 0
        return batch

    def restore(self, batch: Batch) -> None:
        """A batch was refused: collect it again, before what has ended since."""
        self._started = batch.announced + self._started
        self._ended = batch.ended + self._ended
        self._claimed |= batch.claimed
        self.size_bytes = sum(len(job.output) for job in self._ended)

    def publish(self, batch: Batch) -> None:
        """Make a batch durable, or nothing of it. Blocks until it is.

        Raises:
            CheckpointRefused: nothing became visible; restore the batch and try again.
        """
        try:
            self._commit(batch)
        except CheckpointRefused as refusal:
            if not refusal.culprit:
                raise
            for job in self._culprits(batch.ended):
                _withdraw(job)
            self._commit(batch)
        for job in batch.announced:
            job.announced = True

    def _commit(self, batch: Batch) -> None:
        """1. Begin. 2. Stage results, side effects and dead letters. 3. Stage events.
        4. Commit, with the offset and done-set of every partition concerned: that is the only fence."""
        self._transaction.begin()
        try:
            self._stage(batch.ended)
            if self._detail is not EventDetail.OFF:
                self._events.stage(self._steps(batch))
        except BaseException:
            self._transaction.abort()
            raise
        self._transaction.commit(batch.offsets)

    def _stage(self, jobs: Sequence[Job]) -> None:
        self._outputs.stage([job.result(self._executor_id) for job in jobs if job.status is not None])
        effects = [m for job in jobs if job.effects and job.status is Status.OK for m in job.effects]
        effects += [job.letter for job in jobs if job.letter is not None]
        if effects:
            self._transaction.produce(effects)

    def _offset(self, partition: Partition, window: Window) -> Offset:
        base = window.base
        metadata = doneset.encode(self._writer(partition), base, window.done_runs())
        return Offset(partition.topic, partition.number, base, metadata)

    def _culprits(self, jobs: list[Job]) -> list[Job]:
        """Those of the jobs whose records the broker will never take, found by halving; nothing becomes visible."""
        if self._accepted(jobs):
            return []
        if len(jobs) == 1:
            return jobs
        half = len(jobs) // 2
        return self._culprits(jobs[:half]) + self._culprits(jobs[half:])

    def _accepted(self, jobs: list[Job]) -> bool:
        self._transaction.begin()
        try:
            self._stage(jobs)
            self._transaction.probe()
        except CheckpointRefused as refusal:
            if not refusal.culprit:
                raise
            return False
        finally:
            self._transaction.abort()
        return True

    def _steps(self, batch: Batch) -> list[Event]:
        """The events of this checkpoint, those of one task side by side."""
        events: list[Event] = []
        executor_id = self._executor_id
        full = self._detail is EventDetail.FULL
        for job in batch.ended:
            if job.status is None:  # never decoded: there is no task to speak of
                continue
            task_id, type_, attempt = job.task_id, job.type, job.attempt
            source, at_us, error = job.source, job.finished_at_us, job.error
            if full:
                if not job.announced:
                    events.append(Event(task_id, type_, _RECEIVED, attempt, job.received_at_us, executor_id, source))
                name = _EXECUTED if job.started_at_us is not None else _ERROR
                events.append(Event(task_id, type_, name, attempt, at_us, executor_id, source, error))
                if job.letter is not None:
                    events.append(Event(task_id, type_, _DEAD_LETTERED, attempt, at_us, executor_id, source, error))
            if job.events and job.status is Status.OK:
                events += [event for event in job.events if full or "." in event.name]
            ended = _ENDED[job.status]
            events.append(Event(task_id, type_, _SENT, attempt, at_us, executor_id, source, error, ended))
        for job in batch.announced:
            at_us = job.received_at_us
            events.append(Event(job.task_id, job.type, _RECEIVED, job.attempt, at_us, executor_id, job.source))
        return events


def _withdraw(job: Job) -> None:
    """Make a job publishable: it fails for itself, or its dead letter goes without the bytes."""
    if job.status is not None:
        job.fail(Status.FAILED, _UNDELIVERABLE if job.effects else _TOO_LARGE)
        job.raw_headers = None
    if job.letter is not None:
        job.letter = job.letter._replace(value=b"", headers=(*job.letter.headers, ("kantoku-truncated", b"true")))
