"""What becomes of a task that must not run yet, must not run any more, or did not end well. No I/O."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from kantoku_kafka.avro.control import encode_timer
from kantoku_kafka.engine.cancel import CANCELLED_REASON, Cancellations, cancelled_error
from kantoku_kafka.engine.deadletter import dead_letter
from kantoku_kafka.engine.dedup import Memory
from kantoku_kafka.engine.reply import Replies
from kantoku_kafka.engine.retry import CRASHED, MAX_ATTEMPTS, OPTION, TIMED_OUT, Retry
from kantoku_kafka.engine.rules import Rules
from kantoku_kafka.errors import BadPayload, EnvelopeError
from kantoku_kafka.ids import is_idempotent, task_id_time_ms
from kantoku_kafka.job import Job, Limits, Message, Move, Raised
from kantoku_kafka.model import Command, ErrorInfo, EventName, Status, TaskEnvelope, Timer, lasting_headers
from kantoku_kafka.names import Topics
from kantoku_kafka.protocols import Codec
from kantoku_kafka.signing.form import good_until_us

__all__ = ["FIRED", "Judge", "PUT_BACK", "TIMED_OUT_REASON", "limits_of", "was_moved"]

TIMED_OUT_REASON = "timed_out"
FIRED, PUT_BACK = "kantoku-timer", "kantoku-redriven"
"""Headers of a task that a timer has put onto its input, or a person, from the dead letters; where it stood before. It
is the one that was spawned, and no other one with its id."""
_BY_STATUS = {Status.TIMED_OUT: TIMED_OUT, Status.CRASHED: CRASHED}
_BAD_PAYLOAD = f"{BadPayload.__module__}.{BadPayload.__qualname__}"
_TRIED_AGAIN = frozenset((Status.FAILED, Status.TIMED_OUT, Status.CRASHED))
_DEFAULT = Retry()
# Of a spawn that is later than our clock, its own time counts up to here, for ours may be behind; beyond, it is ahead.
_CLOCKS_DIFFER_US = 3 * 3_600_000_000
_YEAR_9999_US = 253_370_764_800_000_000


def policy_of(rules: Rules, envelope: TaskEnvelope | None) -> Retry | None:
    """The retry policy of a task: its own, or that of its type. Raises EnvelopeError for one that is none."""
    if envelope is None:
        return rules.retry
    if OPTION in envelope.options:
        return Retry.decode(envelope.options[OPTION])
    if envelope.max_attempts is None:
        return rules.retry
    if envelope.max_attempts < 1:
        raise EnvelopeError(f"The task has max_attempts {envelope.max_attempts}; it is at least 1.")
    return _with_attempts(rules.retry or _DEFAULT, envelope.max_attempts)


def limits_of(rules: Rules, envelope: TaskEnvelope | None) -> Limits:
    """The limits of a task. Raises EnvelopeError as :func:`policy_of`."""
    timeout_us, heartbeat_us = _us(rules.timeout_seconds), _us(rules.heartbeat_seconds)
    if envelope is None:
        return Limits(timeout_us, None, heartbeat_us)
    if envelope.timeout_ms is not None:
        if envelope.timeout_ms < 1:
            raise EnvelopeError(f"The task has timeout_ms {envelope.timeout_ms}; it is at least 1.")
        timeout_us = envelope.timeout_ms * 1_000
    policy = policy_of(rules, envelope)
    if policy is None or policy.total_seconds is None:
        return Limits(timeout_us, None, heartbeat_us)
    return Limits(timeout_us, envelope.created_at_us + round(policy.total_seconds * 1_000_000), heartbeat_us)


def _us(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1_000_000)


class Judge:
    """The loop thread owns it.

    Parameters:
        topics: where timers and dead letters go.
        codec: of the envelopes.
        rules: by task type.
        max_data_bytes: of a result.
        luck: a number from 0 to 1 for each delay.

    Attributes:
        watched: types whose every job has to :meth:`enter`.
        cancellations: what was cancelled.
    """

    def __init__(
        self,
        topics: Topics,
        codec: Codec,
        rules: Mapping[str, Rules],
        max_data_bytes: int,
        luck: Callable[[], float] = random.random,
    ) -> None:
        self._topics = topics
        self._codec = codec
        self._rules = rules
        self._max_data_bytes = max_data_bytes
        self._luck = luck
        self.cancellations = Cancellations()
        self._replies = Replies(topics, rules)
        self.watched = frozenset(name for name, rule in rules.items() if rule.watches)

    def enter(self, job: Job, memory: Memory, now_us: int) -> bool:
        """Whether a task that has come may wait for its start; else what becomes of it is decided.

        Its partition's memory knows it from then on.

        Call it for jobs that have an envelope, or are of a type that is :attr:`watched`.

        Raises:
            EnvelopeError: for options that cannot be.
        """
        rules = self._rules[job.type]
        if job.envelope is None and rules.retry is not None and rules.retry.total_seconds is not None:
            job.envelope = self._codec.decode_task(job.value)
        envelope = job.envelope
        if self.is_duplicate(job, memory, now_us):  # first: what is wrong with it does not matter then
            job.received_at_us = now_us
            job.carry_on(Move((), EventName.DUPLICATE))
            return False
        job.reply = self._replies.of(job.type, envelope)
        job.limits = limits_of(rules, envelope)
        if envelope is None or envelope.not_before_us is None or envelope.not_before_us <= now_us or _bears(job, FIRED):
            return True
        job.received_at_us = now_us
        self._postpone(job, envelope, envelope.attempt, envelope.not_before_us, EventName.DELAYED)
        return False

    def is_duplicate(self, job: Job, memory: Memory, now_us: int) -> bool:
        """Whether this is another spawn of an id that is remembered; it is remembered itself, if its type wants that.

        A task that a timer, or a redrive, has put here is the one that was spawned before, not another one. Time is
        that of the spawns, however late they are reached.

        Raises:
            EnvelopeError: for a record that is no task.
        """
        rules = self._rules.get(job.type)
        if rules is None or not (rules.deduplicate_all or _is_named(job)):
            return False
        known = memory.past.tells_of(job.task_id, job.offset)
        put_back = _bears(job, PUT_BACK)
        if _has_come_before(job) and not put_back:
            return known
        made_us = _made_us(job)
        if made_us is None:
            job.envelope = self._codec.decode_task(job.value)
            made_us = job.envelope.created_at_us
        until_us = min(made_us, now_us + _CLOCKS_DIFFER_US) + round(rules.deduplicate_seconds * 1_000_000)
        again = memory.is_duplicate(job.task_id, job.offset, until_us, min(made_us, now_us))
        return known or (again and not put_back)

    def pass_by(self, job: Job, memory: Memory, now_us: int) -> None:
        """Let a memory go by the time at which this was spawned."""
        made_us = _made_us(job)
        if made_us is not None:
            memory.pass_by(min(made_us, now_us))

    def reject(self, job: Job) -> None:
        """A task of a type that is not served: it may have asked for a reply all the same."""
        with suppress(EnvelopeError):
            job.reply = self._replies.of(job.type, job.envelope)

    def start(self, job: Job, now_us: int) -> bool:
        """Whether a job may start now; else it has ended. Call it for jobs with an envelope, and if anything was ever
        cancelled."""
        if self.is_cancelled(job):
            return False
        envelope, limits = job.envelope, job.limits
        if envelope is None:
            return True
        if envelope.expires_at_us is not None and envelope.expires_at_us <= now_us:
            job.fail(Status.EXPIRED, ErrorInfo("expired", "The task had not started when its time was over."))
            return False
        if limits is not None and limits.close_by_us is not None and limits.close_by_us <= now_us:
            job.fail(Status.TIMED_OUT, _OUT_OF_TIME)
            job.letter = dead_letter(self._topics.dlq, job, _OUT_OF_TIME)
            return False
        return True

    def cancelling(self, job: Job) -> Command | None:
        """The command that cancels the task of a job."""

        def envelope() -> TaskEnvelope:
            return job.envelope or self._codec.decode_task(job.value)

        return self.cancellations.match(job.task_id, job.type, envelope) if self.cancellations else None

    def is_cancelled(self, job: Job) -> bool:
        """Whether a job that has not started was cancelled: it has ended then."""
        command = self.cancelling(job)
        if command is not None:
            job.received_at_us = time.time_ns() // 1000
            job.fail(Status.CANCELLED, cancelled_error(command))
        return command is not None

    def is_over(self, job: Job, now_us: int) -> bool:
        """Whether a job that runs has had its time."""
        if job.limits is None or job.started_at_us is None or job.cancelled is not None:
            return False
        end_us = job.limits.end_us(job.started_at_us)
        if end_us is not None and end_us <= now_us:
            return True
        heartbeat_us = job.limits.heartbeat_us
        return heartbeat_us is not None and (job.beat_at_us or job.started_at_us) + heartbeat_us <= now_us

    def conclude(self, job: Job) -> None:
        """A job came back from its pool: see how its attempt ended. It has not, whatever it says, if it was told to
        end because its partition or this process goes away: it runs again."""
        if job.cancelled == TIMED_OUT_REASON:
            job.fail(Status.TIMED_OUT, _TIMED_OUT)
        elif job.cancelled == CANCELLED_REASON:
            job.fail(Status.CANCELLED, cancelled_error(self.cancelling(job)))
        elif job.cancelled is not None:
            job.take_back()
        elif job.status is None:
            job.fail(Status.CRASHED, _NO_OUTCOME)
        elif len(job.output) > self._max_data_bytes:
            job.fail(Status.FAILED, _too_large(len(job.output), self._max_data_bytes))

    def settle(self, job: Job) -> None:
        """A job has ended other than well: it is tried again later, or has a dead letter, or neither."""
        status = job.status
        if job.error is not None and status is Status.REJECTED and job.raised is not None:
            if _BAD_PAYLOAD in job.raised.kinds:
                job.letter = dead_letter(self._topics.dlq, job, job.error)
            return
        if status not in _TRIED_AGAIN or job.error is None:
            return
        raised = _BY_STATUS.get(status) or job.raised or Raised(())
        policy = policy_of(self._rules[job.type], job.envelope) or (_DEFAULT if raised.asked else None)
        if policy is None:
            return
        envelope = job.envelope or self._codec.decode_task(job.value)
        due_us = self._due_us(job, envelope, policy, raised)
        if due_us is None:
            job.letter = dead_letter(self._topics.dlq, job, job.error)
        else:
            self._postpone(job, envelope, job.attempt + 1, due_us, EventName.RETRY_SCHEDULED)

    def _due_us(self, job: Job, envelope: TaskEnvelope, policy: Retry, raised: Raised) -> int | None:
        """When to try again; None: never."""
        if job.attempt >= policy.max_attempts or not policy.covers(raised):
            return None
        seconds = raised.after_seconds
        if seconds is None:
            seconds = policy.delay_seconds(job.attempt, self._luck())
        due_us = job.finished_at_us + round(seconds * 1_000_000)
        ends = [envelope.expires_at_us, good_until_us(job.task_id, job.raw_headers or ())]
        if policy.total_seconds is not None:
            ends.append(envelope.created_at_us + round(policy.total_seconds * 1_000_000))
        return None if any(end_us is not None and due_us >= end_us for end_us in ends) else due_us

    def _postpone(self, job: Job, envelope: TaskEnvelope, attempt: int, due_us: int, step: EventName) -> None:
        task = envelope._replace(attempt=attempt)
        timer = Timer(
            task_id=job.task_id,
            type=job.type,
            attempt=attempt,
            due_at_us=due_us,
            topic=job.home or job.partition.topic,
            key=job.key,
            task=self._codec.encode_task(task),
            headers=lasting_headers(job.raw_headers),
        )
        message = Message(self._topics.timers, job.task_id.encode(), encode_timer(timer))
        job.carry_on(Move((message,), step, {"due_at": _text(due_us)}))


_NO_OUTCOME = ErrorInfo("no_outcome", "The pool gave the task back without saying what became of it.")
_TIMED_OUT = ErrorInfo("timed_out", "The attempt had not ended when its time was over.")
_OUT_OF_TIME = ErrorInfo("out_of_time", "The total time of the task was over before this attempt could start.")


def _too_large(size_bytes: int, limit_bytes: int) -> ErrorInfo:
    return ErrorInfo(
        "result_too_large",
        f"The result has {size_bytes} bytes; the results topic takes {limit_bytes}. "
        "Return a reference to the data, or raise max.message.bytes of the topic.",
    )


def _made_us(job: Job) -> int | None:
    """When a task was made, by the clock of whoever made it; None if neither its envelope is read nor its id tells."""
    if job.envelope is not None:
        return job.envelope.created_at_us
    time_ms = task_id_time_ms(job.task_id)
    return None if time_ms is None else time_ms * 1_000


def was_moved(headers: Iterable[tuple[str, bytes | None]]) -> bool:
    """Whether a record is a task that stood elsewhere before, by its headers."""
    return any(name in (FIRED, PUT_BACK) for name, _ in headers)


def _bears(job: Job, header: str) -> bool:
    return any(name == header for name, _ in job.raw_headers or ())


def _has_come_before(job: Job) -> bool:
    return job.attempt > 1 or was_moved(job.raw_headers or ())


def _is_named(job: Job) -> bool:
    """Whether its id comes of a name that was given to it: that of a foreign record without one is its place."""
    unnamed = job.home is not None and (job.envelope is None or job.envelope.idempotency_key is None)
    return is_idempotent(job.task_id) and not unnamed


def _with_attempts(policy: Retry, max_attempts: int) -> Retry:
    return replace(policy, max_attempts=min(max_attempts, MAX_ATTEMPTS))  # other languages' way to say "always"


def _text(time_us: int) -> str:
    if not 0 <= time_us < _YEAR_9999_US:
        return str(time_us)
    return datetime.fromtimestamp(time_us / 1_000_000, UTC).isoformat(timespec="milliseconds")
