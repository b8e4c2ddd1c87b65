"""The children of a process pool, and the jobs that wait for one: what its I/O thread does."""

from __future__ import annotations

import logging
import os
import selectors
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from kantoku_kafka.backoff import Backoff
from kantoku_kafka.errors import UsageError
from kantoku_kafka.job import Job
from kantoku_kafka.model import ErrorInfo, Status
from kantoku_kafka.pools.frames import FrameError, Kind, frame, take_answer, take_beat
from kantoku_kafka.pools.hello import Hello
from kantoku_kafka.pools.worker import Phase, Worker

__all__ = ["Crew"]

_log = logging.getLogger(__name__)
_ENDING_SECONDS = 0.01
_RETIRING_SECONDS = 10.0  # for the hooks of a child that has run its last task
_PROBE_SECONDS = 0.5
_PAUSE_SECONDS = (0.1, 10.0)
_UNKILLABLE_SECONDS = 5.0
_MAX_SENTENCE_BYTES = 4_000
_STARTING_AT_ONCE = os.cpu_count() or 1


class Crew:
    """So many children at most, each with one job at a time, and beside them at most as many that retire.

    Belongs to the I/O thread, and never blocks it.

    Parameters:
        selector: watches the children's sockets, each with its :class:`Worker` as data.
        deliver: takes every job that ended, or that will not be run.
        hello, concurrency, ready_seconds, grace_seconds: as of the pool.

    Attributes:
        first: done when the first child is ready; UsageError if it never will be.
        workers: the children that are not reaped yet.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        deliver: Callable[[Job], None],
        hello: Hello,
        concurrency: int,
        ready_seconds: float,
        grace_seconds: float,
    ) -> None:
        self.first: Future[None] = Future()
        self.workers: set[Worker] = set()
        self._selector = selector
        self._deliver = deliver
        self._given = hello
        self._reference = hello.reference
        self._hello = frame(Kind.HELLO, hello.encode())
        self._concurrency = concurrency
        self._ready_seconds = ready_seconds
        self._grace_seconds = grace_seconds
        self._waiting: deque[Job] = deque()
        self._idle: list[Worker] = []
        self._pauses = Backoff(*_PAUSE_SECONDS)
        self._start_at = self._probe_at = 0.0
        self._give_up_at: float | None = None  # set once it closes

    # --- jobs

    def add(self, jobs: Sequence[Job]) -> None:
        """Jobs to run, in this order."""
        self._waiting += jobs

    def hand_out(self) -> None:
        """Give every idle child a job, and start children for those that are left."""
        while self._waiting and self._idle:
            worker = self._idle.pop()
            if worker.has_exited():
                worker.end(time.monotonic())
            else:
                self._run(worker, self._waiting.popleft())
            self._listen(worker)
        # The place of a child that retires is free at once: its hooks keep no job waiting. But it may have much memory:
        # there are no more of them than of the others, and where hooks take longer than tasks, jobs do wait.
        retiring = sum(worker.retires for worker in self.workers)
        room = self._concurrency - len(self.workers) + min(retiring, self._concurrency)
        if self._waiting and room > 0 and self._give_up_at is None and time.monotonic() >= self._start_at:
            starting = sum(worker.phase is Phase.STARTING for worker in self.workers)
            for _ in range(min(len(self._waiting) - starting, _STARTING_AT_ONCE - starting, room)):
                self.start_worker()

    def cancel(self, jobs: set[Job]) -> None:
        """What waits goes back at once, what runs when its child has ended."""
        for job in [job for job in self._waiting if job in jobs]:
            self._waiting.remove(job)
            self._deliver(job)
        for worker in self.workers:
            if worker.job in jobs and worker.phase is not Phase.ENDING:
                worker.stop(time.monotonic() + self._grace_seconds)
                self._listen(worker)

    def close(self, close_by: float) -> None:
        """Deliver what waits, and end all children."""
        self._give_up_at = close_by + _UNKILLABLE_SECONDS
        while self._waiting:
            self._deliver(self._waiting.popleft())
        for worker in self.workers:
            if worker.phase is Phase.ENDING:
                worker.end(close_by)
            elif worker in self._idle:
                worker.retire(close_by)
            else:
                worker.stop(min(close_by, time.monotonic() + self._grace_seconds))
            self._listen(worker)
        self._idle.clear()

    @property
    def closed(self) -> bool:
        """All children are reaped, or cannot be killed."""
        return self._give_up_at is not None and (not self.workers or time.monotonic() > self._give_up_at)

    def abandon(self) -> None:
        """Kill every child. What ran comes back without an outcome, what waits stays for a successor."""
        for worker in self.workers:
            if worker.socket in self._selector.get_map():
                self._selector.unregister(worker.socket)
            worker.signal_group(signal.SIGKILL)  # not waited for: it may be that it cannot be killed
            if worker.job is not None:
                self._deliver(worker.job)
        self.workers.clear()
        if not self.first.done():
            self.first.set_exception(UsageError("The process pool was closed before it was ready."))

    def successor(self) -> Crew:
        """A crew of new children for the jobs that wait."""
        crew = Crew(
            self._selector, self._deliver, self._given, self._concurrency, self._ready_seconds, self._grace_seconds
        )
        crew.first.set_result(None)
        crew._waiting, crew._give_up_at = self._waiting, self._give_up_at
        return crew

    def _run(self, worker: Worker, job: Job) -> None:
        try:
            if job.cancelled is None:
                worker.run(job)
                return
        except FrameError as error:
            job.fail(Status.FAILED, ErrorInfo("task_too_large", f"The task does not reach its process: {error}"))
        self._idle.append(worker)
        self._deliver(job)

    # --- sockets and time

    def attend(self, worker: Worker, events: int) -> None:
        """The socket of a child is ready."""
        if events & selectors.EVENT_WRITE:
            worker.flush()
        if events & selectors.EVENT_READ:
            try:
                for kind, body in worker.receive():
                    if worker.phase is not Phase.ENDING:
                        self._hear(worker, kind, body)
            except FrameError as error:
                worker.kill(f"said what it cannot have meant ({error})")
        self._listen(worker)

    def look_after(self) -> None:
        """Bury children that have ended, kill those whose time is over."""
        now = time.monotonic()
        probing = now >= self._probe_at
        if probing:  # a process that a task forked may hold the socket open: no end of the stream then
            self._probe_at = now + _PROBE_SECONDS
        for worker in list(self.workers):
            if (probing or worker.phase is Phase.ENDING) and worker.has_exited():
                if worker.phase is not Phase.ENDING:
                    self.attend(worker, selectors.EVENT_READ)  # what it said before
                self._bury(worker)
            elif worker.kill_at is not None and now >= worker.kill_at:
                late = worker.phase is Phase.STARTING
                if worker.retires and worker.was_ready:
                    text = "process %d is killed: it did not end in time, perhaps for a hook of on_shutdown"
                    _log.warning(text, worker.pid, extra={"action": "child_killed"})
                worker.kill(f"was not ready within {self._ready_seconds:g} s" if late else "closed the connection")
                self._listen(worker)

    def wait_seconds(self) -> float | None:
        """How long nothing needs to be looked after; None: until something happens."""
        now = time.monotonic()
        waits = [worker.kill_at - now for worker in self.workers if worker.kill_at is not None]
        if any(worker.phase is Phase.ENDING for worker in self.workers):
            waits.append(_ENDING_SECONDS)
        if len(self._idle) < len(self.workers):
            waits.append(_PROBE_SECONDS)
        if self._waiting and self._start_at > now:
            waits.append(self._start_at - now)
        return max(0.0, min(waits)) if waits else None

    def _hear(self, worker: Worker, kind: Kind, body: bytes) -> None:
        job = worker.job
        if kind is Kind.ANSWER and job is not None:
            last = take_answer(body, worker.number, job)
            worker.job = None
            if last:
                worker.stopped = True
                worker.retire(time.monotonic() + _RETIRING_SECONDS)
            else:
                self._idle.append(worker)
            self._deliver(job)
        elif kind is Kind.BEAT:
            if job is not None:  # else it has answered: a thread of the task was late
                take_beat(body, worker.number, job)
        elif kind is Kind.READY and worker.phase is Phase.STARTING:
            worker.ready()
            self._idle.append(worker)
            self._pauses.reset()
            if not self.first.done():
                self.first.set_result(None)
        elif kind is Kind.FAILED and worker.phase is Phase.STARTING:
            self._start_failed(body[:_MAX_SENTENCE_BYTES].decode(errors="replace"))
            worker.stopped = True
            worker.retire(time.monotonic() + self._grace_seconds)
        else:
            raise FrameError(f"{kind.name} was not due")

    def _listen(self, worker: Worker) -> None:
        """Ask the selector for what is of interest now; nothing of a child that ends."""
        known = self._selector.get_map().get(worker.socket)
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.wants_to_write else 0)
        if worker.phase is Phase.ENDING:
            if worker in self._idle:
                self._idle.remove(worker)
            if known is not None:
                self._selector.unregister(worker.socket)
        elif known is None:
            self._selector.register(worker.socket, events, worker)
        elif known.events != events:
            self._selector.modify(worker.socket, events, worker)

    # --- the life of a child

    def start_worker(self) -> None:
        """One child more."""
        try:
            worker = Worker(self._hello, time.monotonic() + self._ready_seconds)
        except OSError as error:
            self._start_failed(f"No child process can be started: {error.strerror}.")
            return
        self.workers.add(worker)
        self._listen(worker)

    def _start_failed(self, reason: str) -> None:
        """Of the first child it is an error of use; later ones are tried again, with growing pauses."""
        if not self.first.done():
            self.first.set_exception(UsageError(reason))
            return
        pause_seconds = self._pauses.next_seconds()
        self._start_at = time.monotonic() + pause_seconds
        _log.error("%s Trying again in %.1f s.", reason, pause_seconds, extra={"action": "child_failed"})

    def _bury(self, worker: Worker) -> None:
        """A child has ended: so has its job, unless the job never reached it."""
        worker.end(time.monotonic())
        self._listen(worker)
        self.workers.discard(worker)
        how = worker.reap()
        job = worker.job
        if job is None:
            if not worker.was_ready and not worker.stopped:
                self._start_failed(f"The process that imports {self._reference} {how}; its stderr may say why.")
            elif not worker.stopped and self._give_up_at is None:
                _log.warning("an idle process %s", how, extra={"action": "child_ended"})
        elif worker.stopped:
            self._deliver(job)
        elif worker.job_is_untouched and self._give_up_at is None:
            self._waiting.appendleft(job)
        else:
            _log.warning(
                "task %s: its process %s", job.task_id, how, extra={"action": "crashed", "task_id": job.task_id}
            )
            job.fail(Status.CRASHED, ErrorInfo("process_crashed", f"The process that ran the task {how}."))
            self._deliver(job)
