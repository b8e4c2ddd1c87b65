"""The contract of Inputs and Transaction, and of the Outputs and Events that share the Transaction."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import pytest

from kantoku_kafka.engine import doneset
from kantoku_kafka.ids import new_task_id
from kantoku_kafka.job import Job, Message, Offset, Partition, place_name
from kantoku_kafka.model import Event, Headers, Result, Source, Status, Trail, now_us
from kantoku_kafka.protocols import (
    EXACTLY_ONCE,
    CheckpointRefused,
    Events,
    Inputs,
    Outputs,
    Transaction,
)

__all__ = ["PATIENCE_SECONDS", "LogContract", "LogRig", "Member", "a_result"]

PATIENCE_SECONDS = 30.0

T = TypeVar("T")


def a_result(data: bytes = b"", task_id: str | None = None) -> Result:
    """A result like those that an executor stages."""
    now = now_us()
    return Result(
        task_id or new_task_id(), "t", Status.OK, data, None, 1, "contract", now, now, Source("t", 0, 0, 1), ()
    )


def eventually(read: Callable[[], T], enough: Callable[[T], object] = bool) -> T:
    """What ``read`` answers once that is ``enough``: a commit may return a moment before its records are visible."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not enough(seen := read()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return seen


@dataclass
class Member:
    """One executor's parts, with a Rebalance that takes notes instead of working."""

    inputs: Inputs
    transaction: Transaction
    outputs: Outputs
    events: Events
    offsets: list[Offset] = field(default_factory=list)
    partitions: list[Partition] = field(default_factory=list)

    def assigned(self, offsets: Sequence[Offset]) -> Sequence[Partition]:
        self.offsets += offsets
        new = [Partition(o.topic, o.partition, len(self.offsets)) for o in offsets]
        self.partitions += new
        return new

    def revoked(self, partitions: Sequence[Partition]) -> None:
        self.partitions = [p for p in self.partitions if p not in set(partitions)]

    lost = revoked

    def poll(self, count: int, timeout_seconds: float = PATIENCE_SECONDS) -> list[Job]:
        """Poll until there are so many jobs."""
        jobs: list[Job] = []
        deadline = time.monotonic() + timeout_seconds
        while len(jobs) < count and time.monotonic() < deadline:
            jobs += self.inputs.poll(count - len(jobs), 0.1)
        return jobs

    def publish(self, jobs: Sequence[Job]) -> bool:
        """A result for each job and the offsets behind them, unless the group refuses."""
        self.transaction.begin()
        self.outputs.stage(self.outputs.prepare([a_result(job.value) for job in jobs]))
        try:
            self.transaction.commit(self.positions(jobs))
        except CheckpointRefused:
            return False
        return True

    def positions(self, jobs: Iterable[Job], metadata: str = "") -> list[Offset]:
        """The offsets behind these jobs."""
        last = {job.partition: job.offset for job in jobs}
        return [Offset(p.topic, p.number, offset + 1, metadata) for p, offset in last.items()]


class LogRig(ABC):
    """What the contract needs to know of an installation. ``task_type`` and all topics are new for each test."""

    task_type = "contract"
    input_topic: str
    side_topic: str
    too_large_bytes: int
    """A record of so many bytes is refused."""

    @abstractmethod
    def member(self) -> Member:
        """A new member of the group, not subscribed yet."""

    @abstractmethod
    def put(self, records: Iterable[tuple[bytes | None, bytes, Headers]]) -> None:
        """Write (key, value, headers) to the input of ``task_type``."""

    @abstractmethod
    def results(self) -> list[tuple[bytes | None, Result]]:
        """Every result that is visible now, with its record's key."""

    @abstractmethod
    def events(self) -> list[Event]:
        """Every event that is visible now."""

    @abstractmethod
    def side(self) -> list[bytes]:
        """Values of every record of ``side_topic`` that is visible now."""

    def join(self) -> Member:
        """A member that takes part."""
        member = self.member()
        member.inputs.subscribe([self.input_topic], member)
        return member


