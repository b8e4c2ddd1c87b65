"""The schedules of a namespace: their tasks are put onto their inputs when they are due."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from kantoku_kafka.avro.control import decode_schedule, decode_schedule_state, encode_schedule_state
from kantoku_kafka.engine.book import NEVER_US, Book
from kantoku_kafka.engine.cancel import CANCEL, command_message
from kantoku_kafka.engine.recurrence import Recurrence
from kantoku_kafka.engine.steps import event_of
from kantoku_kafka.errors import EnvelopeError, KantokuError, UsageError
from kantoku_kafka.ids import occurrence_id
from kantoku_kafka.job import Job, Message, Move, Partition
from kantoku_kafka.model import (
    CatchUp,
    Command,
    EventName,
    Overlap,
    Schedule,
    ScheduleState,
    TaskEnvelope,
)
from kantoku_kafka.names import Topics
from kantoku_kafka.protocols import Codec

__all__ = ["STATE", "ScheduleBook", "occurrence"]

_log = logging.getLogger(__name__)
STATE = b"state/"
"""Prefix of the keys under which it stands how far schedules are; no name of one has a slash."""
_ASK_AGAIN_US, _AFTER_FAILURE_US = 50_000, 5_000_000
_UNKNOWN = ScheduleState(0, None, 0, 0)


@dataclass(slots=True)
class _Entry:
    """A schedule that runs. ``due_us``: its next time; ``wake_us``: when to look at it."""

    schedule: Schedule
    recurrence: Recurrence
    envelope: TaskEnvelope
    offset: int
    state: ScheduleState
    due_us: int | None = None
    wake_us: int = NEVER_US
    answer: Future[bool] | None = None

    def pass_over(self, until_us: int) -> None:
        """The times up to this one are dealt with."""
        self.answer = None
        self.due_us = self.recurrence.next_after(until_us)
        self.wake_us = NEVER_US if self.due_us is None else self.recurrence.fire_at(self.due_us)


class ScheduleBook(Book):
    """As :class:`Book`. How far each schedule is stands in the topic too, written with each task that is spawned.

    Parameters:
        namespace: of the app.
        topics: the names.
        codec: of the envelopes.
        has_ended: whether a task has a result; the answer may come later, and may be an error.
    """

    def __init__(
        self,
        partition: Partition,
        offset: int,
        end: int,
        *,
        topics: Topics,
        codec: Codec,
        has_ended: Callable[[str], Future[bool]],
    ) -> None:
        super().__init__(partition, offset, end)
        self._begin = offset
        self._topics = topics
        self._codec = codec
        self._has_ended = has_ended
        self._entries: dict[str, _Entry] = {}
        self._states: dict[str, ScheduleState] = {}
        self._next_due_us: int | None = NEVER_US

    @property
    def base(self) -> int:
        """The beginning: there are few records, and each one counts that compaction has left."""
        return self._begin

    def __len__(self) -> int:
        return len(self._entries)

    def take_in(self, records: Iterable[Job]) -> None:
        for job in records:
            self._next_due_us = None
            self.was_read_up_to(job.offset + 1)
            key = job.key or b""
            name = key.removeprefix(STATE).decode("utf-8", "backslashreplace")
            try:
                if key.startswith(STATE):
                    self._take_state(name, job.value)
                else:
                    self._take_schedule(name, job)
            except (EnvelopeError, UsageError, OverflowError) as error:  # a state of the year 60,000
                _log.warning("schedule %s is passed over: %s", name, error, extra={"action": "unreadable_schedule"})

    def _take_state(self, name: str, value: bytes) -> None:
        """What we have written ourselves comes back here, too: what is known by then is as new or newer."""
        if not value:
            self._states.pop(name, None)
            return
        state = decode_schedule_state(value)
        entry = self._entries.get(name)
        self._states[name] = state
        if entry is not None and state.due_at_us > entry.state.due_at_us:
            entry.pass_over(max(state.due_at_us, entry.schedule.changed_at_us))
            entry.state = state

    def _take_schedule(self, name: str, job: Job) -> None:
        entry = self._entries.pop(name, None)
        if not job.value:
            return
        schedule = decode_schedule(job.value)
        if schedule.paused:
            return
        state = entry.state if entry else self._states.get(name, _UNKNOWN)
        envelope = self._codec.decode_task(schedule.task)
        entry = _Entry(schedule, Recurrence(schedule), envelope, job.offset, state)
        entry.pass_over(max(state.due_at_us, schedule.changed_at_us))
        self._entries[name] = entry

    @property
    def next_due_us(self) -> int:
        if self._next_due_us is None:
            self._next_due_us = min((entry.wake_us for entry in self._entries.values()), default=NEVER_US)
        return self._next_due_us

    def take_due(self, now_us: int, most: int) -> Sequence[Job]:
        if self.next_due_us > now_us:
            return []
        self._next_due_us = None
        done: list[Job] = []
        for entry in self._entries.values():
            while entry.wake_us <= now_us and len(done) < most:
                job = self._deal_with(entry, now_us)
                if job is not None:
                    done.append(job)
        return done

    def _deal_with(self, entry: _Entry, now_us: int) -> Job | None:
        """One time of a schedule, or all that were missed: its task is spawned, or why not is said."""
        due_us = self._settle_missed(entry, now_us)
        if due_us is None:
            return None
        last_id, overlap = entry.state.task_id, entry.schedule.overlap
        if last_id is not None and overlap is Overlap.SKIP:
            ended = self._answer(entry, last_id, now_us)
            if ended is None:
                return None
            if not ended:
                _log.info(
                    "schedule %s: %s has not ended, a time is left out",
                    entry.schedule.name,
                    last_id,
                    extra={"action": "schedule_skipped"},
                )
                return self._mark(entry, due_us, None)
        return self._mark(entry, due_us, now_us)

    def _settle_missed(self, entry: _Entry, now_us: int) -> int | None:
        """Which time is to be served now, of those that are over; None: none any more."""
        schedule, recurrence, due_us = entry.schedule, entry.recurrence, entry.due_us
        assert due_us is not None, "it is due"
        if schedule.catch_up is CatchUp.ALL:
            return due_us
        past_us = now_us - schedule.jitter_us
        if schedule.catch_up is CatchUp.SKIP:
            missed_us = recurrence.last_until(past_us - schedule.grace_us, due_us - 1)
            if missed_us is not None:
                entry.pass_over(missed_us)
                return None
            return due_us
        last_us = recurrence.last_until(past_us, due_us)
        if last_us is not None:
            entry.due_us = last_us
        return entry.due_us

    def _answer(self, entry: _Entry, task_id: str, now_us: int) -> bool | None:
        """Whether the last task has ended; None: that is not known yet."""
        if entry.answer is None:
            entry.answer = self._has_ended(task_id)
        if not entry.answer.done():
            entry.wake_us = now_us + _ASK_AGAIN_US
            return None
        answer, entry.answer = entry.answer, None
        try:
            return answer.result()
        except KantokuError as error:
            _log.warning("schedule %s waits: %s", entry.schedule.name, error, extra={"action": "schedule_waits"})
            entry.wake_us = now_us + _AFTER_FAILURE_US
            return None

    def _mark(self, entry: _Entry, due_us: int, now_us: int | None) -> Job:
        """What is written for one time: the task, unless ``now_us`` is None, and how far the schedule is."""
        schedule, state, partition = entry.schedule, entry.state, self.partition
        job = Job(partition, entry.offset, schedule.name.encode(), b"")
        move = Move(())
        if now_us is None:
            entry.state = state._replace(due_at_us=due_us, skipped=state.skipped + 1)
        else:
            task_id = occurrence_id(self._topics.namespace, schedule.name, due_us)
            envelope = occurrence(entry.envelope, task_id, now_us)
            job.task_id, job.type, job.attempt, job.received_at_us = task_id, envelope.type, 1, now_us
            move = self._spawn(schedule, envelope, state.task_id)
            entry.state = ScheduleState(due_us, task_id, state.spawned + 1, state.skipped)
        value = encode_schedule_state(entry.state)
        mark = Message(partition.topic, STATE + schedule.name.encode(), value, (), partition.number)
        job.carry_on(move._replace(marks=(mark,)))
        entry.pass_over(due_us)
        return job

    def _spawn(self, schedule: Schedule, envelope: TaskEnvelope, last_id: str | None) -> Move:
        key = envelope.id.encode() if schedule.key is None else schedule.key
        messages = [Message(schedule.topic, key, self._codec.encode_task(envelope), schedule.headers)]
        if schedule.overlap is Overlap.CANCEL and last_id is not None:
            reason = f"Schedule {schedule.name} has spawned {envelope.id} instead."
            command = Command(CANCEL, envelope.created_at_us, last_id, reason=reason)
            messages.insert(0, command_message(self._topics.control, command))
        return Move(tuple(messages), EventName.SPAWNED, event_of(envelope).attributes)


def occurrence(template: TaskEnvelope, task_id: str, now_us: int) -> TaskEnvelope:
    """The task of a schedule as it is spawned now."""
    expires_at_us = template.expires_at_us
    if expires_at_us is not None:
        expires_at_us += now_us - template.created_at_us
    return template._replace(id=task_id, created_at_us=now_us, expires_at_us=expires_at_us)
