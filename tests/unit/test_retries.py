"""Retries, delays, expiry and timeouts, over the in-memory log: the whole of an executor but Kafka."""

from __future__ import annotations

import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kantoku_kafka import (
    Context,
    Crashed,
    Kantoku,
    NonRetryable,
    Reject,
    Retry,
    Retryable,
    Status,
    Task,
    at,
    delay,
    expires,
    retry,
    timeout,
)
from kantoku_kafka.engine.retry import OPTION, kinds_of
from kantoku_kafka.errors import EnvelopeError, UsageError
from kantoku_kafka.job import Raised
from kantoku_kafka.plugins import SpawnContext
from kantoku_kafka.replay.fold import Fold, LoggedEvent
from kantoku_kafka.testing import Run, run_tasks


def app() -> Kantoku:
    kan = Kantoku("retries")

    @kan.task("flaky", retry=Retry(max_attempts=4))
    def flaky(data: bytes, ctx: Context) -> bytes:
        if ctx.attempt < int(data):
            raise ConnectionError(f"attempt {ctx.attempt}")
        return b"attempt %d" % ctx.attempt

    @kan.task("picky", retry=Retry(max_attempts=3, on=OSError, not_on=(PermissionError,)))
    def picky(data: bytes) -> bytes:
        errors = {b"os": ConnectionError, b"perm": PermissionError, b"value": ValueError, b"final": NonRetryable}
        raise errors[data]("x")

    @kan.task("plain")
    def plain(data: bytes, ctx: Context) -> bytes:
        if data == b"ask" and ctx.attempt == 1:
            raise Retryable("not yet")
        if data == b"reject":
            raise Reject("no")
        if data == b"fail":
            raise ValueError("once")
        return b"%d" % ctx.attempt

    @kan.task("slow", timeout_seconds=0.2)
    def slow(data: bytes, ctx: Context) -> bytes:
        ended = threading.Event()
        while ctx.cancelled is None:
            ended.wait(0.01)
        return b"too late"

    return kan


def steps(run: Run, task_id: str) -> list[tuple[int, str]]:
    return [(event.attempt, event.name) for event in run.events if event.task_id == task_id]


def test_a_task_is_tried_again_under_its_id_until_it_succeeds() -> None:
    run = run_tasks(app(), [Task("flaky", b"3")])
    (result,) = run.results
    assert (result.status, result.data, result.attempt) == (Status.OK, b"attempt 3", 3)
    assert len(run.all_results) == 1 and not run.dead_letters
    again = ["received_task", "executed_task", "retry_scheduled"]
    assert steps(run, result.task_id) == [
        (1, "spawned"),
        *((1, name) for name in again),
        *((2, name) for name in again),
        *((3, name) for name in ("received_task", "executed_task", "sent_outputs")),
    ]
    logged = [LoggedEvent(event, 0, offset) for offset, event in enumerate(run.events)]
    assert not Fold().state(logged).problems


def test_attempts_used_up_end_failed_with_one_dead_letter() -> None:
    run = run_tasks(app(), [Task("flaky", b"9")])
    (result,) = run.results
    assert (result.status, result.attempt, result.error and result.error.type) == (Status.FAILED, 4, "ConnectionError")
    (letter,) = run.dead_letters
    envelope = run.kantoku.codec.decode_task(letter.value)
    assert (envelope.id, envelope.attempt, letter.key) == (result.task_id, 4, result.task_id.encode())
    headers = dict(letter.headers)
    assert headers["kantoku-error-type"] == b"ConnectionError" and headers["kantoku-attempt"] == b"4"
    assert steps(run, result.task_id)[-2:] == [(4, "dead_lettered"), (4, "sent_outputs")]


@pytest.mark.parametrize(("data", "attempts"), [(b"os", 3), (b"perm", 1), (b"value", 1), (b"final", 1)])
def test_a_policy_chooses_by_exception(data: bytes, attempts: int) -> None:
    run = run_tasks(app(), [Task("picky", data)])
    assert (run.results[0].status, run.results[0].attempt) == (Status.FAILED, attempts)
    assert len(run.dead_letters) == 1


