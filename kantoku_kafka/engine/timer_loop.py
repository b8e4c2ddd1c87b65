"""Puts tasks onto their inputs when they are due. The thread of :meth:`TimerLoop.run` owns all of its state.

To fire is a checkpoint like that of a task: the task, a tombstone for its timer and the offset of the timers'
partition, in one transaction. Who has lost the partition cannot commit that; who has won it reads to its end before.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from queue import SimpleQueue

from kantoku_kafka.avro.control import decode_timer
from kantoku_kafka.engine.cancel import Cancellations, cancelled_error
from kantoku_kafka.engine.checkpoint import Checkpoint
from kantoku_kafka.engine.deadletter import dead_letter
from kantoku_kafka.engine.judge import FIRED
from kantoku_kafka.engine.publisher import Publisher
from kantoku_kafka.engine.timer_book import Entry, TimerBook
from kantoku_kafka.errors import EnvelopeError
from kantoku_kafka.job import Job, Message, Move, Offset, Partition
from kantoku_kafka.model import Command, ErrorInfo, Status, Timer, now_us
from kantoku_kafka.names import Topics
from kantoku_kafka.protocols import Codec, TableInputs

__all__ = ["TimerLoop"]

_log = logging.getLogger(__name__)
_MAX_BATCH, _MAX_BATCH_BYTES = 2_000, 8 << 20
_CHUNK = 500
_IDLE_SECONDS = 0.25
_AT_ONCE_US = 0


class TimerLoop:
    """Fires timers until it is told to stop. :meth:`stop` may be called from any thread.

    Parameters:
        inputs: the timers topic.
        checkpoint: where everything goes that is due.
        topics: the names.
        codec: of the envelopes.
        commands: where those that cancel tasks come from.
        cancellations: what was cancelled before; default nothing.
        clock: the time in microseconds; nothing fires before this says so.
        progress_seconds: how often to commit that timers have gone, when nothing else is committed; default 5.
    """

    def __init__(
        self,
        *,
        inputs: TableInputs,
        checkpoint: Checkpoint,
        topics: Topics,
        codec: Codec,
        commands: SimpleQueue[Sequence[Command]] | None = None,
        cancellations: Cancellations | None = None,
        clock: Callable[[], int] = now_us,
        progress_seconds: float = 5.0,
    ) -> None:
        self._inputs = inputs
        self._checkpoint = checkpoint
        self._topics = topics
        self._codec = codec
        self._commands: SimpleQueue[Sequence[Command]] = commands or SimpleQueue()
        self._cancellations = Cancellations() if cancellations is None else cancellations
        self._clock = clock
        self._progress_seconds = progress_seconds
        self._publisher = Publisher(checkpoint, lambda: None)
        self._books: dict[Partition, TimerBook] = {}
        self._committed: dict[Partition, int] = {}
        self._epoch = 0
        self._report_at = 0.0
        self._stopping = False

    def stop(self) -> None:
        """End :meth:`run` soon."""
        self._stopping = True

    def run(self) -> None:
        """Work until :meth:`stop`. Raises what the parts cannot recover from."""
        try:
            self._inputs.subscribe([self._topics.timers], self)
            while not self._stopping:
                self._turn()
            self._inputs.close()
        finally:
            self._publisher.close()
            for book in self._books.values():
                book.close()

    def _turn(self) -> None:
        """One round: read what is new, fire what is due."""
        self._take_in(self._inputs.poll(_MAX_BATCH, self._wait_seconds()))
        while not self._commands.empty():
            self._obey(self._cancellations.add(self._commands.get_nowait()))
        if not self._checkpoint.due:  # what was refused comes first
            self._fire()
            self._report_progress()
        self._publisher.publish(self._books)
        self._publisher.conclude()

    def _wait_seconds(self) -> float:
        if self._checkpoint.due:
            return min(self._publisher.pause_seconds, _IDLE_SECONDS)
        next_due_us = min((book.next_due_us for book in self._whole().values()), default=None)
        if next_due_us is None:
            return _IDLE_SECONDS
        return min(max(0.0, (next_due_us - self._clock()) / 1_000_000), _IDLE_SECONDS)

    def _take_in(self, jobs: Iterable[Job]) -> None:
        unread = [(partition, book) for partition, book in self._books.items() if not book.is_whole]
        for partition, records in groupby(jobs, key=attrgetter("partition")):
            book = self._books.get(partition)
            if book is not None:
                book.take_in([self._entry(job) for job in records])
        for partition, book in self._books.items():
            book.was_read_up_to(self._inputs.read_up_to(partition))
        for partition, book in unread:
            if book.is_whole and len(book):
                _log.info("%s: %d timers are pending", partition, len(book), extra={"action": "timers_read"})

    def _entry(self, job: Job) -> Entry:
        """A record as the book takes it; one that cannot be read, or is cancelled already, is due at once."""
        key = job.key or b""
        if not job.value:
            return Entry(job.offset, key, 0, None)
        try:
            timer = decode_timer(job.value)
            cancelled = self._cancellations and self._cancelled(timer) is not None
            due_at_us = _AT_ONCE_US if cancelled else timer.due_at_us
        except EnvelopeError:
            due_at_us = _AT_ONCE_US
        return Entry(job.offset, key, due_at_us, job.value)

    def _whole(self) -> dict[Partition, TimerBook]:
        return {partition: book for partition, book in self._books.items() if book.is_whole}

    def _fire(self) -> None:
        """One checkpoint full of what is due, the partitions in turn."""
        now_us, checkpoint = self._clock(), self._checkpoint
        books = self._whole()
        while books and len(checkpoint) < _MAX_BATCH and checkpoint.size_bytes < _MAX_BATCH_BYTES:
            for partition, book in list(books.items()):
                due = book.take_due(now_us, _CHUNK)
                for offset, key, value in due:
                    checkpoint.end(self._fired(Job(partition, offset, key, value)))
                if len(due) < _CHUNK:
                    del books[partition]

    def _fired(self, job: Job) -> Job:
        """The task goes onto its input; what no timer can be read from becomes a dead letter."""
        partition = job.partition
        tombstone = Message(partition.topic, job.key, None, (), partition.number)
        try:
            timer = decode_timer(job.value)
            command = self._cancelled(timer) if self._cancellations else None
        except EnvelopeError as error:
            _log.warning("%s offset %d: %s", partition, job.offset, error, extra={"action": "dead_letter"})
            job.letter = dead_letter(self._topics.dlq, job, ErrorInfo(type(error).__name__, str(error)))
            job.move = Move((tombstone,))
            return job
        job.task_id, job.type, job.attempt = timer.task_id, timer.type, timer.attempt
        job.received_at_us = timer.due_at_us
        if command is not None:
            job.move = Move((tombstone,))
            job.fail(Status.CANCELLED, cancelled_error(command))
            return job
        place = f"{partition.topic}/{partition.number}/{job.offset}".encode()
        task = Message(timer.topic, timer.key, timer.task, (*timer.headers, (FIRED, place)))
        job.carry_on(Move((task, tombstone)))
        return job

    def _obey(self, cancelled: Sequence[Command]) -> None:
        """What is cancelled is due at once: to be ended, not to be run."""

        def is_meant(value: bytes) -> bool:
            try:
                return self._cancelled(decode_timer(value)) is not None
            except EnvelopeError:
                return False

        ids = [command.task_id.encode() for command in cancelled if command.task_id is not None]
        for book in self._books.values():
            if len(ids) < len(cancelled):
                book.hasten(is_meant, None)
            else:
                for at in range(0, len(ids), _CHUNK):
                    book.hasten(is_meant, ids[at : at + _CHUNK])

    def _cancelled(self, timer: Timer) -> Command | None:
        """The command that cancels the task of a timer. Raises EnvelopeError."""
        return self._cancellations.match(timer.task_id, timer.type, lambda: self._codec.decode_task(timer.task))

    def _report_progress(self) -> None:
        """Where nothing is pending any more below some offset, a successor need not read from further back."""
        now = time.monotonic()
        if now < self._report_at:
            return
        self._report_at = now + self._progress_seconds
        for partition, book in self._whole().items():
            base = book.base
            if base != self._committed.get(partition):
                self._committed[partition] = base
                self._checkpoint.claim(partition)

    # --- rebalances, called from inside poll and close

    def assigned(self, offsets: Sequence[Offset]) -> Sequence[Partition]:
        """Take partitions on. By now the last owner's transactions have ended: their records are below the end."""
        partitions = []
        for topic, number, offset, _ in offsets:
            self._epoch += 1
            partition = Partition(topic, number, self._epoch)
            self._books[partition] = TimerBook(offset, self._inputs.end_of(partition))
            self._checkpoint.claim(partition)
            partitions.append(partition)
        return partitions

    def revoked(self, partitions: Sequence[Partition]) -> None:
        """Let go; what was due meanwhile is for the next owner."""
        self.lost(partitions)

    def lost(self, partitions: Sequence[Partition]) -> None:
        """Forget these: nothing of them may be published any more."""
        self._checkpoint.forget(partitions)
        for partition in partitions:
            self._books.pop(partition).close()
            self._committed.pop(partition, None)
