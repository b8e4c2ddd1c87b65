"""The executor's loop: poll, decode, schedule, collect, publish. The loop thread owns all of its state.

Two more kinds of thread exist: the pools' workers, which only hand ended jobs back through a queue, and the
publisher, which makes one checkpoint at a time durable while the loop goes on. Rebalances wait for the publisher.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from kantoku_kafka.backoff import Backoff
from kantoku_kafka.engine.burst import Burst
from kantoku_kafka.engine.checkpoint import Checkpoint
from kantoku_kafka.engine.dispatcher import Dispatcher
from kantoku_kafka.engine.intake import Intake
from kantoku_kafka.engine.judge import Judge
from kantoku_kafka.engine.past import History
from kantoku_kafka.engine.pools import Pools
from kantoku_kafka.engine.publisher import Publisher
from kantoku_kafka.engine.reception import Reception
from kantoku_kafka.engine.rules import Rules
from kantoku_kafka.engine.standing import standing_of
from kantoku_kafka.job import Job, Offset, Partition
from kantoku_kafka.meter import UNMETERED, Meters
from kantoku_kafka.model import Command
from kantoku_kafka.names import Topics
from kantoku_kafka.protocols import Codec, Inputs, TaskReader
from kantoku_kafka.settings import ExecutorSettings

if TYPE_CHECKING:
    from kantoku_kafka.signing.guard import Guard

__all__ = ["Loop"]

_log = logging.getLogger(__name__)
_CHUNK = 64
_SLICE_SECONDS = 0.1
_IDLE_WAIT_SECONDS = 0.1
_LIMITED_WAIT_SECONDS = 0.02  # for those that wait for a rate
_BUSY_WAIT_SECONDS = (0.001, 0.005)
_POLL_EVERY_SECONDS = _LOOK_SECONDS = 0.1
_NOTE_SECONDS = 1.0


class Loop:
    """Runs tasks until it is told to stop. :meth:`stop` may be called from any thread or signal handler.

    Parameters:
        inputs: where tasks come from.
        checkpoint: where everything goes that has ended.
        codec: reads the envelopes.
        pools: where they run, once the loop has begun.
        rules: by task type.
        input_topics: where tasks come from.
        topics: where tasks go besides the results.
        settings: bounds and timeouts.
        history: what was in partitions whose offset was set back.
        readers: by topic, of inputs whose records are not as the codec has them.
        guard: says whether a task was signed; None: it need not be.
        meters: who is told where it stands.

    Attributes:
        turned_at: when it went round last, give or take a tenth of a second, by the monotonic clock; None: not yet.
    """

    def __init__(
        self,
        *,
        inputs: Inputs,
        checkpoint: Checkpoint,
        codec: Codec,
        pools: Pools,
        rules: Mapping[str, Rules],
        input_topics: Iterable[str],
        topics: Topics,
        settings: ExecutorSettings,
        history: History = lambda _: {},
        readers: Mapping[str, TaskReader] = MappingProxyType({}),
        guard: Guard | None = None,
        meters: Meters = UNMETERED,
    ) -> None:
        self._inputs = inputs
        self._checkpoint = checkpoint
        self._input_topics = sorted(input_topics)
        self._pools = pools
        self._settings = settings
        self._meters = meters
        self._burst = Burst(inputs) if settings.burst else None
        self._intake = Intake(settings.max_waiting, settings.max_waiting_bytes, history)
        self._windows = self._intake.windows
        judge = Judge(topics, codec, rules, checkpoint.max_data_bytes)
        self._dispatcher = Dispatcher(pools, judge, checkpoint, self._windows, settings.max_tasks or None)
        self._reception = Reception(
            self._intake, codec, judge, pools, topics.dlq, self._dispatcher.end, readers, guard, meters
        )
        self._publisher = Publisher(checkpoint, self._dispatcher.wake, settings.timeout_seconds)
        self._fetching = False
        self._busy_waits = Backoff(*_BUSY_WAIT_SECONDS)
        self._poll_by = self._look_at = self._note_at = 0.0
        self.turned_at: float | None = None
        self._stopping = self._quiet = self._has_left = False
        self._draining = True  # a partition that is revoked is drained first

    def stop(self) -> None:
        """Ask the loop to end: no new tasks, a bounded drain, a last checkpoint."""
        self._stopping = True

    def quiet(self) -> None:
        """Take no new tasks; leave the inputs once what runs has ended, however long that takes. From any thread."""
        self._quiet = True
        self._dispatcher.wake()

    def command(self, commands: Sequence[Command]) -> None:
        """Do as these say, soon. May be called from any thread."""
        self._dispatcher.command(commands)

    @property
    def stopping(self) -> bool:
        """It takes no new tasks."""
        return self._stopping or self._quiet

    @property
    def assigned_partitions(self) -> int:
        """How many partitions it has. May be called from any thread."""
        return len(self._windows)

    def running_by_type(self) -> dict[str, int]:
        """How many tasks of each type run. May be called from any thread."""
        return self._pools.running_by_type()

    def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Work until :meth:`stop`, then drain, checkpoint and close. Raises what the parts cannot recover from.

        Parameters:
            on_ready: called once, before the first turn.
        """
        try:
            self._dispatcher.open()
            self._inputs.subscribe(self._input_topics, self)
            on_ready()
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
            self._pools.cancel(self._pools.running, "stopping")
            self._pools.close()

    def _wind_down(self) -> None:
        """Let running jobs end for a bounded time and publish them; what arrives meanwhile is for others.

        It polls all the while: the group must not take us for dead, and what is refused after a rebalance of others
        is accepted under the membership that a poll brings.
        """
        running, seconds = self._pools.running, self._settings.drain_seconds
        if running:
            _log.info("draining: %d tasks have %g s to end", len(running), seconds, extra={"action": "drain"})
        deadline = time.monotonic() + seconds
        while running and time.monotonic() < deadline:
            self._attend()
        self._draining = False
        self._dispatcher.collect()  # what has ended by now has not done so because it is told to
        if running:
            _log.warning("%d tasks did not end and will run again", len(running), extra={"action": "abandoned"})
        self._pools.cancel(running, "stopping")
        deadline = time.monotonic() + self._settings.timeout_seconds
        while (self._publisher.busy or self._checkpoint.due) and time.monotonic() < deadline:
            self._attend()

    def _rest(self) -> None:
        """One round of a quiet executor."""
        if self._has_left:
            self._await_ended(_IDLE_WAIT_SECONDS)
            self._look_round()
        elif self._is_at_work:
            self._attend()
        else:
            _log.info("quiet: nothing runs any more, the inputs are for others", extra={"action": "quiet"})
            self._inputs.close()
            self._has_left = True

    def _attend(self) -> None:
        """One round without intake."""
        self._dispatcher.obey()
        if not self._has_left:
            self._inputs.poll(1, 0.0)
        self._await_ended(_BUSY_WAIT_SECONDS[1])
        self._dispatcher.collect()
        self._look_round()
        self._publisher.publish(self._windows)

    def _let_go(self) -> None:
        """Whatever has not been published by now runs again: after a failure, leaving the inputs publishes nothing."""
        self._draining = False
        self._checkpoint.forget(self._windows)
        self._windows.clear()

    def _turn(self) -> None:
        """One round: take in what there is, start what may start, publish what has ended."""
        wait_seconds = self._wait_seconds()
        self._dispatcher.obey()
        jobs = []
        if self._hungry():
            jobs = self._inputs.poll(self._settings.max_batch, wait_seconds)
        elif wait_seconds > 0:
            self._await_ended(wait_seconds)
        self._fetching = bool(jobs)
        if jobs:
            self._busy_waits.reset()
            self._reception.receive(self._intake.admit(jobs))
        self._publisher.publish(self._windows)
        self._start()
        self._dispatcher.collect()
        self._publisher.publish(self._windows)
        self._press_back()
        self._look_round()
        if self._dispatcher.is_exhausted or self._has_burst():
            self.stop()
        while self._publisher.waiting_for_broker and self._checkpoint.prepare(_CHUNK):
            pass

    def _hungry(self) -> bool:
        """Whether to poll. What nobody can start yet is better off in the client's buffer, which a pause would
        empty; but rebalances are served by poll, so it is never put off for long."""
        now = time.monotonic()
        if self._intake.waiting >= self._settings.max_batch and now < self._poll_by:
            return False
        self._poll_by = now + _POLL_EVERY_SECONDS
        return True

    def _has_burst(self) -> bool:
        """Whether this was to be a burst, and all of it is published."""
        return self._burst is not None and not self._is_at_work and self._burst.is_done(self._windows)

    @property
    def _is_at_work(self) -> bool:
        """Tasks run, or what has ended is not published."""
        return bool(self._pools.running) or self._checkpoint.due or self._publisher.busy

    def _start(self) -> None:
        """Hand over what may start, in chunks, for a slice of time: a pool may run them in this thread."""
        deadline = time.monotonic() + _SLICE_SECONDS
        for pool in self._pools:
            while not self._batch_full() and not self.stopping and self._dispatcher.start(pool):
                if self._dispatcher.collect() and time.monotonic() > deadline:
                    return

    def _batch_full(self, times: int = 1) -> bool:
        """What has ended makes a checkpoint by itself: nothing more is started until it is on its way.

        Dead letters need no start: at twice as much, nothing more is taken in.
        """
        checkpoint, settings = self._checkpoint, self._settings
        return (
            len(checkpoint) >= times * settings.max_batch or checkpoint.size_bytes >= times * settings.max_batch_bytes
        )

    def _look_round(self) -> None:
        """Now and then: tell those that have had their time to end, note what others say of themselves."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self.turned_at = now
        self._look_at = now + _LOOK_SECONDS
        if now >= self._note_at:
            self._note_at = now + _NOTE_SECONDS
            self._checkpoint.note([job for job in self._pools.running if job.progress is not None])
            if self._meters:
                standing = standing_of(self._pools, self._intake)
                self._meters.tell(lambda meter, loop: meter.stands(loop, standing))
        self._dispatcher.end_overdue()

    # --- waiting and back-pressure

    def _wait_seconds(self) -> float:
        """How long poll may block. While something is under way, its end ends the wait here, and poll only looks."""
        if not self._publisher.busy:
            pause_seconds = self._publisher.pause_seconds
            if self._checkpoint.due and (not self._pools.running or not pause_seconds):
                return min(pause_seconds, _IDLE_WAIT_SECONDS)
            if not self._pools.running:
                return _LIMITED_WAIT_SECONDS if any(p.waiting for p in self._windows) else _IDLE_WAIT_SECONDS
        if self._fetching:
            return 0.0
        self._await_ended(self._busy_waits.next_seconds())
        return 0.0

    def _await_ended(self, seconds: float) -> None:
        if self._dispatcher.await_ended(seconds):
            self._busy_waits.reset()

    def _press_back(self) -> None:
        """Admit parked records whose turn has come; pause and resume partitions."""
        self._reception.receive(self._intake.unpark())
        pause, resume = self._intake.press_back(full=self._batch_full(2))
        if pause or resume:
            self._inputs.pause(pause)
            self._inputs.resume(resume)

    # --- rebalances, called from inside poll and close

    def assigned(self, offsets: Sequence[Offset]) -> Sequence[Partition]:
        """Take partitions on, and name us in their metadata."""
        partitions = self._intake.open(offsets)
        self._meters.rebalanced("assigned", partitions)
        for partition in partitions:
            self._checkpoint.claim(partition)
        if self._burst is not None:
            self._burst.assigned(partitions)
        self._pools.share_rates(self._windows)
        return partitions

    def revoked(self, partitions: Sequence[Partition]) -> None:
        """Drain what runs of these, publish it, let go; what still runs then runs again elsewhere."""
        going = set(partitions)
        for partition in going:
            self._pools.drop(partition)
        running = {job for job in self._pools.running if job.partition in going}
        self._drain(running, self._settings.revoke_drain_seconds if self._draining else 0.0)
        self._meters.rebalanced("revoked", partitions)
        self._forget(partitions)

    def _drain(self, jobs: set[Job], seconds: float) -> None:
        """Let running jobs end for a bounded time, and publish what has ended."""
        deadline = time.monotonic() + seconds
        waiting_for = set(jobs)
        while waiting_for and (left := deadline - time.monotonic()) > 0:
            self._await_ended(min(left, _IDLE_WAIT_SECONDS))
            self._dispatcher.collect()
            waiting_for &= self._pools.running
            self._publisher.publish(self._windows)
        self._publisher.publish_rest(self._windows, self._settings.timeout_seconds)

    def lost(self, partitions: Sequence[Partition]) -> None:
        """Forget these: nothing of them may be published any more."""
        self._meters.rebalanced("lost", partitions)
        self._forget(partitions)

    def _forget(self, partitions: Sequence[Partition]) -> None:
        self._publisher.conclude()
        going = set(partitions)
        for partition in going:
            self._pools.drop(partition)
            self._intake.close(partition)
        self._pools.share_rates(self._windows)
        self._checkpoint.forget(going)
        self._pools.cancel({job for job in self._pools.running if job.partition in going}, "revoked")
