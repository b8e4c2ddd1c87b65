"""Which jobs leave behind what no broker takes, and what is kept of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recording import Inputs

from kantoku_kafka.engine.culprits import culprits_among, withdraw
from kantoku_kafka.engine.reply import Reply
from kantoku_kafka.formats import Json
from kantoku_kafka.job import Job, Message, Move
from kantoku_kafka.model import ErrorInfo, Status

LETTER = Message("dlq", b"key", b"the record", (("h", b"1"),))
SHORTENED = Message("dlq", b"key", b"", (("h", b"1"), ("kantoku-truncated", b"true")))


@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_culprits_are_found_in_their_order_by_few_questions(refused: list[bool]) -> None:
    inputs, questions = Inputs(), 0
    jobs = [inputs.job(str(number)) for number in range(len(refused))]
    bad = [job for job, is_bad in zip(jobs, refused, strict=True) if is_bad]

    def accepts(some: list[Job]) -> bool:
        nonlocal questions
        questions += 1
        assert some
        return not set(bad) & set(some)

    assert culprits_among(jobs, accepts) == bad
    assert questions <= 1 + 2 * len(bad) * (len(jobs) - 1).bit_length()


def failure() -> Job:
    job = Inputs().job("a")
    job.fail(Status.TIMED_OUT, ErrorInfo("E", "m"))
    job.letter, job.reply = LETTER, Reply("replies", Json())
    return job


@pytest.mark.parametrize("refused", ["reply", "letter"])
def test_of_a_failure_only_what_is_refused_is_given_up(refused: str) -> None:
    job = failure()

    def accepts(trial: list[Job]) -> bool:
        assert (job.letter, job.reply is None) == (LETTER, False), "to ask changes nothing"
        return getattr(trial[0], refused) is None

    withdraw(job, accepts)
    assert job.error == ErrorInfo("E", "m")
    assert job.letter == (SHORTENED if refused == "letter" else LETTER)
    assert (job.reply is None) is (refused == "reply")


def test_of_a_failure_all_is_shortened_if_more_is_refused() -> None:
    job = failure()
    withdraw(job, lambda _: False)
    assert job.error is not None
    assert (job.status, job.error.type, job.letter, job.headers) == (Status.FAILED, "result_too_large", SHORTENED, ())
    assert job.reply is not None


def test_a_success_that_is_refused_is_a_failure_which_names_the_topics() -> None:
    job = Inputs().job("a")
    job.succeed(b"done")
    job.effects, job.reply = [Message("side", None, b"x")], Reply("replies", Json())
    withdraw(job, lambda _: pytest.fail("there is nothing to ask"))
    assert job.error is not None and "to replies, side:" in job.error.message
    assert (job.status, job.output, job.effects, job.reply is None) == (Status.FAILED, b"", None, False)


def test_a_task_that_can_go_nowhere_ends_and_keeps_its_marks() -> None:
    job, mark = Inputs().job("a"), Message("timers", b"a", None)
    job.carry_on(Move((Message("elsewhere", b"a", b"task"),), marks=(mark,)))
    withdraw(job, lambda _: False)
    assert job.move == Move((), marks=(mark,))
    assert job.error is not None and "to elsewhere:" in job.error.message
