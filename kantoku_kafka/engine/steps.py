"""Which events tell of a job: the steps of its task."""

from __future__ import annotations

from collections.abc import Iterable

from kantoku_kafka.job import Job
from kantoku_kafka.model import Event, EventName, Status
from kantoku_kafka.settings import EventDetail

__all__ = ["Steps"]

_RECEIVED, _EXECUTED, _SENT = EventName.RECEIVED_TASK, EventName.EXECUTED_TASK, EventName.SENT_OUTPUTS
_ERROR, _DEAD_LETTERED = EventName.ERROR, EventName.DEAD_LETTERED
_ENDED = {status: {"status": status.value} for status in Status}


class Steps:
    """The events of jobs, those of one task side by side. Pure, safe in any thread.

    Parameters:
        detail: which of them are logged.
        executor_id: who speaks.
    """

    def __init__(self, detail: EventDetail, executor_id: str) -> None:
        self._detail = detail
        self._executor_id = executor_id

    def of(self, jobs: Iterable[Job]) -> list[Event]:
        """Of jobs that have ended."""
        if self._detail is EventDetail.OFF:
            return []
        events: list[Event] = []
        executor_id = self._executor_id
        full = self._detail is EventDetail.FULL
        for job in jobs:
            if job.status is None:  # never decoded: there is no task to speak of
                continue
            task_id, type_, attempt = job.task_id, job.type, job.attempt
            source, at_us, error = job.source, job.finished_at_us, job.error
            if full:
                if not job.announced:
                    events.append(Event(task_id, type_, _RECEIVED, attempt, job.received_at_us, executor_id, source))
                name = _EXECUTED if job.started_at_us is not None else _ERROR
                events.append(Event(task_id, type_, name, attempt, at_us, executor_id, source, error))
                if job.letter is not None:
                    events.append(Event(task_id, type_, _DEAD_LETTERED, attempt, at_us, executor_id, source, error))
            if job.events and job.status is Status.OK:
                events += [event for event in job.events if full or "." in event.name]
            ended = _ENDED[job.status]
            events.append(Event(task_id, type_, _SENT, attempt, at_us, executor_id, source, error, ended))
        return events

    def announcing(self, jobs: Iterable[Job]) -> list[Event]:
        """Of jobs that still run: that they were received."""
        return [
            Event(job.task_id, job.type, _RECEIVED, job.attempt, job.received_at_us, self._executor_id, job.source)
            for job in jobs
        ]
