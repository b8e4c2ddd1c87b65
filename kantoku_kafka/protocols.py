"""Every point where a part can be replaced by the user's own, in one file.

Who calls: the executor's **loop thread** owns Inputs; its **publisher thread** calls Transaction and ``stage``, one
call at a time. ``prepare`` may be called from both, at once. Only ``Inputs.poll``, ``Transaction`` and ``close`` may
block on the network, and only for as long as they say. Errors are :class:`~kantoku_kafka.errors.KantokuError`;
:class:`CheckpointRefused` is the only one the loop recovers from by itself.

The Kafka implementations of Inputs, Outputs, Events and Transaction share one transaction: results are exactly
once. A part that cannot share it says so by :attr:`Outputs.promise`, and the program repeats it at start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from kantoku_kafka.errors import KantokuError
from kantoku_kafka.job import Job, Message, Offset, Partition
from kantoku_kafka.model import Event, Result, TaskEnvelope, Trail

__all__ = [
    "CheckpointRefused",
    "Codec",
    "Events",
    "Executor",
    "Inputs",
    "Outputs",
    "Payload",
    "Rebalance",
    "TableInputs",
    "TaskReader",
    "Transaction",
]

EXACTLY_ONCE = "exactly-once"
AT_LEAST_ONCE = "at-least-once"


class CheckpointRefused(KantokuError):
    """Nothing of the transaction became visible; the loop polls once and tries the same checkpoint again.

    ``culprit``: one of the staged records can never be published (too large, or for a topic that is not there);
    the loop finds out whose it is and fails that task.
    """

    def __init__(self, message: str, *, culprit: bool = False) -> None:
        super().__init__(message)
        self.culprit = culprit


class Rebalance(Protocol):
    """What Inputs tell the loop, from inside ``poll`` or ``close`` and on the loop thread."""

    def assigned(self, offsets: Sequence[Offset]) -> Sequence[Partition]:
        """Take partitions on at their committed offsets and metadata; answers one Partition for each, in their order.

        Its ``begin`` says from where to poll it, if that is not the committed offset.
        """
        ...

    def revoked(self, partitions: Sequence[Partition]) -> None:
        """The partitions go after this call: drain, checkpoint, let go."""
        ...

    def lost(self, partitions: Sequence[Partition]) -> None:
        """The partitions are gone already: let go of them, commit nothing."""
        ...


@runtime_checkable
class Inputs(Protocol):
    """Where tasks come from. Rule 1: the only way to receive a task is to poll it here."""

    def subscribe(self, topics: Sequence[str], rebalance: Rebalance) -> None:
        """Begin to take what stands in these topics. Does not block."""
        ...

    def poll(self, max_jobs: int, timeout_seconds: float) -> list[Job]:
        """Up to ``max_jobs`` records, each partition's in ascending order of offset.

        Returns as soon as there is one, or after ``timeout_seconds``. Undecoded: bad bytes are the loop's business.
        """
        ...

    def pause(self, partitions: Iterable[Partition]) -> None:
        """Deliver nothing of these partitions until they are resumed. Does not block."""
        ...

    def resume(self, partitions: Iterable[Partition]) -> None:
        """Deliver again, from where ``poll`` stopped. Does not block."""
        ...

    def close(self) -> None:
        """Leave. Calls ``revoked`` for what is still assigned. Idempotent; may block some seconds."""
        ...


@runtime_checkable
class TableInputs(Inputs, Protocol):
    """Inputs whose topics are compacted and read as a whole: how far that is can be asked, where ``poll`` is called."""

    def ends_of(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        """Behind the last record that stands in each now, be it visible yet or not. May block as ``poll``."""
        ...

    def read_up_to(self, partition: Partition) -> int:
        """Everything below this offset was polled, or never becomes visible."""
        ...


@runtime_checkable
class Outputs(Protocol):
    """Where results go. Rule 3: the result of a task is put here under the task's id."""

    promise: str
    """``exactly-once`` if what is staged becomes visible with the Transaction, else ``at-least-once``."""
    max_data_bytes: int
    """Results with more data than this cannot be published; the task fails with ``result_too_large``."""

    def prepare(self, results: Sequence[Result]) -> Sequence[Any]:
        """Turn results into what :meth:`stage` takes: encode here, while the last checkpoint is on its way.

        Pure, one answer for each result. May be called again for the same results, and what it answers be dropped.
        """
        ...

    def stage(self, prepared: Sequence[Any]) -> None:
        """Take prepared results for the present transaction. Must not block on the network."""
        ...


