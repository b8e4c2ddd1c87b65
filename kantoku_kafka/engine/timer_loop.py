"""Puts tasks onto their inputs when they are due. The thread of :meth:`TimerLoop.run` owns all of its state.

To fire is a checkpoint like that of a task: the task, a mark that it has fired, and the offset of the partition that
told of it, in one transaction. Who has lost the partition cannot commit that; who has won it reads to its end before.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from queue import SimpleQueue

from kantoku_kafka.engine.book import NEVER_US, Book
from kantoku_kafka.engine.cancel import Cancellations
from kantoku_kafka.engine.checkpoint import Checkpoint
from kantoku_kafka.engine.publisher import Publisher
from kantoku_kafka.job import Job, Offset, Partition
from kantoku_kafka.meter import UNMETERED, Meters, Standing
from kantoku_kafka.model import Command, now_us
from kantoku_kafka.protocols import TableInputs

__all__ = ["BookMaker", "TimerLoop"]

_log = logging.getLogger(__name__)
_MAX_BATCH, _MAX_BATCH_BYTES = 2_000, 8 << 20
_CHUNK = 500
_IDLE_SECONDS = 0.25

BookMaker = Callable[[Partition, int, int], Book]
"""Opens the book of a partition: from which offset it is read, and behind which record it is whole."""


class TimerLoop:
    """Fires what is due until it is told to stop. :meth:`stop` may be called from any thread.

    Parameters:
        inputs: the topics that say what is due when.
        checkpoint: where everything goes that is due.
        books: by topic, what reads it.
        commands: where those that cancel tasks come from.
        cancellations: what was cancelled before; the books ask it.
        clock: the time in microseconds; nothing fires before this says so.
        timeout_seconds: of one request to Kafka.
        progress_seconds: how often to commit that timers have gone, when nothing else is committed; default 5.
        meters: who is told where it stands, as often.

    Attributes:
        turned_at: as of :class:`~kantoku_kafka.engine.loop.Loop`.
    """

    def __init__(
        self,
        *,
        inputs: TableInputs,
        checkpoint: Checkpoint,
        books: Mapping[str, BookMaker],
        commands: SimpleQueue[Sequence[Command]],
        cancellations: Cancellations,
        clock: Callable[[], int] = now_us,
        timeout_seconds: float,
        progress_seconds: float = 5.0,
        meters: Meters = UNMETERED,
    ) -> None:
        self._inputs = inputs
        self._checkpoint = checkpoint
        self._makers = dict(books)
        self._commands = commands
        self._cancellations = cancellations
        self._clock = clock
        self._progress_seconds = progress_seconds
        self._meters = meters
        self._publisher = Publisher(checkpoint, lambda: None, timeout_seconds)
        self._books: dict[Partition, Book] = {}
        self._committed: dict[Partition, int] = {}
        self._epoch = 0
        self._report_at = 0.0
        self.turned_at: float | None = None
        self._stopping = False

    def stop(self) -> None:
        """End :meth:`run` soon."""
        self._stopping = True

    @property
    def stopping(self) -> bool:
        """It was told to stop."""
        return self._stopping

    @property
    def assigned_partitions(self) -> int:
        """How many partitions it has. May be called from any thread."""
        return len(self._books)

    def run(self) -> None:
        """Work until :meth:`stop`. Raises what the parts cannot recover from."""
        try:
            self._inputs.subscribe(sorted(self._makers), self)
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
        self.turned_at = time.monotonic()
        self._obey()
        if not self._checkpoint.due:  # what was refused comes first
            self._fire()
            self._report_progress()
        self._publisher.publish(self._books)
        self._publisher.conclude()

    def _wait_seconds(self) -> float:
        if self._checkpoint.due:
            return min(self._publisher.pause_seconds, _IDLE_SECONDS)
        next_due_us = min((book.next_due_us for book in self._whole()), default=None)
        if next_due_us is None:
            return _IDLE_SECONDS
        return min(max(0.0, (next_due_us - self._clock()) / 1_000_000), _IDLE_SECONDS)

    def _take_in(self, jobs: Iterable[Job]) -> None:
        unread = [book for book in self._books.values() if not book.is_whole]
        for partition, records in groupby(jobs, key=attrgetter("partition")):
            book = self._books.get(partition)
            if book is not None:
                book.take_in(records)
        for partition, book in self._books.items():
            book.was_read_up_to(self._inputs.read_up_to(partition))
        for book in unread:
            if book.is_whole and len(book):
                _log.info("%s: %d are pending", book.partition, len(book), extra={"action": "timers_read"})

    def _obey(self) -> None:
        while not self._commands.empty():
            cancelled = self._cancellations.add(self._commands.get_nowait())
            for book in self._books.values() if cancelled else ():
                book.obey(cancelled)

    def _whole(self) -> list[Book]:
        return [book for book in self._books.values() if book.is_whole]

    def _fire(self) -> None:
        """One checkpoint full of what is due, the partitions in turn."""
        now_us, checkpoint = self._clock(), self._checkpoint
        books = self._whole()
        while books and len(checkpoint) < _MAX_BATCH and checkpoint.size_bytes < _MAX_BATCH_BYTES:
            for book in list(books):
                due = book.take_due(now_us, _CHUNK)
                for job in due:
                    checkpoint.end(job)
                if len(due) < _CHUNK:
                    books.remove(book)

    def _report_progress(self) -> None:
        """Where nothing is pending any more below some offset, a successor need not read from further back."""
        now = time.monotonic()
        if now < self._report_at:
            return
        self._report_at = now + self._progress_seconds
        if self._meters:
            self._meters.tell(lambda meter, loop: meter.stands(loop, self._standing()))
        for book in self._whole():
            base = book.base
            if base != self._committed.get(book.partition):
                self._committed[book.partition] = base
                self._checkpoint.claim(book.partition)

    def _standing(self) -> Standing:
        pending: dict[str, int] = {}
        for book in self._books.values():
            pending[book.partition.topic] = pending.get(book.partition.topic, 0) + len(book)
        due_at_us = min((book.next_due_us for book in self._whole()), default=NEVER_US)
        return Standing(len(self._books), pending=pending, due_at_us=None if due_at_us == NEVER_US else due_at_us)

    # --- rebalances, called from inside poll and close

    def assigned(self, offsets: Sequence[Offset]) -> Sequence[Partition]:
        """Take partitions on. By now the last owner's transactions have ended: their records are below the end."""
        partitions = []
        for topic, number, _, _ in offsets:
            self._epoch += 1
            partitions.append(Partition(topic, number, self._epoch))
        ends = self._inputs.ends_of(partitions)
        for partition, (topic, _, offset, _) in zip(partitions, offsets, strict=True):
            self._books[partition] = self._makers[topic](partition, offset, ends[partition])
            self._checkpoint.claim(partition)
        self._meters.rebalanced("assigned", partitions)
        return partitions

    def revoked(self, partitions: Sequence[Partition]) -> None:
        """Let go; what was due meanwhile is for the next owner."""
        self._meters.rebalanced("revoked", partitions)
        self._forget(partitions)

    def lost(self, partitions: Sequence[Partition]) -> None:
        """Forget these: nothing of them may be published any more."""
        self._meters.rebalanced("lost", partitions)
        self._forget(partitions)

    def _forget(self, partitions: Sequence[Partition]) -> None:
        self._checkpoint.forget(partitions)
        for partition in partitions:
            self._books.pop(partition).close()
            self._committed.pop(partition, None)
