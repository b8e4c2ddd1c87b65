"""The executor's loop: poll, decode, schedule, collect, publish. The loop thread owns all of its state.

Two more kinds of thread exist: the pools' workers, which only hand ended jobs back through a queue, and the
publisher, which makes one checkpoint at a time durable while the loop goes on. Rebalances wait for the publisher.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import NamedTuple

from kantoku_kafka.engine.cancel import CANCELLED_REASON, Cancellations, cancelled_error
from kantoku_kafka.engine.checkpoint import Checkpoint
from kantoku_kafka.engine.deadletter import dead_letter
from kantoku_kafka.engine.failures import FailureLog
from kantoku_kafka.engine.intake import Intake
from kantoku_kafka.engine.judge import TIMED_OUT_REASON, Judge
from kantoku_kafka.engine.publisher import Publisher
from kantoku_kafka.engine.rules import Rules
from kantoku_kafka.engine.scheduler import Scheduler
from kantoku_kafka.errors import EnvelopeError, UsageError
from kantoku_kafka.job import Job, Offset, Partition
from kantoku_kafka.model import Command, ErrorInfo, Status, TaskEnvelope
from kantoku_kafka.names import Topics, is_task_type
from kantoku_kafka.protocols import Codec, Executor, Inputs, TableInputs
from kantoku_kafka.settings import ExecutorSettings

__all__ = ["Loop", "PoolBinding", "Rate"]

_log = logging.getLogger(__name__)
_CHUNK = 64
_SLICE_SECONDS = 0.1
_IDLE_WAIT_SECONDS = 0.1
_BUSY_WAIT_SECONDS = (0.001, 0.005)
_POLL_EVERY_SECONDS = _LOOK_SECONDS = 0.1
_NOTE_SECONDS = 1.0


@dataclass(slots=True)
class PoolBinding:
    """A pool, and the scheduler of the task types that run in it."""

    executor: Executor
    scheduler: Scheduler
    capacity: int


class Rate(NamedTuple):
    """How many of a task type may start in the whole group, and among how many partitions that is divided."""

    per_second: float
    partitions: int


class Loop:
    """Runs tasks until it is told to stop. :meth:`stop` may be called from any thread or signal handler.

    Parameters:
        inputs: where tasks come from.
        checkpoint: where everything goes that has ended.
        codec: reads the envelopes.
        pools: by task type; types that share a pool share the binding.
        rules: by task type.
        rates: of the task types that have one.
        inputs_of: by task type, the topics that its tasks come from.
        topics: where tasks go besides the results.
        settings: bounds and timeouts.
    """

    def __init__(
        self,
        *,
        inputs: Inputs,
        checkpoint: Checkpoint,
        codec: Codec,
        pools: Mapping[str, PoolBinding],
        rules: Mapping[str, Rules],
        inputs_of: Mapping[str, Iterable[str]],
        topics: Topics,
        rates: Mapping[str, Rate] | None = None,
        settings: ExecutorSettings,
    ) -> None:
        self._inputs = inputs
        self._checkpoint = checkpoint
        self._codec = codec
        self._pools = dict(pools)
        self._bindings = list({id(binding): binding for binding in pools.values()}.values())
        self._inputs_of = {name: frozenset(found) for name, found in inputs_of.items()}
        self._topics = topics
        self._judge = Judge(topics, codec, rules)
        self._settings = settings
        self._rates = dict(rates or {})
        self._burst_ends: dict[Partition, int] = {}
        self._startable_left = settings.max_tasks or None
        if settings.burst and not isinstance(inputs, TableInputs):
            raise UsageError("--burst needs inputs that tell where they end, as Kafka's do.")
        self._intake = Intake(settings.max_waiting, settings.max_waiting_bytes)
        self._windows = self._intake.windows
        self._paused: set[Partition] = set()
        self._running: set[Job] = set()
        self._ended: SimpleQueue[Job | None] = SimpleQueue()  # None: the publisher is done
        self._publisher = Publisher(checkpoint, lambda: self._ended.put(None))
        self._failures = FailureLog()
        self._commands: SimpleQueue[Sequence[Command]] = SimpleQueue()
        self._cancellations = Cancellations()
        self._fetching = False
        self._busy_wait_seconds = _BUSY_WAIT_SECONDS[0]
        self._poll_by = self._look_at = self._note_at = 0.0
        self._stopping = self._quiet = self._has_left = False
        self._draining = True  # a partition that is revoked is drained first

    def stop(self) -> None:
        """Ask the loop to end: no new tasks, a bounded drain, a last checkpoint."""
        self._stopping = True

    def quiet(self) -> None:
        """Take no new tasks; leave the inputs once what runs has ended, however long that takes. From any thread."""
        self._quiet = True
        self._ended.put(None)

    def command(self, commands: Sequence[Command]) -> None:
        """Do as these say, soon. May be called from any thread."""
        self._commands.put(commands)
        self._ended.put(None)

    @property
    def stopping(self) -> bool:
        """It takes no new tasks."""
        return self._stopping or self._quiet

    def running_by_type(self) -> dict[str, int]:
        """How many tasks of each type run. May be called from any thread."""
        return {name: count for b in self._bindings for name, count in b.scheduler.running_by_type().items()}

    def run(self) -> None:
        """Work until :meth:`stop`, then drain, checkpoint and close. Raises what the parts cannot recover from."""
        try:
            for binding in self._bindings:
                binding.executor.start(self._ended.put)
            self._inputs.subscribe(sorted(frozenset().union(*self._inputs_of.values())), self)
            while not self._stopping:
                if self._quiet:
                    self._rest()
                else:
                    self._turn()
            self._wind_down()
            self._inputs.close()
        finally:
            self._publisher.close()
            self._let_go()
            self._cancel(self._running, "stopping")
            for binding in self._bindings:
                binding.executor.close(1.0)

    def _wind_down(self) -> None:
        """Let running jobs end for a bounded time and publish them; what arrives meanwhile is for others.

        It polls all the while: the group must not take us for dead, and what is refused after a rebalance of others
        is accepted under the membership that a poll brings.
        """
        if self._running:
            seconds = self._settings.drain_seconds
            _log.info("draining: %d tasks have %g s to end", len(self._running), seconds, extra={"action": "drain"})
        deadline = time.monotonic() + self._settings.drain_seconds
        while self._running and time.monotonic() < deadline:
            self._attend()
        self._draining = False
        if self._running:
            _log.warning("%d tasks did not end and will run again", len(self._running), extra={"action": "abandoned"})
        self._cancel(self._running, "stopping")
        deadline = time.monotonic() + self._settings.timeout_seconds
        while (self._publisher.busy or self._checkpoint.due) and time.monotonic() < deadline:
            self._attend()

    def _rest(self) -> None:
        """One round of a quiet executor."""
        if self._has_left:
            self._await_ended(_IDLE_WAIT_SECONDS)
        elif self._running or self._publisher.busy or self._checkpoint.due:
            self._attend()
        else:
            _log.info("quiet: nothing runs any more, the inputs are for others", extra={"action": "quiet"})
            self._inputs.close()
            self._has_left = True

    def _attend(self) -> None:
        """One round without intake."""
        self._obey()
        if not self._has_left:
            self._inputs.poll(1, 0.0)
        self._await_ended(_BUSY_WAIT_SECONDS[1])
        self._collect()
        self._end_overdue()
        self._publisher.publish(self._windows)

    def _let_go(self) -> None:
        """Whatever has not been published by now runs again: after a failure, leaving the inputs publishes nothing."""
        self._draining = False
        self._checkpoint.forget(self._windows)
        self._windows.clear()

    def _turn(self) -> None:
        """One round: take in what there is, start what may start, publish what has ended."""
        wait_seconds = self._wait_seconds()
        self._obey()
        jobs = self._inputs.poll(self._settings.max_batch, wait_seconds) if self._hungry() else []
        self._fetching = bool(jobs)
        if jobs:
            self._busy_wait_seconds = _BUSY_WAIT_SECONDS[0]
            self._queue(self._intake.admit(jobs))
        self._publisher.publish(self._windows)
        self._start()
        self._collect()
        self._publisher.publish(self._windows)
        self._press_back()
        self._end_overdue()
        if self._startable_left == 0 or (self._settings.burst and self._is_drained()):
            self.stop()
        while self._publisher.waiting_for_broker and self._checkpoint.prepare(_CHUNK):
            pass

    def _hungry(self) -> bool:
        """Whether to poll. What nobody can start yet is better off in the client's buffer, which a pause would
        empty; but rebalances are served by poll, so it is never put off for long."""
        now = time.monotonic()
        waiting = sum(p.waiting for p in self._windows if p not in self._paused)
        if waiting >= self._settings.max_batch and now < self._poll_by:
            return False
        self._poll_by = now + _POLL_EVERY_SECONDS
        return True

    # --- intake

    def _queue(self, jobs: Iterable[Job]) -> None:
        """Decode what was admitted, and let it wait for its start."""
        peek, pools, watched = self._codec.peek_task, self._pools, self._judge.watched
        done_before = self._intake.done_before
        queued: dict[int, list[Job]] = {}
        for job in jobs:
            if done_before and job in done_before:
                self._remember(job)
                continue
            try:
                job.task_id, job.type, job.data, job.attempt, job.envelope = peek(job.value)
            except EnvelopeError as error:
                self._bury(job, ErrorInfo(type(error).__name__, str(error)))
                continue
            binding = pools.get(job.type)
            if binding is None:
                self._reject(job)
                continue
            if (job.envelope is not None or job.type in watched) and not self._may_wait(job):
                continue
            partition = job.partition
            partition.waiting += 1
            partition.waiting_bytes += len(job.value)
            queued.setdefault(id(binding), []).append(job)
        for binding in self._bindings:
            if id(binding) in queued:
                binding.scheduler.add(queued[id(binding)])

    def _remember(self, job: Job) -> None:
        """What was done before comes again where ids of it have to be known."""
        self._intake.done_before.discard(job)
        with suppress(EnvelopeError):  # its dead letter was written then
            job.read(self._codec.peek_task)
            self._judge.is_duplicate(job, self._windows[job.partition].memory, time.time_ns() // 1000)

    def _may_wait(self, job: Job) -> bool:
        """Whether a task with options of its own waits for its start; else it has ended here."""
        try:
            if self._judge.enter(job, self._windows[job.partition].memory, time.time_ns() // 1000):
                return True
        except EnvelopeError as error:
            self._refuse(job, ErrorInfo(type(error).__name__, str(error)))
            return False
        self._end(job)
        return False

    def _bury(self, job: Job, error: ErrorInfo) -> None:
        """No task can be read from the record: a dead letter, and its offset is done."""
        where = f"{job.partition} offset {job.offset}"
        _log.warning("dead letter of %s: %s", where, error.message, extra={"action": "dead_letter", "source": where})
        job.letter = dead_letter(self._topics.dlq, job, error)
        self._end(job)

    def _reject(self, job: Job) -> None:
        """A task of a type that this app does not have: REJECTED, and a dead letter to look at."""
        if not is_task_type(job.type):
            shown = f"{job.type[:40]!r}, {len(job.type)} characters"
            self._bury(job, ErrorInfo("EnvelopeError", f"The task has a type that none can have: {shown}."))
            return
        error = ErrorInfo(
            "unknown_task_type",
            f"No function is registered for task type {job.type!r}; it came by {job.partition}.",
        )
        self._refuse(job, error)

    def _refuse(self, job: Job, error: ErrorInfo) -> None:
        job.received_at_us = time.time_ns() // 1000
        job.fail(Status.REJECTED, error)
        self._bury(job, error)

    # --- execution

    def _start(self) -> None:
        """Hand over what may start, in chunks, for a slice of time: a pool may run them in this thread."""
        deadline = time.monotonic() + _SLICE_SECONDS
        for binding in self._bindings:
            scheduler = binding.scheduler
            while scheduler.waiting and not self._batch_full():
                wanted = min(_CHUNK, binding.capacity - scheduler.running)
                if self._startable_left is not None:
                    wanted = min(wanted, self._startable_left)
                jobs = scheduler.take(wanted, time.monotonic()) if wanted > 0 else []
                if not jobs:
                    break
                if self._startable_left is not None:
                    self._startable_left -= len(jobs)
                now_us = time.time_ns() // 1000
                for job in jobs:
                    job.received_at_us = now_us
                    partition = job.partition
                    partition.waiting -= 1
                    partition.waiting_bytes -= len(job.value)
                if self._cancellations or any(job.envelope is not None for job in jobs):
                    jobs = self._startable(jobs, now_us)
                self._running.update(jobs)
                self._checkpoint.start(jobs)
                binding.executor.submit(jobs)
                if not self._ended.empty():
                    self._collect()
                    if time.monotonic() > deadline:
                        return

    def _startable(self, jobs: list[Job], now_us: int) -> list[Job]:
        """Those that may start now; the others have ended."""
        started = []
        for job in jobs:
            if not self._is_cancelled(job) and (job.envelope is None or self._judge.start(job, now_us)):
                started.append(job)
            else:
                self._pools[job.type].scheduler.done(job)
                self._failures.note(job)
                self._end(job)
        return started

    # --- cancellation

    def _obey(self) -> None:
        """What waits and is cancelled ends now; what runs is told to end."""
        if self._commands.empty():
            return
        while not self._commands.empty():
            self._cancellations.add(self._commands.get_nowait())
        for binding in self._bindings:
            for job in binding.scheduler.pull(self._is_cancelled):
                job.partition.waiting -= 1
                job.partition.waiting_bytes -= len(job.value)
                self._end(job)
        running = {job for job in self._running if job.cancelled is None and self._match(job) is not None}
        if running:
            self._cancel(running, CANCELLED_REASON)

    def _is_cancelled(self, job: Job) -> bool:
        """Whether a job that has not started was cancelled: it has ended then."""
        command = self._match(job) if self._cancellations else None
        if command is not None:
            job.received_at_us = time.time_ns() // 1000
            job.fail(Status.CANCELLED, cancelled_error(command))
        return command is not None

    def _match(self, job: Job) -> Command | None:
        def envelope() -> TaskEnvelope:
            return job.envelope or self._codec.decode_task(job.value)

        return self._cancellations.match(job.task_id, job.type, envelope)

    def _batch_full(self, times: int = 1) -> bool:
        """What has ended makes a checkpoint by itself: nothing more is started until it is on its way.

        Dead letters need no start: at twice as much, nothing more is taken in.
        """
        checkpoint, settings = self._checkpoint, self._settings
        return (
            len(checkpoint) >= times * settings.max_batch or checkpoint.size_bytes >= times * settings.max_batch_bytes
        )

    def _collect(self) -> None:
        """Take back what has ended."""
        ended = self._ended
        for _ in range(ended.qsize()):
            job = ended.get_nowait()
            if job is not None:
                self._settle(job)

    def _settle(self, job: Job) -> None:
        """A job came back: its result is due, or another attempt, unless its partition went away meanwhile."""
        self._pools[job.type].scheduler.done(job)
        self._running.discard(job)
        if job.cancelled == TIMED_OUT_REASON:
            job.fail(Status.TIMED_OUT, _TIMED_OUT)
        elif job.cancelled == CANCELLED_REASON:
            job.fail(Status.CANCELLED, cancelled_error(self._match(job)))
        elif job.status is None and job.cancelled is None:
            job.fail(Status.CRASHED, _NO_OUTCOME)
        if job.partition in self._windows and job.status is not None:
            limit = self._checkpoint.max_data_bytes
            if len(job.output) > limit:
                job.fail(Status.FAILED, _too_large(len(job.output), limit))
            if job.error is not None:
                self._failures.note(job)
                self._judge.settle(job)
            self._end(job)

    def _end(self, job: Job) -> None:
        self._windows[job.partition].finish(job.offset)
        self._checkpoint.end(job)

    def _drain(self, jobs: set[Job], seconds: float) -> None:
        """Let running jobs end for a bounded time, and publish what has ended."""
        deadline = time.monotonic() + seconds
        waiting_for = set(jobs)
        while waiting_for and (left := deadline - time.monotonic()) > 0:
            self._await_ended(min(left, _IDLE_WAIT_SECONDS))
            self._collect()
            waiting_for &= self._running
            self._publisher.publish(self._windows)
        self._publisher.publish_rest(self._windows, self._settings.timeout_seconds)

    def _is_drained(self) -> bool:
        """Whether all is done that stood on the inputs when they were assigned."""
        inputs, checkpoint = self._inputs, self._checkpoint
        assert isinstance(inputs, TableInputs), "the constructor has checked it"
        if not self._windows or self._running or checkpoint.due or self._publisher.busy:
            return False
        if any(window.unfinished for window in self._windows.values()):
            return False
        return all(inputs.read_up_to(partition) >= end for partition, end in self._burst_ends.items())

    def _share_rates(self) -> None:
        """Our share of each rate is that of the partitions we hold."""
        for name, rate in self._rates.items():
            held = sum(partition.topic in self._inputs_of[name] for partition in self._windows)
            self._pools[name].scheduler.limit_rate(name, rate.per_second * held / rate.partitions)

    def _end_overdue(self) -> None:
        """Now and then: tell those that have had their time to end, note what others say of themselves."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_SECONDS
        now_us = time.time_ns() // 1000
        if now >= self._note_at:
            self._note_at = now + _NOTE_SECONDS
            self._checkpoint.note([job for job in self._running if job.progress is not None])
        overdue = {job for job in self._running if self._judge.is_over(job, now_us)}
        if overdue:
            self._cancel(overdue, TIMED_OUT_REASON)

    # --- waiting and back-pressure

    def _wait_seconds(self) -> float:
        """How long poll may block. While something is under way, its end ends the wait here, and poll only looks."""
        if not self._publisher.busy:
            if self._checkpoint.due:
                return min(self._publisher.pause_seconds, _BUSY_WAIT_SECONDS[0])
            if not self._running:
                return _IDLE_WAIT_SECONDS
        if self._fetching:
            return 0.0
        wait_seconds = self._busy_wait_seconds
        self._busy_wait_seconds = min(2 * wait_seconds, _BUSY_WAIT_SECONDS[1])
        self._await_ended(wait_seconds)
        return 0.0

    def _await_ended(self, seconds: float) -> None:
        try:
            job = self._ended.get(timeout=seconds)
        except Empty:
            return
        self._busy_wait_seconds = _BUSY_WAIT_SECONDS[0]
        if job is not None:
            self._settle(job)

    def _press_back(self) -> None:
        """Admit parked records whose turn has come; pause and resume partitions."""
        self._queue(self._intake.unpark())
        wanted = set(self._windows) if self._batch_full(2) else self._intake.crowded(self._paused)
        if wanted != self._paused:
            self._inputs.pause(wanted - self._paused)
            self._inputs.resume(self._paused - wanted)
            self._paused = wanted

    # --- rebalances, called from inside poll and close

    def assigned(self, offsets: Sequence[Offset]) -> Sequence[Partition]:
        """Take partitions on, and name us in their metadata."""
        partitions = self._intake.open(offsets)
        for partition in partitions:
            self._checkpoint.claim(partition)
            if self._settings.burst and isinstance(self._inputs, TableInputs):
                self._burst_ends[partition] = self._inputs.end_of(partition)
        self._share_rates()
        return partitions

    def revoked(self, partitions: Sequence[Partition]) -> None:
        """Drain what runs of these, publish it, let go; what still runs then runs again elsewhere."""
        going = set(partitions)
        for partition in going:
            self._drop_waiting(partition)
        running = {job for job in self._running if job.partition in going}
        self._drain(running, self._settings.revoke_drain_seconds if self._draining else 0.0)
        self.lost(partitions)

    def lost(self, partitions: Sequence[Partition]) -> None:
        """Forget these: nothing of them may be published any more."""
        self._publisher.conclude()
        going = set(partitions)
        for partition in going:
            self._drop_waiting(partition)
            self._intake.close(partition)
            self._burst_ends.pop(partition, None)
        self._share_rates()
        self._checkpoint.forget(going)
        self._paused -= going
        self._cancel({job for job in self._running if job.partition in going}, "revoked")

    def _cancel(self, jobs: set[Job], reason: str) -> None:
        for binding in self._bindings:
            binding.executor.cancel([job for job in jobs if self._pools[job.type] is binding], reason)

    def _drop_waiting(self, partition: Partition) -> None:
        for binding in self._bindings:
            binding.scheduler.drop(partition)


_NO_OUTCOME = ErrorInfo("no_outcome", "The pool gave the task back without saying what became of it.")
_TIMED_OUT = ErrorInfo("timed_out", "The attempt had not ended when its time was over.")


def _too_large(size_bytes: int, limit_bytes: int) -> ErrorInfo:
    return ErrorInfo(
        "result_too_large",
        f"The result has {size_bytes} bytes; the results topic takes {limit_bytes}. "
        "Return a reference to the data, or raise max.message.bytes of the topic.",
    )
