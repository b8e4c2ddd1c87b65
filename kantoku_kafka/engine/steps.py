"""Which events tell of a job: the steps of its task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kantoku_kafka.job import Job
from kantoku_kafka.model import Event, EventName, Status, Step, TaskEnvelope, Trail
from kantoku_kafka.settings import EventDetail

__all__ = ["Note", "Steps", "event_of"]

_new = tuple.__new__  # what a NamedTuple's own does besides costs as much again

_RECEIVED, _EXECUTED, _SENT = EventName.RECEIVED_TASK, EventName.EXECUTED_TASK, EventName.SENT_OUTPUTS
_ERROR, _DEAD_LETTERED = EventName.ERROR, EventName.DEAD_LETTERED
_PLAIN: Mapping[str, str] = {}
_ATTEMPT = {Status.TIMED_OUT: EventName.TIMED_OUT, Status.CANCELLED: EventName.CANCELLED}
_ENDED = {status: {"status": status.value} for status in Status}

Note = tuple[Job, int, Mapping[str, str]]
"""What a running job said by a heartbeat, and when."""


class Steps:
    """The events of jobs, those of one task side by side. Pure, safe in any thread.

    Parameters:
        detail: which of them are logged.
        executor_id: who speaks.
    """

    def __init__(self, detail: EventDetail, executor_id: str) -> None:
        self._detail = detail
        self._executor_id = executor_id

    def of(self, jobs: Iterable[Job]) -> list[Trail]:
        """Of jobs that have ended."""
        if self._detail is EventDetail.OFF:
            return []
        trails: list[Trail] = []
        executor_id = self._executor_id
        full = self._detail is EventDetail.FULL
        for job in jobs:
            status = job.status
            if status is None:
                if full and job.move is not None and job.move.step is not None:  # else there is no task to speak of
                    trails.append(self._moved(job, job.move.step, job.move.attributes))
                continue
            at_us, error = job.finished_at_us, job.error
            steps: list[Step] = []
            if full:
                steps += self._attempt(job, status)
                if job.letter is not None:
                    steps.append((_DEAD_LETTERED, at_us, error, _PLAIN))
            if job.events and status is Status.OK:
                for event in job.events:
                    if event.task_id != job.task_id:  # that a child was spawned
                        trails += [Trail.of(event)] if full else []
                    elif full or "." in event.name:
                        steps.append((event.name, event.at_us, event.error, event.attributes))
            steps.append((_SENT, at_us, error, _ENDED[status]))
            trails.append(_new(Trail, (job.task_id, job.type, job.attempt, executor_id, job.source, steps)))
        return trails

    def _attempt(self, job: Job, status: Status) -> list[Step]:
        """That it was received, and how it ended."""
        unusual = _ERROR if job.started_at_us is None else _EXECUTED
        ended = (_ATTEMPT.get(status, unusual), job.finished_at_us, job.error, _PLAIN)
        if status is Status.CANCELLED and job.started_at_us is None:
            return [ended]
        return [ended] if job.announced else [(_RECEIVED, job.received_at_us, None, _PLAIN), ended]

    def _moved(self, job: Job, step: EventName, attributes: Mapping[str, str]) -> Trail:
        """Of a task that goes on elsewhere: after an attempt, or before it was ever started."""
        if job.outcome is None:
            steps: list[Step] = [(step, job.received_at_us, None, attributes)]
        else:
            steps = [*self._attempt(job, job.outcome), (step, job.finished_at_us, job.error, attributes)]
        source = None if step is EventName.SPAWNED else job.source  # a schedule's task has yet to come by an input
        return _new(Trail, (job.task_id, job.type, job.attempt, self._executor_id, source, steps))

    def of_running(self, received: Iterable[Job], notes: Iterable[Note]) -> list[Trail]:
        """Of jobs that still run: that they were received, and what they say of themselves, and when."""
        steps: list[tuple[Job, Step]] = [(job, (_RECEIVED, job.received_at_us, None, _PLAIN)) for job in received]
        steps += [(job, (EventName.PROGRESS, at_us, None, progress)) for job, at_us, progress in notes]
        return [Trail(j.task_id, j.type, j.attempt, self._executor_id, j.source, (step,)) for j, step in steps]


def event_of(envelope: TaskEnvelope) -> Event:
    """That a task was spawned, from its envelope; labels, parent and what it restarts go into the attributes."""
    attributes = {f"label.{name}": value for name, value in envelope.labels.items()}
    if envelope.parent_id is not None:
        attributes["parent_id"] = envelope.parent_id
    if envelope.restarted_from is not None:
        attributes["restarted_from"] = envelope.restarted_from
    name = EventName.SPAWNED.value
    return Event(envelope.id, envelope.type, name, envelope.attempt, envelope.created_at_us, attributes=attributes)