def test_without_a_policy_only_what_asks_for_it_is_tried_again() -> None:
    run = run_tasks(app(), [Task("plain", b"ask"), Task("plain", b"fail"), Task("plain", b"reject")])
    assert [(r.status, r.attempt, r.data) for r in run.results] == [
        (Status.OK, 2, b"2"),
        (Status.FAILED, 1, b""),
        (Status.REJECTED, 1, b""),
    ]
    assert not run.dead_letters


def test_a_task_may_bring_its_own_policy() -> None:
    once = retry(Retry(max_attempts=1))
    twice = retry(Retry(max_attempts=2, on=["builtins.ValueError"]))
    run = run_tasks(app(), [Task("flaky", b"2").with_(once), Task("plain", b"fail").with_(twice)])
    assert [(r.status, r.attempt) for r in run.results] == [(Status.FAILED, 1), (Status.FAILED, 2)]
    assert len(run.dead_letters) == 2


def test_a_delayed_task_is_moved_to_the_timers_and_runs_when_it_is_due() -> None:
    due = datetime.now(UTC) + timedelta(seconds=0.4)
    run = run_tasks(app(), [Task("plain", b"").with_(at(due))], waits_for_timers=True)
    (result,) = run.results
    assert result.ok and result.attempt == 1
    assert result.started_at_us is not None and result.started_at_us >= due.timestamp() * 1_000_000
    assert [name for _, name in steps(run, result.task_id)] == [
        "spawned",
        "delayed",
        "received_task",
        "executed_task",
        "sent_outputs",
    ]
    assert run.log.read("retries.timers")[-1].value == b"", "a tombstone ends the timer"


def test_a_task_that_starts_too_late_is_expired_and_never_runs() -> None:
    run = run_tasks(app(), [Task("plain", b"").with_(expires(seconds=1e-6))])
    (result,) = run.results
    assert (result.status, result.started_at_us, result.data) == (Status.EXPIRED, None, b"")


def test_a_thread_is_told_that_its_time_is_over() -> None:
    tasks = [Task("slow"), Task("slow").with_(retry(Retry(max_attempts=2)), timeout(seconds=0.1))]
    run = run_tasks(app(), tasks)
    assert [(r.status, r.attempt) for r in run.results] == [(Status.TIMED_OUT, 1), (Status.TIMED_OUT, 2)]
    assert not any(r.data for r in run.results)
    assert (1, "timed_out") in steps(run, run.results[0].task_id)
    assert len(run.dead_letters) == 1


def test_a_task_that_says_nothing_of_itself_for_too_long_is_ended_and_one_that_does_is_not() -> None:
    kan = Kantoku("beats")
    ended = threading.Event()

    @kan.task("t", heartbeat_seconds=0.4, timeout_seconds=60)
    def t(data: bytes, ctx: Context) -> bytes:
        assert ctx.deadline is not None and 50 < (ctx.deadline - datetime.now(UTC)).total_seconds() <= 60
        for n in range(12):
            if data == b"alive":
                ctx.heartbeat(done=f"{n} of 12")
            if ctx.cancelled:
                return b"ended"
            ended.wait(0.1)
        return b"done"

    run = run_tasks(kan, [Task("t", b"alive"), Task("t", b"mute")])
    assert [(r.status, r.data) for r in run.results] == [(Status.OK, b"done"), (Status.TIMED_OUT, b"")]
    said = [event.attributes["done"] for event in run.events if event.name == "progress"]
    assert 1 <= len(said) <= 3 and all(text.endswith(" of 12") for text in said)
    assert steps(run, run.results[0].task_id)[-2:] == [(1, "executed_task"), (1, "sent_outputs")]


def test_no_attempt_starts_after_the_total_time() -> None:
    policy = Retry(max_attempts=100, initial_seconds=3_600, total_seconds=5)
    run = run_tasks(app(), [Task("flaky", b"9").with_(retry(policy))])
    assert (run.results[0].status, run.results[0].attempt) == (Status.FAILED, 1)


