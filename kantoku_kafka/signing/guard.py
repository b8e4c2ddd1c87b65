"""What a process that executes tasks, or fires timers, asks of each of them, if its app has a seal."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kantoku_kafka.errors import SignatureError
from kantoku_kafka.model import TaskEnvelope, now_us

if TYPE_CHECKING:
    from kantoku_kafka.app import Kantoku
    from kantoku_kafka.job import Job
    from kantoku_kafka.model import Timer
    from kantoku_kafka.signing.seal import Seal

__all__ = ["Guard"]


class Guard:
    """One thread uses it.

    Parameters:
        kantoku: the app; :meth:`of` makes none if it has no seal.
        clock: the time in microseconds; None: it does not matter.
    """

    def __init__(self, kantoku: Kantoku, seal: Seal, clock: Callable[[], int | None]) -> None:
        self._namespace = kantoku.namespace
        self._codec = kantoku.codec
        self._inputs = {name: task.inputs(kantoku.topics).keys() for name, task in kantoku.task_types.items()}
        self._seal = seal
        self._clock = clock

    @classmethod
    def of(cls, kantoku: Kantoku, clock: Callable[[], int | None] = now_us) -> Guard | None:
        """That of an app; None without a seal."""
        return None if kantoku.seal is None else cls(kantoku, kantoku.seal, clock)

    def check(self, job: Job) -> None:
        """Whether a task that has come may be executed. Raises SignatureError.

        One of an unsigned topic is signed here: so it may wait, be tried again, be redriven.
        """
        self._check_topic(job.task_id, job.type, job.partition.topic)
        if job.partition.topic in self._seal.unsigned_topics:
            headers = tuple(job.raw_headers or ())
            job.raw_headers = self._seal.sign(self._namespace, self._task_of(job), job.key, headers)
        else:
            self._check(job, self._clock())

    def check_past(self, job: Job) -> None:
        """Whether a task that was done before may have been executed. Raises SignatureError."""
        self._check_topic(job.task_id, job.type, job.partition.topic)
        if job.partition.topic not in self._seal.unsigned_topics:
            self._check(job, None)

    def _check(self, job: Job, at_us: int | None) -> None:
        self._seal.check(self._namespace, self._task_of(job), job.key, tuple(job.raw_headers or ()), at_us)

    def check_timer(self, timer: Timer) -> None:
        """Whether the task of a timer may be put onto an input. Raises SignatureError, EnvelopeError."""
        task = self._codec.decode_task(timer.task)
        if task.id != timer.task_id:
            raise SignatureError(f"The timer of task {timer.task_id!r} holds another one, {task.id!r}.")
        self._check_topic(task.id, task.type, timer.topic)
        self._seal.check(self._namespace, task, timer.key, timer.headers)

    def _check_topic(self, task_id: str, task_type: str, topic: str) -> None:
        if topic not in self._inputs.get(task_type, (topic,)):
            raise SignatureError(f"Task {task_id!r} is of type {task_type!r}, of which {topic!r} is no input.")

    def _task_of(self, job: Job) -> TaskEnvelope:
        return job.envelope or self._codec.decode_task(job.value)
