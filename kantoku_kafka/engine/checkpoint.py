"""What has ended since the last checkpoint, and how it is made durable."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from kantoku_kafka.engine import doneset
from kantoku_kafka.engine.reply import reply_message
from kantoku_kafka.engine.steps import Steps
from kantoku_kafka.errors import KantokuError
from kantoku_kafka.job import Job, Message, Move, Offset, Partition
from kantoku_kafka.meter import UNMETERED, Committed, Meters
from kantoku_kafka.model import ErrorInfo, Status, now_us, utf8_safe
from kantoku_kafka.protocols import EXACTLY_ONCE, CheckpointRefused, Events, Outputs, Transaction
from kantoku_kafka.settings import EventDetail

__all__ = ["Batch", "Checkpoint", "Progress"]

_log = logging.getLogger(__name__)

_TOO_LARGE = ErrorInfo(
    "result_too_large",
    "The result, or a record the task produced, is more than its topic takes; nothing was kept.",
)
_UNSERIALISABLE = "unserialisable_effects"
_MAX_MESSAGE = 1_000
_TRUNCATED = ("kantoku-truncated", b"true")
_WITHDRAWALS = 4
_ACTION = {"action": "unserialisable_effects"}
_NO_REPLY = {"action": "reply_refused"}


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


Note = tuple[Job, int, Mapping[str, str]]
"""What a running job said by a heartbeat, and when."""


@dataclass(slots=True)
class Prepared:
    """What jobs that ended leave behind, ready to be staged."""

    results: list[Any] = field(default_factory=list)
    effects: list[Message] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    marks: list[Message] = field(default_factory=list)

    def __iadd__(self, other: Prepared) -> Self:
        self.results += other.results
        self.effects += other.effects
        self.events += other.events
        self.marks += other.marks
        return self

    def __len__(self) -> int:
        return len(self.results) + len(self.effects) + len(self.events) + len(self.marks)


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
    prepared_jobs: int
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
        self._steps = Steps(detail, executor_id)
        self._announces = detail is EventDetail.FULL
        self._executor_id = executor_id
        self._writer = writer
        self._meters = meters
        self._number = random.getrandbits(32)  # not from 0: a restarted process must not repeat those of the last one
        self._started: list[Job] = []
        self._notes: dict[Job, Note] = {}
        self._ended: list[Job] = []
        self._prepared = Prepared()
        self._prepared_jobs = 0
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
        fresh = self._ended[self._prepared_jobs : self._prepared_jobs + most]
        self._prepared_jobs += len(fresh)
        self._prepared += self._encode(fresh)
        return bool(fresh)

    def take(self, windows: Mapping[Partition, Progress]) -> Batch:
        """All that was collected, as one checkpoint. Before the next one it is published, or restored.

        It has to be all of it: the offsets count a job as done as soon as its window does.
        """
        announced = [job for job in self._started if not job.has_ended and job.partition in windows]
        for job in announced:
            job.announced = True
        touched = {job.partition for job in self._ended}
        touched.update(job.partition for job in announced)
        notes = [note for job, note in self._notes.items() if not job.has_ended and job.partition in windows]
        touched.update(job.partition for job, _, _ in notes)
        touched |= self._claimed
        self._number += 1
        offsets = [self._offset(partition, windows[partition]) for partition in touched]
        prepared, size_bytes = self._prepared, self.size_bytes
        batch = Batch(self._ended, announced, notes, self._claimed, offsets, prepared, self._prepared_jobs, size_bytes)
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
        prepared += self._encode(batch.ended[batch.prepared_jobs :])
        prepared.events += self._events.prepare(self._steps.of_running(batch.announced, batch.notes))
        withdrawn: list[Job] = []
        for _ in range(_WITHDRAWALS):
            try:
                self._commit(prepared, batch.offsets)
                self._measure(batch, len(prepared), time.monotonic() - begun_at)
                return
            except CheckpointRefused as refusal:
                culprits = self._culprits(batch.ended) if refusal.culprit else []
                if not culprits and not (refusal.culprit and batch.notes):
                    raise CheckpointRefused(str(refusal)) from refusal
            if not culprits:
                _log.warning("what running tasks say is refused, and left out", extra={"action": "progress_refused"})
                batch.notes.clear()
            withdrawn = culprits or withdrawn
            for job in culprits:
                self._withdraw(job)
            prepared = self._encode(batch.ended)
            prepared.events += self._events.prepare(self._steps.of_running(batch.announced, batch.notes))
        raise KantokuError(
            f"Of {len(withdrawn)} records, e.g. {[job.source for job in withdrawn[:1]]}, not even the shortest result "
            "or dead letter is accepted: see what max.message.bytes of results, events and dead letters are."
        )

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

    def _measure(self, batch: Batch, records: int, seconds: float) -> None:
        committed = Committed(batch.ended, records, batch.size_bytes, seconds)
        self._meters.tell(lambda meter, loop: meter.committed(loop, committed))

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
        self._prepared, self._prepared_jobs = Prepared(), 0
        self.size_bytes = sum(job.size_bytes for job in ended)

    def _encode(self, jobs: Sequence[Job]) -> Prepared:
        """What these leave behind. A job whose leavings cannot be encoded fails; its neighbours do not."""
        try:
            return Prepared(
                list(self._outputs.prepare([job.result(self._executor_id) for job in jobs if job.status is not None])),
                [
                    message
                    for job in jobs
                    if job.effects or job.letter or job.move or job.reply
                    for message in self._messages(job)
                ],
                list(self._events.prepare(self._steps.of(jobs))),
                [mark for job in jobs if job.move for mark in job.move.marks],
            )
        except Exception as error:
            if len(jobs) > 1:
                whole = Prepared()
                for job in jobs:
                    whole += self._encode([job])
                return whole
            (job,) = jobs
            if job.has_failed and job.reply is not None:
                _drop_reply(job, error)
                return self._encode(jobs)
            if job.status is None or (job.error is not None and job.error.type == _UNSERIALISABLE):
                raise
            _log.warning("task %s staged what cannot be encoded", job.task_id, exc_info=True, extra=_ACTION)
            text = utf8_safe(f"What the task staged cannot be encoded: {type(error).__name__}: {error}")
            job.fail(Status.FAILED, ErrorInfo(_UNSERIALISABLE, text[:_MAX_MESSAGE]))
            return self._encode(jobs)

    def _messages(self, job: Job) -> Iterator[Message]:
        """The records that go out besides result and events."""
        yield from job.messages()
        if job.reply is not None and job.status is not None:
            yield reply_message(job, job.reply, self._executor_id)

    def _offset(self, partition: Partition, window: Progress) -> Offset:
        base = window.base
        writer, runs = self._writer(partition), window.done_runs()
        metadata = doneset.encode(
            writer, partition.place, base, runs, self._number, window.remembered_from, window.past_end
        )
        return Offset(partition.topic, partition.number, base, metadata)

    def _culprits(self, jobs: list[Job]) -> list[Job]:
        """Those of the jobs whose records the broker will never take, found by halving; nothing becomes visible."""
        if self._accepted(jobs):
            return []
        if len(jobs) == 1:
            return jobs
        half = len(jobs) // 2
        return self._culprits(jobs[:half]) + self._culprits(jobs[half:])

    def _withdraw(self, job: Job) -> None:
        """Of a failure nothing is shortened that would be taken without its reply, or without its dead letter."""
        if job.has_failed and job.reply is not None and self._accepted_without("reply", job):
            _drop_reply(job)
        elif job.has_failed and job.letter is not None and self._accepted_without("letter", job):
            job.letter = _shortened(job.letter)
        else:
            _shorten(job)

    def _accepted_without(self, part: str, job: Job) -> bool:
        kept = getattr(job, part)
        setattr(job, part, None)
        try:
            return self._accepted([job])
        finally:
            setattr(job, part, kept)

    def _accepted(self, jobs: list[Job]) -> bool:
        self._transaction.begin()
        try:
            self._stage(self._encode(jobs))
            self._transaction.probe()
        except CheckpointRefused as refusal:
            if not refusal.culprit:
                raise
            return False
        finally:
            self._transaction.abort()
            self.answered_at = time.monotonic()
        return True


def _shorten(job: Job) -> None:
    """Shorten what a job leaves behind, further each time: the result fails for itself, the task goes nowhere else, the
    dead letter loses its value, then its key and headers. A success that cannot be replied is a failure, which is."""
    move = job.move
    if move is not None and move.messages:
        job.move = Move((), marks=move.marks) if move.marks else None
        job.fail(job.outcome or Status.FAILED, _undeliverable({message.topic for message in move.messages}))
    elif job.status is not None:
        refused = {message.topic for message in job.effects or ()}
        if job.reply is not None and not job.has_failed:
            refused.add(job.reply.topic)
        else:
            job.raw_headers = None
        job.fail(Status.FAILED, _undeliverable(refused) if refused else _TOO_LARGE)
    if job.letter is not None:
        job.letter = _shortened(job.letter)


def _shortened(letter: Message) -> Message:
    if letter.value:
        return letter._replace(value=b"", headers=(*letter.headers, _TRUNCATED))
    own = tuple((name, value) for name, value in letter.headers if name.startswith("kantoku-"))
    return letter._replace(key=None, headers=own)


def _drop_reply(job: Job, error: Exception | None = None) -> None:
    assert job.reply is not None, "there is one to drop"
    _log.warning("task %s: no reply to %s", job.task_id, job.reply.topic, exc_info=error, extra=_NO_REPLY)
    job.reply = None


def _undeliverable(topics: Iterable[str]) -> ErrorInfo:
    named = ", ".join(sorted(topics))
    return ErrorInfo(
        "undeliverable",
        f"What the task leaves behind cannot be written to {named}: a topic is missing, forbidden or takes less.",
    )
