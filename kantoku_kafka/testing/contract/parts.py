"""The contracts of own Outputs, of pools and of codecs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from kantoku_kafka.avro.codec import AvroCodec
from kantoku_kafka.errors import EnvelopeError
from kantoku_kafka.ids import new_task_id
from kantoku_kafka.job import Job, Partition
from kantoku_kafka.model import ErrorInfo, Event, Result, Source, Status, TaskEnvelope, Trail, now_us
from kantoku_kafka.protocols import Codec, Executor, Outputs
from kantoku_kafka.testing.contract.log import PATIENCE_SECONDS, a_result

__all__ = ["CodecContract", "ExecutorContract", "OutputsContract", "OutputsRig"]


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
        rig.outputs.stage(rig.outputs.prepare(staged))
        rig.commit()
        assert sorted(rig.read()) == sorted(staged)

    def test_a_repeated_result_is_one_result(self, rig: OutputsRig) -> None:
        first = a_result(b"first")
        for result in (first, first._replace(data=b"second")):
            rig.outputs.stage(rig.outputs.prepare([result]))
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
            at_once = max(1, executor.backlog)  # what an executor process hands over at least
            for at in range(0, 200, at_once):
                executor.submit(jobs[at : at + at_once])
                _await(ended, min(at + at_once, 200))
        finally:
            executor.close(5.0)
            executor.close(5.0)
        assert sorted(job.offset for job in ended) == list(range(200))
        for n, job in enumerate(jobs):
            assert job.started_at_us is not None and 0 < job.started_at_us <= job.finished_at_us
            if n % 10:
                assert (job.status, job.output) == (Status.OK, b"A%d" % n)
            else:
                assert job.status is Status.FAILED
                assert job.error is not None and job.error.type == "ValueError"

    def test_what_is_cancelled_comes_back_too_and_leaves_its_place(self, executor: Executor) -> None:
        jobs = [_job("upper", b"a", n) for n in range(max(1, executor.backlog))]
        ended: list[Job] = []
        executor.start(ended.append)
        try:
            executor.submit(jobs)
            executor.cancel(jobs, "revoked")
            _await(ended, len(jobs))
            assert sorted(job.offset for job in ended) == [job.offset for job in jobs]
            later = [_job("upper", b"b", n) for n in range(len(jobs))]
            executor.submit(later)
            _await(ended, 2 * len(jobs))
            assert [job.output for job in later] == [b"B"] * len(jobs)
        finally:
            executor.close(5.0)


def _await(ended: list[Job], count: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(ended) < count and time.monotonic() < deadline:
        time.sleep(0.01)


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
            assert codec.peek_task(value)[:4] == (task.id, task.type, task.data, task.attempt)
        result = a_result(b"\xff")._replace(error=ErrorInfo("E", "m", None, True), status=Status.CRASHED)
        assert codec.decode_result(codec.encode_result(result)) == result
        event = Event("a", "t", "n", 1, 2, "e", Source("t", 1, 2, 3), ErrorInfo("E", "m"), {"k": "v"})
        more = Trail(
            "b", "t", 2, None, None, [("one", 3, None, {}), ("two", 4, None, {"k": "v"}), ("three", 4, None, {})]
        )
        values = codec.encode_trails([Trail.of(event), more, Trail.of(event)])
        assert [codec.decode_event(value) for value in values] == [event, *more.events(), event]

    def test_bad_bytes_are_one_error(self, codec: Codec) -> None:
        good = codec.encode_task(TaskEnvelope(new_task_id(), "t", b"data", now_us(), labels={"a": "b"}))
        bad = [good[:n] for n in range(len(good))] + [good + b"\0", b"\0" * 100, b"\xc3\x01" + b"\xff" * 50]
        for value in bad:
            for decode in (codec.peek_task, codec.decode_task, codec.decode_result, codec.decode_event):
                with pytest.raises(EnvelopeError):
                    decode(value)
