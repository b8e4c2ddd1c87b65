"""What jobs leave behind, encoded: ready to be staged."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from kantoku_kafka.engine.reply import drop_reply, reply_message
from kantoku_kafka.engine.steps import Note, Steps
from kantoku_kafka.job import Job, Message
from kantoku_kafka.model import ErrorInfo, Status, utf8_safe
from kantoku_kafka.protocols import Events, Outputs

__all__ = ["Prepared", "Preparer"]

_log = logging.getLogger(__name__)
_UNSERIALISABLE = "unserialisable_effects"
_MAX_MESSAGE = 1_000


@dataclass(slots=True)
class Prepared:
    """What so many jobs leave behind."""

    jobs: int = 0
    results: list[Any] = field(default_factory=list)
    effects: list[Message] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    marks: list[Message] = field(default_factory=list)

    def __iadd__(self, other: Prepared) -> Self:
        self.jobs += other.jobs
        self.results += other.results
        self.effects += other.effects
        self.events += other.events
        self.marks += other.marks
        return self

    @property
    def records(self) -> int:
        """How many these are."""
        return len(self.results) + len(self.effects) + len(self.events) + len(self.marks)


class Preparer:
    """Safe in any thread; the jobs are the caller's.

    Parameters:
        outputs, events: encode results and events.
        steps: which events there are.
        executor_id: who writes.
    """

    def __init__(self, outputs: Outputs, events: Events, steps: Steps, executor_id: str) -> None:
        self._outputs = outputs
        self._events = events
        self._steps = steps
        self._executor_id = executor_id

    def of(self, jobs: Sequence[Job]) -> Prepared:
        """What these leave behind that have ended. Of what cannot be encoded its job fails; its neighbours do not."""
        try:
            return Prepared(
                len(jobs),
                list(self._outputs.prepare([job.result(self._executor_id) for job in jobs if job.status is not None])),
                [
                    message
                    for job in jobs
                    if job.effects or job.letter or job.move or job.reply
                    for message in self._messages(job)
                ],
                list(self._events.prepare(self._steps.of(jobs))),
                [mark for job in jobs if job.move for mark in job.move.marks],
            )
        except Exception as error:
            if len(jobs) > 1:
                whole = Prepared()
                for job in jobs:
                    whole += self.of([job])
                return whole
            (job,) = jobs
            if job.has_failed and job.reply is not None:
                drop_reply(job, error)
            elif job.status is None or (job.error is not None and job.error.type == _UNSERIALISABLE):
                raise
            else:
                _fail(job, error)
            return self.of(jobs)

    def events_of_running(self, received: Iterable[Job], notes: Iterable[Note]) -> Sequence[Any]:
        """The events of jobs that still run."""
        return self._events.prepare(self._steps.of_running(received, notes))

    def _messages(self, job: Job) -> Iterator[Message]:
        """The records that go out besides result and events."""
        yield from job.messages()
        if job.reply is not None and job.status is not None:
            yield reply_message(job, job.reply, self._executor_id)


def _fail(job: Job, error: Exception) -> None:
    action = {"action": _UNSERIALISABLE}
    _log.warning("task %s staged what cannot be encoded", job.task_id, exc_info=error, extra=action)
    text = utf8_safe(f"What the task staged cannot be encoded: {type(error).__name__}: {error}")
    job.fail(Status.FAILED, ErrorInfo(_UNSERIALISABLE, text[:_MAX_MESSAGE]))
