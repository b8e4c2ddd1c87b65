"""The contract of every replaceable part, as tests: subclass, say how your part is made, let pytest collect it.

::

    from kantoku_kafka.testing.contract import OutputsContract

    class TestSqlite(OutputsContract):
        @pytest.fixture
        def rig(self, tmp_path):
            outputs = SqliteOutputs(tmp_path / "results.db")
            return OutputsRig(outputs, commit=lambda: None, read=outputs.all)

Inputs and Transaction belong together, and so do the Outputs and Events that share the Transaction:
:class:`LogContract` checks all four. Nothing here knows Kafka.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import pytest

from kantoku_kafka.avro.codec import AvroCodec
from kantoku_kafka.engine import doneset
from kantoku_kafka.errors import EnvelopeError
from kantoku_kafka.job import Job, Message, Offset, Partition
from kantoku_kafka.model import ErrorInfo, Event, Headers, Result, Source, Status, TaskEnvelope, new_task_id, now_us
from kantoku_kafka.protocols import (
    EXACTLY_ONCE,
    CheckpointRefused,
    Codec,
    Events,
    Executor,
    Inputs,
    Outputs,
    Transaction,
)

__all__ = ["CodecContract", "ExecutorContract", "LogContract", "LogRig", "Member", "OutputsContract", "OutputsRig"]

_PATIENCE_SECONDS = 30.0

T = TypeVar("T")


def a_result(data: bytes = b"", task_id: str | None = None) -> Result:
    """A result like those that an executor stages."""
    now = now_us()
    return Result(
        task_id or new_task_id(), "t", Status.OK, data, None, 1, "contract", now, now, Source("t", 0, 0, 1), ()
    )


def eventually(read: Callable[[], T], enough: Callable[[T], object] = bool) -> T:
    """What ``read`` answers once that is ``enough``: a commit may return a moment before its records are visible."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not enough(seen := read()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return seen


# --- Inputs, Transaction, and the Outputs and Events that share it


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

    def poll(self, count: int, timeout_seconds: float = _PATIENCE_SECONDS) -> list[Job]:
        """Poll until there are so many jobs."""
        jobs: list[Job] = []
        deadline = time.monotonic() + timeout_seconds
        while len(jobs) < count and time.monotonic() < deadline:
            jobs += self.inputs.poll(count - len(jobs), 0.1)
        return jobs

    def publish(self, jobs: Sequence[Job]) -> bool:
        """A result for each job and the offsets behind them, unless the group refuses."""
        self.transaction.begin()
        self.outputs.stage([a_result(job.value) for job in jobs])
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
        member.inputs.subscribe([self.task_type], member)
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
        note = doneset.encode("slot", jobs[3].offset + 1, [(jobs[5].offset, jobs[6].offset)])
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
        deadline = time.monotonic() + _PATIENCE_SECONDS
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
        member.outputs.stage([result])
        member.events.stage(steps)
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
        member.outputs.stage([a_result(b"given up")])
        member.transaction.probe()
        member.transaction.abort()
        member.transaction.abort()
        member.transaction.begin()
        kept = a_result(b"kept")
        member.outputs.stage([kept])
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
            gone.outputs.stage([a_result(b"zombie")])
            gone.transaction.commit(gone.positions(jobs))
        gone.transaction.close()
        heir = rig.join()
        jobs = heir.poll(1)
        heir.transaction.begin()
        heir.outputs.stage([a_result(b"heir")])
        heir.transaction.commit(heir.positions(jobs))
        assert [result.data for _, result in eventually(rig.results)] == [b"heir"]
        heir.inputs.close()


# --- Outputs of one's own


@dataclass
class OutputsRig:
    """Own Outputs: ``commit`` makes staged results durable if ``stage`` has not, ``read`` answers what is there."""

    outputs: Outputs
    commit: Callable[[], None]
    read: Callable[[], list[Result]]


