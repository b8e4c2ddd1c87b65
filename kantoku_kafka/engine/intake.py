"""What is taken in of the assigned partitions: their windows, records that must wait, partitions that must pause."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable

from kantoku_kafka.engine import doneset
from kantoku_kafka.engine.past import NO_PAST, History, Past
from kantoku_kafka.engine.window import Window
from kantoku_kafka.job import Job, Offset, Partition, Place, place_name
from kantoku_kafka.meter import Undone

__all__ = ["Intake"]

_log = logging.getLogger(__name__)


class Intake:
    """The loop thread owns it.

    Parameters:
        max_waiting, max_waiting_bytes: so many jobs may wait for their start, in all.
        history: what was in partitions whose offset is not one of ours.

    Attributes:
        windows: of the assigned partitions.
        done_before: those of the jobs admitted that were done before: they came again for their ids.
        paused: partitions of which nothing more is to come for now.
    """

    def __init__(self, max_waiting: int, max_waiting_bytes: int, history: History = lambda _: {}) -> None:
        self._bounds = max_waiting, max_waiting_bytes
        self._history = history
        self.windows: dict[Partition, Window] = {}
        self.done_before: set[Job] = set()
        self.paused: set[Partition] = set()
        self._parked: dict[Partition, deque[Job]] = {}
        self._epoch = 0

    def open(self, offsets: Iterable[Offset]) -> list[Partition]:
        """Open a window for each partition, as the last checkpoint left it."""
        found = [
            (offset, doneset.decode(offset.metadata, place_name(*offset.place), offset.offset)) for offset in offsets
        ]
        past = self._history([offset.place for offset, done in found if done is None or done.past_end is not None])
        return [self._open(offset, done, past.get(offset.place, NO_PAST)) for offset, done in found]

    def _open(self, committed: Offset, done: doneset.DoneSet | None, past: Past) -> Partition:
        topic, number, offset, metadata = committed
        self._epoch += 1
        partition = Partition(topic, number, self._epoch)
        if metadata and done is None:
            _log.warning(
                "%s[%d]: the commit metadata are not ours or damaged; finished tasks beyond offset %d run again",
                topic,
                number,
                offset,
                extra={"action": "foreign_metadata", "topic": topic, "partition": number, "offset": offset},
            )
        runs = list(done.runs) if done else []
        if done is not None and done.past_end is not None:  # what has ended since is known without it
            past = past._replace(end=min(past.end, done.past_end))
        remembered_from = done.remembered_from if done else past.begin if past.end else None
        partition.begin = offset if remembered_from is None else min(remembered_from, offset)
        if partition.begin < offset:  # read again, for the ids
            runs.insert(0, (partition.begin, offset))
        self.windows[partition] = Window(partition.begin, runs, history_end=offset, past=past)
        return partition

    def close(self, partition: Partition) -> None:
        """Forget it."""
        self.windows.pop(partition, None)
        self._parked.pop(partition, None)
        self.paused.discard(partition)

    def admit(self, jobs: Iterable[Job]) -> list[Job]:
        """Those to run now, and what was done before; what must wait for older records is parked."""
        partition: Partition | None = None
        window: Window | None = None
        limit = -1
        admitted: list[Job] = []
        for job in jobs:
            if job.partition is not partition:
                partition = job.partition
                window = self.windows.get(partition)
                limit = -1 if window is None or partition in self._parked else window.limit
            if window is None:
                continue  # of an assignment that is over
            if job.offset >= limit and not (job.partition not in self._parked and window.may_admit(job.offset)):
                self._parked.setdefault(job.partition, deque()).append(job)
                limit = -1
            else:
                admitted.append(job)
                if not window.admit(job.offset):
                    self.done_before.add(job)
        return admitted

    def unpark(self) -> list[Job]:
        """Parked jobs whose turn has come."""
        ready: list[Job] = []
        for partition, parked in list(self._parked.items()):
            window = self.windows[partition]
            while parked and window.may_admit(parked[0].offset):
                job = parked.popleft()
                ready.append(job)
                if not window.admit(job.offset):
                    self.done_before.add(job)
            if not parked:
                del self._parked[partition]
        return ready

    @property
    def blocked(self) -> int:
        """How many partitions have records that wait for older ones to end."""
        return len(self._parked)

    def undone(self) -> dict[Place, Undone]:
        """Of each partition, what was taken in and is not done."""
        found = {}
        for partition, window in self.windows.items():
            parked = self._parked.get(partition)
            taken_to, records = (parked[-1].offset + 1, len(parked)) if parked else (window.next_offset, 0)
            found[partition.place] = Undone(taken_to, window.unfinished + records)
        return found

    @property
    def waiting(self) -> int:
        """How many jobs of partitions that are not paused wait for their start."""
        return sum(partition.waiting for partition in self._flowing())

    def press_back(self, *, full: bool) -> tuple[set[Partition], set[Partition]]:
        """Which partitions to pause and which to resume from now on; ``full``: all of them are to be paused."""
        wanted = set(self.windows) if full else self._crowded()
        changes = wanted - self.paused, self.paused - wanted
        self.paused = wanted
        return changes

    def _flowing(self) -> list[Partition]:
        return [partition for partition in self.windows if partition not in self.paused]

    def _crowded(self) -> set[Partition]:
        """If too much waits in all, the partitions with more than their share, until half of it is left; and those with
        parked records.

        So a task type that is slow, or a key that many wait for, fills its own partitions and no others.
        """
        flowing = self._flowing()
        most, most_bytes = self._bounds
        share, share_bytes = (bound // max(1, len(self.windows)) for bound in self._bounds)
        crowded = {p for p in self.paused if 2 * p.waiting > share or 2 * p.waiting_bytes > share_bytes}
        if sum(p.waiting for p in flowing) > most or sum(p.waiting_bytes for p in flowing) > most_bytes:
            crowded.update(p for p in flowing if p.waiting > share or p.waiting_bytes > share_bytes)
        return crowded | self._parked.keys()