policies = st.builds(
    Retry,
    max_attempts=st.integers(1, 1_000_000),
    initial_seconds=st.floats(0, 1e6),
    factor=st.floats(1, 1_000),
    max_seconds=st.floats(0, 1e6),
    jitter=st.floats(0, 1),
    on=st.sampled_from([(), ("builtins.OSError",)]),
    total_seconds=st.none() | st.floats(0, 1e6),
)


@given(policies, st.integers(1, 1_000_000), st.floats(0, 1))
def test_delays_stay_within_their_bounds(policy: Retry, attempt: int, luck: float) -> None:
    assert 0 <= policy.delay_seconds(attempt, luck) <= policy.max_seconds
    assert policy.delay_seconds(attempt, 0) <= policy.delay_seconds(attempt + 1, 0)


@given(policies)
def test_a_policy_travels(policy: Retry) -> None:
    assert Retry.decode(policy.encode()) == policy


@given(st.binary(max_size=60))
def test_bytes_that_are_no_policy_are_refused(raw: bytes) -> None:
    with suppress(EnvelopeError):
        Retry.decode(raw)


@pytest.mark.parametrize(
    "option", [b'{"\\ud800":1}', b'{"initial_seconds":' + b"9" * 400 + b"}", b"[" * 100_000, b'{"factor":NaN}']
)
def test_a_policy_that_is_none_ends_its_own_task_only(option: bytes) -> None:
    def bring(ctx: SpawnContext) -> None:
        ctx.options[OPTION] = option

    kan = Kantoku("test")
    kan.task("fine", pool="inline")(bytes)
    run = run_tasks(kan, [Task("fine", b"bad").with_(bring), Task("fine", b"good")])
    assert [result.status for result in run.results] == [Status.REJECTED, Status.OK]
    assert len(run.dead_letters) == 1


def test_who_wants_attempts_without_end_has_a_million() -> None:
    def forever(ctx: SpawnContext) -> None:
        ctx.fields["max_attempts"] = 2**31 - 1

    kan = Kantoku("test")
    kan.task("fine", pool="inline")(bytes)
    (result,) = run_tasks(kan, [Task("fine", b"good").with_(forever)]).results
    assert result.ok


def test_a_subclass_is_covered_by_name() -> None:
    assert Retry(on=OSError).covers(Raised(kinds_of(ConnectionResetError)))
    assert not Retry(not_on="OSError").covers(Raised(kinds_of(ConnectionResetError)))
    assert not Retry(on=OSError).covers(Raised(kinds_of(Crashed)))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Retry(max_attempts=0),
        lambda: Retry(max_attempts=True),
        lambda: Retry(max_attempts=2.5),  # type: ignore[arg-type]  # what this is about
        lambda: Retry(initial_seconds=-1),
        lambda: Retry(factor=0.5),
        lambda: Retry(jitter=2),
        lambda: Retry(max_seconds=float("nan")),
        lambda: Retry(on=42),  # type: ignore[arg-type]  # as above
        lambda: Retry(on=[int]),  # type: ignore[list-item]  # as above
        lambda: delay(seconds=-1),
        lambda: delay(seconds="5"),  # type: ignore[arg-type]  # as above
        lambda: delay(seconds=float("inf")),
        lambda: expires(seconds=0),
        lambda: timeout(seconds=0),
        lambda: at(datetime(2030, 1, 1)),
        lambda: at("tomorrow"),  # type: ignore[arg-type]  # as above
        lambda: retry(5),  # type: ignore[arg-type]  # as above
        lambda: Kantoku("x").task("t", retry=5),  # type: ignore[arg-type]  # as above
        lambda: Kantoku("x").task("t", timeout_seconds=0),
        lambda: Retryable("x", after_seconds=-1),
    ],
)
def test_what_cannot_be_is_refused_at_once(wrong: object) -> None:
    assert callable(wrong)
    with pytest.raises(UsageError):
        wrong()