@runtime_checkable
class Events(Protocol):
    """Where every step is logged. The system works without them."""

    promise: str
    """As :attr:`Outputs.promise`."""

    def prepare(self, trails: Sequence[Trail]) -> Sequence[Any]:
        """As :meth:`Outputs.prepare`, for the events in these trails."""
        ...

    def stage(self, prepared: Sequence[Any]) -> None:
        """Take prepared events for the present transaction. Must not block on the network."""
        ...


@runtime_checkable
class Transaction(Protocol):
    """What makes a checkpoint durable: all that was staged since ``begin``, and the offsets, or nothing."""

    promise: str
    """``exactly-once``, or ``at-least-once`` if offsets follow the records instead of joining them."""

    def begin(self) -> None:
        """Open. Blocks only if the last one has to be cleaned up first."""
        ...

    def produce(self, messages: Sequence[Message]) -> None:
        """Stage records of any topic: child tasks, side outputs, dead letters."""
        ...

    def commit(self, offsets: Sequence[Offset]) -> None:
        """Make it durable. Blocks until it is; readers may see it a moment later.

        Raises:
            CheckpointRefused: nothing became visible, and the same checkpoint may be tried again.
            KantokuError: this executor cannot go on.
        """
        ...

    def probe(self) -> None:
        """Wait until the broker has taken everything staged; raises as ``commit``. ``abort`` follows."""
        ...

    def abort(self) -> None:
        """Give up what was staged since ``begin``; called when staging itself failed. Idempotent."""
        ...

    def close(self) -> None:
        """Abort what is open, let go of the connection. Idempotent."""
        ...


@runtime_checkable
class Executor(Protocol):
    """Runs task functions: bytes in, (bytes, status) out. The pools are its implementations."""

    backlog: int
    """How many jobs beyond its concurrency it wants handed over early; 0 if none."""

    def start(self, deliver: Callable[[Job], None]) -> None:
        """Make ready. ``deliver`` may be called from any thread, once for each job that ended."""
        ...

    def submit(self, jobs: Sequence[Job]) -> None:
        """Run these. Does not block, unless it runs them in the calling thread."""
        ...

    def cancel(self, jobs: Iterable[Job], reason: str) -> None:
        """End these soon if they can be ended; each is delivered all the same, at once and without an outcome if it has
        not begun to run. Called where ``submit`` is."""
        ...

    def close(self, timeout_seconds: float) -> None:
        """Stop, and leave no thread and no process that can be stopped. Idempotent."""
        ...


@runtime_checkable
class Payload(Protocol):
    """A task's data, or its result, as a value. Called where the function runs: in several threads at once.

    :class:`~kantoku_kafka.errors.TaskError` has its usual meaning: ``Retryable`` for what passes. Whatever else
    ``load`` raises rejects the task, with a dead letter; whatever else ``dump`` raises fails it.
    """

    blocking: bool
    """Whether they may wait for the network or a disk: those of an ``async def`` are called in a thread then."""

    def load(self, data: bytes) -> Any: ...

    def dump(self, value: Any) -> bytes: ...


class TaskReader(Protocol):
    """Reads the records of a topic whose values are not as the codec has them. Stateless, safe in any thread."""

    def __call__(self, job: Job) -> bool:
        """Make the record one of ours, in place: its value an envelope, key and headers those of the task.

        False: it is none of our business; its offset is done, and nothing is left of it. Must not block.

        Raises:
            EnvelopeError: no task can be read from it; key, value and headers are as they were.
        """
        ...


@runtime_checkable
class Codec(Protocol):
    """Envelopes to bytes and back. Stateless, safe in any thread. Decoding raises EnvelopeError and nothing else."""

    def encode_task(self, task: TaskEnvelope) -> bytes: ...

    def peek_task(self, value: bytes) -> tuple[str, str, bytes, int, TaskEnvelope | None]:
        """``(id, type, data, attempt)``, having checked the whole record: the executor's hot path.

        And the envelope, unless all that it has besides is ``created_at``: then None may stand for it.
        """
        ...

    def decode_task(self, value: bytes) -> TaskEnvelope: ...

    def encode_result(self, result: Result) -> bytes: ...

    def decode_result(self, value: bytes) -> Result: ...

    def encode_trails(self, trails: Iterable[Trail]) -> list[bytes]:
        """The record of each step in turn."""
        ...

    def decode_event(self, value: bytes) -> Event: ...
