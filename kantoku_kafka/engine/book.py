"""What the timer loop knows of one assigned partition of a compacted topic: what is due, and how far it was read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

from kantoku_kafka.engine.doneset import Run
from kantoku_kafka.job import Job, Partition
from kantoku_kafka.model import Command

__all__ = ["NEVER_US", "Book"]

NEVER_US = (1 << 63) - 1


class Book(ABC):
    """One thread uses it.

    Parameters:
        partition: the assignment.
        offset: from where it is read.
        end: behind the last record that an earlier owner can have written. Nothing may fire before it was read.
    """

    def __init__(self, partition: Partition, offset: int, end: int) -> None:
        self.partition = partition
        self.next_offset = offset
        self._end = end

    @property
    def is_whole(self) -> bool:
        """Whether everything was read that an earlier owner can have written."""
        return self.next_offset >= self._end

    def was_read_up_to(self, offset: int) -> None:
        """There is nothing more below this offset."""
        self.next_offset = max(self.next_offset, offset)

    @abstractmethod
    def take_in(self, records: Iterable[Job]) -> None:
        """Records in the order of the log. Of those with one key the last counts."""

    @property
    @abstractmethod
    def next_due_us(self) -> int:
        """When there is something to do; :data:`NEVER_US` if there is nothing."""

    @abstractmethod
    def take_due(self, now_us: int, most: int) -> Sequence[Job]:
        """Up to so many of what is due, each as a job that has ended: with it goes what is due, and that it is done."""

    def obey(self, cancelled: Sequence[Command]) -> None:  # noqa: B027 - there may be nothing to cancel
        """These cancel tasks."""

    @property
    @abstractmethod
    def base(self) -> int:
        """The offset to commit: a successor has to read from here."""

    @abstractmethod
    def __len__(self) -> int:
        """How many are pending."""

    def close(self) -> None:  # noqa: B027 - there may be nothing to let go of
        """Let go of what it holds. Idempotent."""

    @property
    def remembered_from(self) -> int | None:
        """Nothing: of one id the last record counts."""
        return None

    @property
    def past_end(self) -> int | None:
        """None, for the same reason."""
        return None

    def done_runs(self) -> list[Run]:
        """None: what is done beyond :attr:`base` is known by what stands in the topic."""
        return []