class OutputsContract:
    """Override the fixture ``rig``."""

    @pytest.fixture
    def rig(self) -> OutputsRig:
        raise NotImplementedError("override the fixture 'rig'")

    def test_results_are_kept(self, rig: OutputsRig) -> None:
        assert isinstance(rig.outputs, Outputs)
        failed = a_result()._replace(status=Status.FAILED, error=ErrorInfo("E", "m", "d", True))
        staged = [a_result(b"\x00\xff"), failed]
        rig.outputs.stage(staged)
        rig.commit()
        assert sorted(rig.read()) == sorted(staged)

    def test_a_repeated_result_is_one_result(self, rig: OutputsRig) -> None:
        first = a_result(b"first")
        for result in (first, first._replace(data=b"second")):
            rig.outputs.stage([result])
            rig.commit()
        assert rig.read() == [first]


# --- pools


class ExecutorContract:
    """Override the fixture ``executor``: one that runs type ``upper`` (upper case) and type ``fail`` (ValueError)."""

    @pytest.fixture
    def executor(self) -> Executor:
        raise NotImplementedError("override the fixture 'executor'")

    def test_each_job_comes_back_once(self, executor: Executor) -> None:
        assert isinstance(executor, Executor)
        jobs = [_job("fail" if n % 10 == 0 else "upper", b"a%d" % n, n) for n in range(200)]
        ended: list[Job] = []
        executor.start(ended.append)
        try:
            for at in range(0, 200, 20):
                executor.submit(jobs[at : at + 20])
            deadline = time.monotonic() + _PATIENCE_SECONDS
            while len(ended) < 200 and time.monotonic() < deadline:
                time.sleep(0.01)
        finally:
            executor.close(5.0)
            executor.close(5.0)
        assert sorted(job.offset for job in ended) == list(range(200))
        for n, job in enumerate(jobs):
            assert (job.finished_at_us, job.started_at_us or 0) >= (job.started_at_us or 0, 1)
            if n % 10:
                assert (job.status, job.output) == (Status.OK, b"A%d" % n)
            else:
                assert job.status is Status.FAILED
                assert job.error is not None and job.error.type == "ValueError"

    def test_what_is_cancelled_comes_back_once_or_never(self, executor: Executor) -> None:
        jobs = [_job("upper", b"a", n) for n in range(50)]
        ended: list[Job] = []
        executor.start(ended.append)
        executor.submit(jobs)
        executor.cancel(jobs, "revoked")
        executor.close(5.0)
        assert len({id(job) for job in ended}) == len(ended) <= 50


def _job(task_type: str, data: bytes, offset: int) -> Job:
    task = TaskEnvelope(new_task_id(), task_type, data, now_us())
    job = Job(Partition("contract", 0, 1), offset, None, AvroCodec().encode_task(task))
    job.task_id, job.type, job.data, job.attempt = (*task[:3], 1)
    job.received_at_us = now_us()
    return job


# --- codecs


class CodecContract:
    """Override the fixture ``codec``."""

    @pytest.fixture
    def codec(self) -> Codec:
        raise NotImplementedError("override the fixture 'codec'")

    def test_round_trips(self, codec: Codec) -> None:
        full = TaskEnvelope("a", "t", b"\x00", 1, 2, 3, 4, 5, 6, "p", "c", "r", "i", {"ä": "ö"}, {"o": b"\xff"})
        for task in (full, TaskEnvelope(new_task_id(), "t", b"", now_us())):
            value = codec.encode_task(task)
            assert codec.decode_task(value) == task
            assert codec.peek_task(value) == (task.id, task.type, task.data, task.attempt)
        result = a_result(b"\xff")._replace(error=ErrorInfo("E", "m", None, True), status=Status.CRASHED)
        assert codec.decode_result(codec.encode_result(result)) == result
        event = Event("a", "t", "n", 1, 2, "e", Source("t", 1, 2, 3), ErrorInfo("E", "m"), {"k": "v"})
        assert [codec.decode_event(value) for value in codec.encode_events([event, event])] == [event, event]

    def test_bad_bytes_are_one_error(self, codec: Codec) -> None:
        good = codec.encode_task(TaskEnvelope(new_task_id(), "t", b"data", now_us(), labels={"a": "b"}))
        bad = [good[:n] for n in range(len(good))] + [good + b"\0", b"\0" * 100, b"\xc3\x01" + b"\xff" * 50]
        for value in bad:
            for decode in (codec.peek_task, codec.decode_task, codec.decode_result, codec.decode_event):
                with pytest.raises(EnvelopeError):
                    decode(value)