class LogContract:
    """Override the fixture ``rig``; set ``exactly_once`` to False if the Transaction does not promise it."""

    exactly_once = True

    @pytest.fixture
    def rig(self) -> LogRig:
        raise NotImplementedError("override the fixture 'rig'")

    def test_parts_have_the_shape_of_the_protocols(self, rig: LogRig) -> None:
        member = rig.member()
        for part, protocol in (
            (member.inputs, Inputs),
            (member.transaction, Transaction),
            (member.outputs, Outputs),
            (member.events, Events),
        ):
            assert isinstance(part, protocol)
        assert (member.transaction.promise == EXACTLY_ONCE) is self.exactly_once
        member.transaction.close()

    def test_everything_is_delivered_untouched_and_in_order(self, rig: LogRig) -> None:
        sent = [(b"k%d" % (n % 7), b"\xff%d" % n, (("h", b"%d" % n), ("h", None))) for n in range(100)]
        rig.put(sent)
        member = rig.join()
        jobs = member.poll(100)
        assert sorted((j.key, j.value, tuple(j.raw_headers or ())) for j in jobs) == sorted(sent)
        for partition in member.partitions:
            mine = [job.offset for job in jobs if job.partition is partition]
            assert mine == sorted(set(mine))
        member.inputs.close()

    def test_what_is_paused_waits_and_nothing_is_left_out(self, rig: LogRig) -> None:
        rig.put([(b"k%d" % n, b"first", ()) for n in range(20)])
        member = rig.join()
        first = member.poll(20)
        member.inputs.pause(member.partitions)
        rig.put([(b"k%d" % n, b"second", ()) for n in range(20)])
        assert member.poll(1, timeout_seconds=0.5) == []
        member.inputs.resume(member.partitions)
        second = member.poll(20)
        assert [job.value for job in first + second] == [b"first"] * 20 + [b"second"] * 20
        member.inputs.close()

    def test_the_next_member_begins_where_the_last_commit_says(self, rig: LogRig) -> None:
        rig.put([(b"same", b"%d" % n, ()) for n in range(10)])
        first = rig.join()
        jobs = first.poll(10)
        last = jobs[3]
        done = [(jobs[5].offset, jobs[6].offset)]
        note = doneset.encode("slot", place_name(*last.partition.place), last.offset + 1, done)
        first.transaction.begin()
        first.transaction.commit(first.positions(jobs[:4], note))
        first.inputs.close()
        first.inputs.close()
        assert first.partitions == [], "close revokes"
        second = rig.join()
        assert [job.value for job in second.poll(6)] == [b"%d" % n for n in range(4, 10)]
        known = [o for o in second.offsets if o.metadata]
        assert [(o.offset, o.metadata) for o in known] == [(jobs[3].offset + 1, note)]
        second.inputs.close()

    def test_a_second_member_takes_its_share_and_the_first_goes_on(self, rig: LogRig) -> None:
        rig.put([(b"k%d" % n, b"%d" % n, ()) for n in range(40)])
        first = rig.join()
        taken = {job.value: (first, job) for job in first.poll(40)}
        members = first, second = first, rig.join()
        done: set[bytes] = set()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(done) < 40 and time.monotonic() < deadline:
            for member in members:
                taken |= {job.value: (member, job) for job in member.inputs.poll(40, 0.05)}
                due = [j for m, j in taken.values() if m is member and j.partition in m.partitions]
                due = [job for job in due if job.value not in done]
                if second.partitions and due and member.publish(due):
                    done.update(job.value for job in due)
        seen = eventually(rig.results, lambda results: len(results) >= 40)
        assert sorted(result.data for _, result in seen) == sorted(b"%d" % n for n in range(40))
        held = [[(p.topic, p.number) for p in member.partitions] for member in members]
        assert all(held) and set(held[0]).isdisjoint(held[1]), held
        for member in members:
            member.inputs.close()

    def test_staged_records_become_visible_with_the_commit(self, rig: LogRig) -> None:
        rig.put([(b"k", b"v", ())])
        member = rig.join()
        jobs = member.poll(1)
        result = a_result(b"data")
        steps = [Event(result.task_id, "t", name, 1, now_us()) for name in ("one", "two")]
        member.transaction.begin()
        member.outputs.stage(member.outputs.prepare([result]))
        member.events.stage(member.events.prepare([Trail.of(step) for step in steps]))
        member.transaction.produce([Message(rig.side_topic, b"k", b"side")])
        if self.exactly_once:
            assert (rig.results(), rig.events(), rig.side()) == ([], [], [])
        member.transaction.commit(member.positions(jobs))
        seen = eventually(lambda: (rig.results(), rig.events(), rig.side()), all)
        assert seen == ([(result.task_id.encode(), result)], steps, [b"side"])
        member.inputs.close()

    def test_what_is_given_up_stays_invisible(self, rig: LogRig) -> None:
        if not self.exactly_once:
            pytest.skip("at-least-once takes nothing back")
        rig.put([(b"k", b"v", ())])
        member = rig.join()
        jobs = member.poll(1)
        member.transaction.begin()
        member.outputs.stage(member.outputs.prepare([a_result(b"given up")]))
        member.transaction.probe()
        member.transaction.abort()
        member.transaction.abort()
        member.transaction.begin()
        kept = a_result(b"kept")
        member.outputs.stage(member.outputs.prepare([kept]))
        member.transaction.commit(member.positions(jobs))
        assert [result.data for _, result in eventually(rig.results)] == [b"kept"]
        member.inputs.close()

    def test_a_record_that_can_never_be_published_is_called_the_culprit(self, rig: LogRig) -> None:
        rig.put([(b"k", b"v", ())])
        member = rig.join()
        jobs = member.poll(1)
        with pytest.raises(CheckpointRefused) as refusal:
            member.transaction.begin()
            member.transaction.produce([Message(rig.side_topic, None, b"x" * rig.too_large_bytes)])
            member.transaction.commit(member.positions(jobs))
        assert refusal.value.culprit
        member.transaction.abort()
        member.transaction.begin()
        member.transaction.produce([Message(rig.side_topic, None, b"small")])
        member.transaction.commit(member.positions(jobs))
        assert eventually(rig.side) == [b"small"]
        member.inputs.close()

    def test_who_left_publishes_nothing(self, rig: LogRig) -> None:
        if not self.exactly_once:
            pytest.skip("at-least-once has no fence")
        rig.put([(b"k", b"v", ())])
        gone = rig.join()
        jobs = gone.poll(1)
        gone.inputs.close()
        with pytest.raises(CheckpointRefused):
            gone.transaction.begin()
            gone.outputs.stage(gone.outputs.prepare([a_result(b"zombie")]))
            gone.transaction.commit(gone.positions(jobs))
        gone.transaction.close()
        heir = rig.join()
        jobs = heir.poll(1)
        heir.transaction.begin()
        heir.outputs.stage(heir.outputs.prepare([a_result(b"heir")]))
        heir.transaction.commit(heir.positions(jobs))
        assert [result.data for _, result in eventually(rig.results)] == [b"heir"]
        heir.inputs.close()
