"""Failing tasks in the log: seen, and no flood."""

from __future__ import annotations

import logging

import pytest

from kantoku_kafka.engine.failures import FailureLog
from kantoku_kafka.job import Job, Partition
from kantoku_kafka.model import ErrorInfo, Status


def a_failure(task_id: str, kind: str = "ValueError") -> Job:
    job = Job(Partition("in", 0, 1), 0, None, b"")
    job.task_id, job.type = task_id, "resize"
    job.fail(Status.FAILED, ErrorInfo(kind, "no picture"))
    return job


def test_one_line_of_each_kind_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    log = FailureLog(every_seconds=10, clock=lambda: now[0])
    with caplog.at_level(logging.WARNING):
        for number in range(5):
            log.note(a_failure(f"t{number}"))
        log.note(a_failure("other", "KeyError"))
        now[0] = 10.0
        log.note(a_failure("t9"))
    assert [record.getMessage() for record in caplog.records] == [
        "task t0 of type resize: FAILED, ValueError: no picture",
        "task other of type resize: FAILED, KeyError: no picture",
        "task t9 of type resize: FAILED, ValueError: no picture (and 4 more since the last line)",
    ]
