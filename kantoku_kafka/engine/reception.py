"""From records to jobs that wait for their start; of what cannot wait, what becomes of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from kantoku_kafka.engine.deadletter import dead_letter
from kantoku_kafka.engine.intake import Intake
from kantoku_kafka.engine.judge import Judge
from kantoku_kafka.engine.pools import Pools
from kantoku_kafka.errors import EnvelopeError, SignatureError
from kantoku_kafka.job import Job, Move
from kantoku_kafka.meter import Meters
from kantoku_kafka.model import ErrorInfo, EventName, Status
from kantoku_kafka.names import is_task_type
from kantoku_kafka.protocols import Codec, TaskReader

if TYPE_CHECKING:
    from kantoku_kafka.signing.guard import Guard

__all__ = ["Reception"]

_log = logging.getLogger(__name__)


class Reception:
    """The loop thread owns it.

    Parameters:
        intake: has admitted the records.
        codec: reads them.
        judge: says which tasks may wait.
        pools: where they wait.
        dead_letters: topic of what nobody can run.
        end: called with a job that has ended here.
        readers: by topic, of those whose records are not as the codec has them.
        guard: says whether a task was signed, None: it need not be.
        meters: who is told of what waits.
    """

    def __init__(
        self,
        intake: Intake,
        codec: Codec,
        judge: Judge,
        pools: Pools,
        dead_letters: str,
        end: Callable[[Job], None],
        readers: Mapping[str, TaskReader],
        guard: Guard | None,
        meters: Meters,
    ) -> None:
        self._intake = intake
        self._codec = codec
        self._judge = judge
        self._pools = pools
        self._dead_letters = dead_letters
        self._end = end
        self._readers = readers
        self._guard = guard
        self._meters = meters

    def receive(self, jobs: Iterable[Job]) -> None:
        """Decode what was admitted, and let it wait for its start."""
        peek, pools, watched = self._codec.peek_task, self._pools, self._judge.watched
        done_before, guard = self._intake.done_before, self._guard
        waiting: list[Job] = []
        for job in self._as_ours(jobs) if self._readers else jobs:
            if done_before and job in done_before:
                self._remember(job)
                continue
            try:
                job.task_id, job.type, job.data, job.attempt, job.envelope = peek(job.value)
                if guard is not None:
                    guard.check(job)
            except SignatureError as error:
                self._distrust(job, error)
                continue
            except EnvelopeError as error:
                self._bury(job, ErrorInfo(error.reason, str(error)))
                continue
            if job.type not in pools:
                self._reject(job)
            elif (job.envelope is None and job.type not in watched) or self._may_wait(job):
                waiting.append(job)
        if waiting:
            if self._meters:
                self._meters.tell(lambda meter, loop: meter.received(loop, waiting))
            pools.add(waiting)
            self._forget(waiting)

    def _as_ours(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """The jobs, their records made ours; those that no task can be read from, or none for us, have ended."""
        for job in jobs:
            reader = self._readers.get(job.partition.topic)
            if reader is not None and job not in self._intake.done_before:
                try:
                    if not reader(job):
                        self._end(job)
                        continue
                except EnvelopeError as error:
                    self._bury(job, ErrorInfo(error.reason, str(error)))
                    continue
            yield job

    def _forget(self, received: Iterable[Job]) -> None:
        """Ids whose time is over, where there are any; else a successor would read from there again, for ever."""
        windows = self._intake.windows
        if not any(window.memory for window in windows.values()):
            return
        now_us = time.time_ns() // 1000
        for partition, job in {job.partition: job for job in received}.items():
            self._judge.pass_by(job, windows[partition].memory, now_us)

    def _remember(self, job: Job) -> None:
        """What was done before comes again where ids of it have to be known."""
        self._intake.done_before.discard(job)
        reader = self._readers.get(job.partition.topic)
        with suppress(EnvelopeError):  # its dead letter was written then
            if reader is not None and not reader(job):
                return
            job.read(self._codec.peek_task)
            if self._guard is not None:
                self._guard.check_past(job)
            memory, now_us = self._intake.windows[job.partition].memory, time.time_ns() // 1000
            self._judge.is_duplicate(job, memory, now_us)
            self._judge.pass_by(job, memory, now_us)

    def _may_wait(self, job: Job) -> bool:
        """Whether a task with options of its own waits for its start; else it has ended here."""
        try:
            if self._judge.enter(job, self._intake.windows[job.partition].memory, time.time_ns() // 1000):
                return True
        except EnvelopeError as error:
            self._refuse(job, ErrorInfo(error.reason, str(error)))
            return False
        self._end(job)
        return False

    def _reject(self, job: Job) -> None:
        """A task of a type that this app does not have: REJECTED, and a dead letter to look at."""
        if not is_task_type(job.type):
            shown = f"{job.type[:40]!r}, {len(job.type)} characters"
            self._bury(job, ErrorInfo("EnvelopeError", f"The task has a type that none can have: {shown}."))
            return
        self._judge.reject(job)
        text = f"No function is registered for task type {job.type!r}; it came by {job.partition}."
        self._refuse(job, ErrorInfo("unknown_task_type", text))

    def _distrust(self, job: Job, error: SignatureError) -> None:
        """What the record says is not believed, not even its id: no result of it. A task that is only too late is known
        to be one, and has an event."""
        if error.reason == SignatureError.EXPIRED:
            job.received_at_us = time.time_ns() // 1000
            job.carry_on(Move((), EventName.DEAD_LETTERED, {"reason": error.reason}))
        self._bury(job, ErrorInfo(error.reason, str(error)))

    def _refuse(self, job: Job, error: ErrorInfo) -> None:
        job.received_at_us = time.time_ns() // 1000
        job.fail(Status.REJECTED, error)
        self._bury(job, error)

    def _bury(self, job: Job, error: ErrorInfo) -> None:
        """Nobody can run what the record holds: a dead letter, and its offset is done."""
        where = f"{job.partition} offset {job.offset}"
        _log.warning("dead letter of %s: %s", where, error.message, extra={"action": "dead_letter", "source": where})
        job.letter = dead_letter(self._dead_letters, job, error)
        self._end(job)
