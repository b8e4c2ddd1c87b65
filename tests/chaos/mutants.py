"""The program with one defect each. What catches none of them proves nothing.

A mutant is built into executor processes, by the environment, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from confluent_kafka import Producer

from kantoku_kafka.engine import checkpoint, doneset
from kantoku_kafka.engine.book import Book
from kantoku_kafka.engine.checkpoint import Checkpoint
from kantoku_kafka.engine.dispatcher import Dispatcher
from kantoku_kafka.engine.judge import Judge
from kantoku_kafka.engine.loop import Loop
from kantoku_kafka.engine.past import Recollection
from kantoku_kafka.engine.timer_book import TimerBook
from kantoku_kafka.engine.window import Window
from kantoku_kafka.job import Job, Offset, Partition
from kantoku_kafka.kafka import late_requests
from kantoku_kafka.kafka.channel import Arguments
from kantoku_kafka.kafka.clients import Clients
from kantoku_kafka.kafka.committed import CommittedOffsets
from kantoku_kafka.kafka.inputs import KafkaInputs
from kantoku_kafka.kafka.outputs import KafkaEvents, KafkaOutputs
from kantoku_kafka.kafka.scan import ends_of
from kantoku_kafka.kafka.takeover import Takeover
from kantoku_kafka.kafka.transaction import ExactlyOnceTransaction
from kantoku_kafka.protocols import CheckpointRefused
from tests.chaos.patching import replace

__all__ = ["MUTANTS", "Mutant", "install"]


@dataclass(frozen=True, slots=True)
class Mutant:
    """``build`` makes this process one; ``run`` is what has to catch it."""

    build: Callable[[], None]
    run: str


def install(name: str) -> None:
    """Make this process such a one; nothing happens if the text is empty."""
    if name:
        MUTANTS[name].build()


def _automatic_commits() -> None:
    """The client commits what it has handed out, whether it is done or not."""
    wanted = {"enable.auto.commit": True, "auto.commit.interval.ms": 200}
    replace(KafkaInputs, "_member_config", lambda old: lambda self: {**old(self), **wanted})


def _offsets_outside() -> None:
    """The records come by a transaction, the offsets by another one behind it."""

    def make(commit: Any) -> Any:
        def torn(self: ExactlyOnceTransaction, offsets: Sequence[Offset]) -> None:
            self._producer.commit_transaction(10)
            self.begin()
            commit(self, offsets)

        return torn

    replace(ExactlyOnceTransaction, "commit", make)


def _done_set_dropped() -> None:
    """What is done beyond the offset is not written down."""
    _encode_with(lambda _: [])


def _done_set_shifted() -> None:
    """What is done beyond the offset is written down by one too far."""
    _encode_with(lambda runs: [(start + 1, end + 1) for start, end in runs])


def _encode_with(change: Callable[[Sequence[doneset.Run]], Sequence[doneset.Run]]) -> None:
    encode = doneset.encode

    def changed(writer: str, place: str, offset: int, runs: Sequence[doneset.Run], *rest: Any) -> str:
        return encode(writer, place, offset, change(runs), *rest)

    cast(Any, checkpoint).doneset = type("doneset", (), {"encode": staticmethod(changed)})


def _epoch_check_removed() -> None:
    """Offsets are committed as by somebody who is in no group, which nobody refuses; and nobody is fenced by who comes
    after."""

    def unfenced(self: ExactlyOnceTransaction, offsets: Sequence[Offset], group_metadata: bytes) -> None:
        send(self, offsets, b"CGMDv2:\xff\xff\xff\xff" + self._group.encode() + b"\0\0\0")

    send = ExactlyOnceTransaction._send_offsets
    replace(ExactlyOnceTransaction, "_send_offsets", lambda _: unfenced)
    replace(Takeover, "_end_transactions", lambda _: lambda self, committed: None)


def _epochs_confused() -> None:
    """Work of an earlier assignment of a partition counts in the present one, also of a job that was told to end."""

    def same(self: Partition, other: object) -> bool:
        return isinstance(other, Partition) and self.place == other.place

    cast(Any, Partition).__eq__ = same
    cast(Any, Partition).__hash__ = lambda self: hash(self.place)
    replace(Job, "take_back", lambda _: lambda self: None)


def _result_before_fence() -> None:
    """Results are published as soon as they are staged."""
    _outside_of_the_transaction(KafkaOutputs)


def _events_outside() -> None:
    """Events are published as soon as they are staged."""
    _outside_of_the_transaction(KafkaEvents)


def _outside_of_the_transaction(kind: type[KafkaOutputs | KafkaEvents]) -> None:
    made: dict[int, Producer] = {}

    def stage(self: Any, prepared: Sequence[Arguments]) -> None:
        clients = self._channel._clients
        producer: Any = made.setdefault(id(self), clients.producer())
        for record in prepared:
            producer.produce(*record)
        producer.flush()

    replace(kind, "stage", lambda _: stage)


def _retry_without_tombstone() -> None:
    """A timer fires, and stays."""

    def make(fired: Any) -> Any:
        def stays(self: TimerBook, job: Job) -> Job:
            job = fired(self, job)
            if job.move is not None:
                job.move = job.move._replace(marks=())
            return job

        return stays

    replace(TimerBook, "_fired", make)
    replace(TimerBook, "base", lambda _: property(lambda self: self._begin_of_time))
    replace(TimerBook, "__init__", _remembering_its_begin)


def _remembering_its_begin(initialise: Any) -> Any:
    def remembering(self: Any, partition: Partition, offset: int, end: int, **parts: Any) -> None:
        initialise(self, partition, offset, end, **parts)
        self._begin_of_time = offset

    return remembering


def _retry_forgotten() -> None:
    """A task that is to be tried again is done, and no timer is written."""

    def make(settle: Any) -> Any:
        def forgetful(self: Judge, job: Job) -> None:
            settle(self, job)
            if job.move is not None:
                job.move = job.move._replace(messages=())

        return forgetful

    replace(Judge, "settle", make)


def _deduplication_off() -> None:
    """A second spawn of the same id runs as well."""
    replace(Judge, "is_duplicate", lambda _: lambda self, job, memory, now_us: False)


def _memory_lost() -> None:
    """Who takes a partition over does not know which ids were spawned before."""
    replace(Window, "remembered_from", lambda _: property(lambda self: None))


def _past_forgotten() -> None:
    """After the group was set back nobody knows what had ended before."""
    replace(Recollection, "pasts", lambda _: property(lambda self: {}))


def _revoke_without_drain() -> None:
    """What runs when a partition is revoked goes on, and is published under the next membership."""
    replace(Loop, "revoked", lambda _: lambda self, partitions: None)
    replace(Loop, "lost", lambda _: lambda self, partitions: None)


def _commit_ahead() -> None:
    """The offset that is committed is that behind the last record taken in."""
    replace(Window, "base", lambda _: property(lambda self: self.next_offset))
    replace(Window, "done_runs", lambda _: lambda self: [])


def _refusal_swallowed() -> None:
    """A checkpoint that was refused is taken for one that was made."""

    def make(publish: Any) -> Any:
        def careless(self: Checkpoint, batch: Any) -> None:
            try:
                publish(self, batch)
            except CheckpointRefused:
                return

        return careless

    replace(Checkpoint, "publish", make)


def _outcome_guessed() -> None:
    """A commit that was not answered is taken for one that did not happen."""
    happened = ExactlyOnceTransaction._happened

    def guess(self: ExactlyOnceTransaction, offsets: Sequence[Offset]) -> bool:
        happened(self, offsets)
        return False

    replace(ExactlyOnceTransaction, "_happened", lambda _: guess)


def _late_requests_trusted() -> None:
    """A producer goes on after a commit that may have been sent twice."""
    replace(late_requests, "_SHORTEST_SECONDS", lambda _: 3_600.0)


def _twin_unnoticed() -> None:
    """Who replaces its producer does not look for what another process of its slot has committed."""
    replace(CommittedOffsets, "by_a_twin", lambda _: lambda self, settled=True: False)


def _dead_letter_dropped() -> None:
    """What nobody can read is done, and nothing tells of it."""
    replace(Dispatcher, "end", lambda end: lambda self, job: end(self, _without_letter(job)))


def _without_letter(job: Job) -> Job:
    job.letter = None
    return job


def _events_dropped() -> None:
    """Every second event of a checkpoint is lost."""
    replace(KafkaEvents, "stage", lambda stage: lambda self, prepared: stage(self, prepared[::2]))


def _isolation_off() -> None:
    """Executors read what was not committed: also tasks that were taken back."""
    consumer = Clients.consumer
    unisolated: Mapping[str, object] = {"isolation.level": "read_uncommitted"}
    replace(Clients, "consumer", lambda _: lambda self, **settings: consumer(self, **{**settings, **unisolated}))


def _partitions_seen_late() -> None:
    """A partition without a committed offset is read from its end."""
    replace(KafkaInputs, "_start_of", lambda old: lambda self, committed: _end_of(self, committed))


def _end_of(inputs: KafkaInputs, committed: Any) -> int:
    if committed.offset >= 0:
        return int(committed.offset)
    place = committed.topic, committed.partition
    return ends_of(inputs._clients, [place], 10.0)[place]


def _timers_half_read() -> None:
    """Timers fire though not all is read that an earlier owner may have written."""
    replace(Book, "is_whole", lambda _: property(lambda self: True))


MUTANTS: Mapping[str, Mutant] = {
    "automatic-commits": Mutant(_automatic_commits, "eos-executor"),
    "offsets-outside": Mutant(_offsets_outside, "eos-executor"),
    "done-set-dropped": Mutant(_done_set_dropped, "eos-executor"),
    "done-set-shifted": Mutant(_done_set_shifted, "eos-executor"),
    "epoch-check-removed": Mutant(_epoch_check_removed, "zombie"),
    "epochs-confused": Mutant(_epochs_confused, "long-tasks"),
    "result-before-fence": Mutant(_result_before_fence, "eos-executor"),
    "timers-half-read": Mutant(_timers_half_read, "eos-executor"),
    "retry-without-tombstone": Mutant(_retry_without_tombstone, "eos-executor"),
    "deduplication-off": Mutant(_deduplication_off, "eos-executor"),
    "memory-lost": Mutant(_memory_lost, "eos-executor"),
    "revoke-without-drain": Mutant(_revoke_without_drain, "storm"),
    "commit-ahead": Mutant(_commit_ahead, "eos-executor"),
    "refusal-swallowed": Mutant(_refusal_swallowed, "storm"),
    "outcome-guessed": Mutant(_outcome_guessed, "delayed-endtxn"),
    "late-requests-trusted": Mutant(_late_requests_trusted, "delayed-endtxn"),
    "twin-unnoticed": Mutant(_twin_unnoticed, "twins"),
    "retry-forgotten": Mutant(_retry_forgotten, "eos-executor"),
    "events-outside": Mutant(_events_outside, "eos-executor"),
    "events-dropped": Mutant(_events_dropped, "eos-executor"),
    "dead-letter-dropped": Mutant(_dead_letter_dropped, "poison"),
    "isolation-off": Mutant(_isolation_off, "eos-executor"),
    "past-forgotten": Mutant(_past_forgotten, "reset-grow"),
    "partitions-seen-late": Mutant(_partitions_seen_late, "reset-grow"),
}
