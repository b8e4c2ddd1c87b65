"""The timers of one assigned partition: the task of each is put onto its input when it is due."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from kantoku_kafka.avro.control import decode_timer
from kantoku_kafka.engine.book import Book
from kantoku_kafka.engine.cancel import Cancellations, cancelled_error
from kantoku_kafka.engine.deadletter import dead_letter
from kantoku_kafka.engine.judge import FIRED
from kantoku_kafka.engine.reply import Replies
from kantoku_kafka.engine.timer_table import Entry, TimerTable
from kantoku_kafka.errors import EnvelopeError, SignatureError
from kantoku_kafka.job import Job, Message, Move, Partition
from kantoku_kafka.model import Command, ErrorInfo, Status, Timer
from kantoku_kafka.names import Topics
from kantoku_kafka.protocols import Codec

if TYPE_CHECKING:
    from kantoku_kafka.signing.guard import Guard

__all__ = ["TimerBook"]

_log = logging.getLogger(__name__)
_CHUNK = 500
_AT_ONCE_US = 0
_ATTEMPT, _LAST_ATTEMPT = "kantoku-attempt", (1 << 63) - 1
"""Header of a mark: which attempt has fired."""


class TimerBook(Book):
    """As :class:`Book`.

    Parameters:
        topics: the names.
        codec: of the envelopes.
        cancellations: whose timers are not to fire.
        replies: which of them ask for a reply.
        guard: says whether their tasks were signed; None: they need not be.
    """

    def __init__(
        self,
        partition: Partition,
        offset: int,
        end: int,
        *,
        topics: Topics,
        codec: Codec,
        cancellations: Cancellations,
        replies: Replies,
        guard: Guard | None = None,
    ) -> None:
        super().__init__(partition, offset, end)
        self._topics = topics
        self._codec = codec
        self._cancellations = cancellations
        self._replies = replies
        self._guard = guard
        self._table = TimerTable()

    def take_in(self, records: Iterable[Job]) -> None:
        jobs = list(records)
        self._table.take_in(map(self._entry, jobs))
        if jobs:
            self.was_read_up_to(jobs[-1].offset + 1)

    def _entry(self, job: Job) -> Entry:
        """A record as the table takes it; one that cannot be read, or is cancelled already, is due at once."""
        key = job.key or b""
        if not job.value:
            return Entry(job.offset, key, 0, None, _fired_attempt(job))
        attempt = _LAST_ATTEMPT
        try:
            timer = decode_timer(job.value)
            cancelled = self._cancellations and self._cancelled(timer) is not None
            due_at_us = _AT_ONCE_US if cancelled else timer.due_at_us
            attempt = timer.attempt
        except EnvelopeError:
            due_at_us = _AT_ONCE_US
        return Entry(job.offset, key, due_at_us, job.value, attempt)

    @property
    def next_due_us(self) -> int:
        return _AT_ONCE_US if self._table.outlived else self._table.next_due_us

    def take_due(self, now_us: int, most: int) -> Sequence[Job]:
        outlived = self._table.outlived
        written = [self._written_again(outlived.pop(key)) for key in list(outlived)[:most]]
        due = self._table.take_due(now_us, most - len(written))
        return written + [self._fired(Job(self.partition, offset, key, value)) for offset, key, value in due]

    def _written_again(self, entry: Entry) -> Job:
        """Without transactions the mark that an attempt has fired may come behind the timer of the next one."""
        job = Job(self.partition, entry.offset, entry.key, b"")
        again = Message(self.partition.topic, entry.key, entry.value, (), self.partition.number)
        job.carry_on(Move((), marks=(again,)))
        return job

    def _fired(self, job: Job) -> Job:
        """The task goes onto its input; what no timer can be read from, or no signed task, becomes a dead letter."""
        partition = job.partition
        place = f"{partition.topic}/{partition.number}/{job.offset}".encode()
        tombstone = Message(partition.topic, job.key, None, (), partition.number)
        try:
            timer = decode_timer(job.value)
            tombstone = tombstone._replace(headers=((_ATTEMPT, b"%d" % timer.attempt),))
            if self._guard is not None:
                self._guard.check_timer(timer)
            command = self._cancelled(timer) if self._cancellations else None
        except EnvelopeError as error:
            if isinstance(error, SignatureError):  # the letter is of the task, which may go on some day
                job.key, job.value, job.raw_headers = timer.key, timer.task, timer.headers
                job.home = timer.topic
            _log.warning("%s offset %d: %s", partition, job.offset, error, extra={"action": "dead_letter"})
            job.letter = dead_letter(self._topics.dlq, job, ErrorInfo(error.reason, str(error)))
            job.move = Move((), marks=(tombstone,))
            return job
        job.task_id, job.type, job.attempt = timer.task_id, timer.type, timer.attempt
        job.received_at_us = timer.due_at_us
        job.key, job.raw_headers = timer.key, timer.headers  # also where its input refuses it, and it ends here
        with suppress(EnvelopeError):
            job.reply = self._replies.of(timer.type, self._codec.decode_task(timer.task))
        if command is not None:
            job.move = Move((), marks=(tombstone,))
            job.fail(Status.CANCELLED, cancelled_error(command))
            return job
        task = Message(timer.topic, timer.key, timer.task, (*timer.headers, (FIRED, place)))
        job.carry_on(Move((task,), marks=(tombstone,)))
        return job

    def obey(self, cancelled: Sequence[Command]) -> None:
        """What is cancelled is due at once: to be ended, not to be run."""

        def is_meant(value: bytes) -> bool:
            try:
                return self._cancelled(decode_timer(value)) is not None
            except EnvelopeError:
                return False

        ids = [command.task_id.encode() for command in cancelled if command.task_id is not None]
        if len(ids) < len(cancelled):
            self._table.hasten(is_meant, None)
        for at in range(0, len(ids), _CHUNK):
            self._table.hasten(is_meant, ids[at : at + _CHUNK])

    def _cancelled(self, timer: Timer) -> Command | None:
        """The command that cancels the task of a timer. Raises EnvelopeError."""
        return self._cancellations.match(timer.task_id, timer.type, lambda: self._codec.decode_task(timer.task))

    @property
    def base(self) -> int:
        first = self._table.first_offset
        pending = [entry.offset for entry in self._table.outlived.values()] + ([] if first is None else [first])
        return min(pending, default=self.next_offset)

    def __len__(self) -> int:
        return len(self._table)

    def close(self) -> None:
        self._table.close()


def _fired_attempt(mark: Job) -> int:
    """Up to which attempt a mark ends the timers of its key; one that does not say ends all."""
    for name, attempt in mark.raw_headers or ():
        if name == _ATTEMPT and attempt is not None:
            with suppress(ValueError):
                return int(attempt)
    return _LAST_ATTEMPT
