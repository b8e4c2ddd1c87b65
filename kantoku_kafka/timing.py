"""Puts the timer loop together: as a part of every executor, or as a process of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import cached_property, partial
from queue import SimpleQueue

from kantoku_kafka.app import Kantoku
from kantoku_kafka.engine.cancel import Cancellations
from kantoku_kafka.engine.loop import Loop
from kantoku_kafka.engine.reply import Replies
from kantoku_kafka.engine.schedule_book import ScheduleBook
from kantoku_kafka.engine.timer_book import TimerBook
from kantoku_kafka.engine.timer_loop import BookMaker, TimerLoop
from kantoku_kafka.errors import BrokerUnavailable, SlotTaken
from kantoku_kafka.ids import task_id_time_ms
from kantoku_kafka.kafka.commands import Commands
from kantoku_kafka.kafka.drift import warn_of_losses
from kantoku_kafka.kafka.member import Member
from kantoku_kafka.kafka.reader import ResultReader
from kantoku_kafka.kafka.topics import partition_count, plan, retention_ms
from kantoku_kafka.meter import TIMERS, Meters, Vitals
from kantoku_kafka.model import Command, now_us
from kantoku_kafka.settings import EventDetail, ExecutorSettings
from kantoku_kafka.signing.guard import Guard
from kantoku_kafka.slots import Slot, executor_id

__all__ = ["SchedulerProcess", "TimerService", "own_topics", "vitals_of"]

_log = logging.getLogger(__name__)
_YIELD_SECONDS = 2.0


class TimerService:
    """Fires timers until :meth:`stop`, which may be called from any thread, at any time.

    Parameters:
        kantoku: the app.
        settings: of the executor.
        slot: of this process.
        executor_id: who speaks, in events and results.
        yields: what to do if another process has the slot: to wait and join again, because an executor decides by its
            own group who of the two has to go; else :meth:`run` raises SlotTaken.
    """

    def __init__(
        self, kantoku: Kantoku, settings: ExecutorSettings, slot: Slot, executor_id: str, *, yields: bool = False
    ) -> None:
        self._kantoku = kantoku
        self._settings = settings
        self._slot = slot
        self._executor_id = executor_id
        self._yields = yields
        self._cancellations = Cancellations()
        self._commands: SimpleQueue[Sequence[Command]] = SimpleQueue()
        self._end = threading.Event()
        self._loop: TimerLoop | None = None

    def vitals(self) -> Vitals:
        """How it is. May be called from any thread, at any time."""
        return vitals_of(self._loop, self._kantoku)

    def stop(self) -> None:
        """End :meth:`run` soon."""
        self._end.set()
        if self._loop is not None:
            self._loop.stop()

    def command(self, commands: Sequence[Command]) -> None:
        """Do as these say, soon. May be called from any thread, at any time."""
        self._commands.put(commands)

    def run(self) -> None:
        """Connect, and fire timers until :meth:`stop`. Blocks; call it once.

        Raises:
            SlotTaken, BrokerUnavailable, AccessDenied, TopicMismatch.
        """
        while not self._end.is_set():
            try:
                self._run()
            except SlotTaken as error:
                if not self._yields:
                    raise
                _log.info("timers wait: %s", error, extra={"action": "timers_yield"})
                self._end.wait(_YIELD_SECONDS)

    def _run(self) -> None:
        kantoku, settings = self._kantoku, self._settings
        topics, codec = kantoku.topics, kantoku.codec
        own = [*own_topics(kantoku, settings), topics.schedules]
        with ExitStack() as ending:
            meters = Meters(kantoku.meters, TIMERS)
            member = Member(
                kantoku.clients, topics.timers_group, self._slot, settings, own, tells_ends=True, meters=meters
            )
            ending.callback(member.close)
            ended = _Ended(kantoku)
            ending.callback(ended.close)
            outputs, events = member.outputs(topics, codec), member.events(topics, codec)
            replies = Replies(topics, {name: task.rules for name, task in kantoku.task_types.items()})
            books: dict[str, BookMaker] = {
                topics.timers: partial(
                    TimerBook,
                    topics=topics,
                    codec=codec,
                    cancellations=self._cancellations,
                    replies=replies,
                    guard=Guard.of(kantoku),
                ),
                topics.schedules: partial(ScheduleBook, topics=topics, codec=codec, has_ended=ended.ask),
            }
            self._loop = TimerLoop(
                inputs=member.inputs,
                checkpoint=member.checkpoint(outputs, events, self._executor_id),
                books=books,
                commands=self._commands,
                cancellations=self._cancellations,
                timeout_seconds=self._settings.timeout_seconds,
                meters=meters,
            )
            if self._end.is_set():
                self._loop.stop()
            self._loop.run()


class _Ended:
    """Finds out whether tasks have ended, in a thread of its own: nobody else waits for that.

    A task whose result the topic need not hold any more counts as ended.
    """

    def __init__(self, kantoku: Kantoku) -> None:
        self._kantoku = kantoku
        self._reader: ResultReader | None = None
        self._thread = ThreadPoolExecutor(1, "kantoku-ended")

    def ask(self, task_id: str) -> Future[bool]:
        """Whether it has a result; the answer may be a KantokuError."""
        return self._thread.submit(self._look, task_id)

    def close(self) -> None:
        """Answer nothing any more."""
        self._thread.shutdown(cancel_futures=True)
        if self._reader is not None:
            self._reader.close()

    def _look(self, task_id: str) -> bool:
        if self._reader is None or self._reader.failed:
            self._reader = ResultReader(self._kantoku.clients, self._kantoku.topics, self._kantoku.codec)
        result = self._reader.expect(task_id)
        try:
            is_read = self._reader.catch_up([task_id], result.done)
        finally:
            self._reader.forget(task_id, result)
        if result.done():
            return True
        if not is_read:
            raise BrokerUnavailable(f"A transaction that is open hides whether task {task_id} has ended.")
        kept_ms, made_ms = self._kept_ms, task_id_time_ms(task_id) or 0
        return kept_ms is not None and now_us() // 1_000 - made_ms > kept_ms

    @cached_property
    def _kept_ms(self) -> int | None:
        return retention_ms(self._kantoku.clients, self._kantoku.topics.results)


class SchedulerProcess:
    """A process that fires timers and executes nothing.

    Parameters:
        kantoku: the app; its task types do not matter.
        settings: of which it takes the guarantee, the events, the group protocol, the slot and the timeout.

    Raises (:meth:`run`):
        UsageError, SlotTaken, BrokerUnavailable, AccessDenied, TopicMismatch.
    """

    def __init__(self, kantoku: Kantoku, settings: ExecutorSettings | None = None) -> None:
        self._kantoku = kantoku
        self._settings = settings or ExecutorSettings()
        self._service: TimerService | None = None
        self._stop_asked = False

    @property
    def running(self) -> bool:
        """Whether :meth:`run` has found the broker and the topics: from then on :meth:`stop` ends it in order."""
        return self._service is not None

    def vitals(self) -> Vitals:
        """How it is. May be called from any thread, at any time."""
        return vitals_of(None, self._kantoku) if self._service is None else self._service.vitals()

    def stop(self) -> None:
        """End :meth:`run` soon. May be called from any thread or signal handler, at any time."""
        self._stop_asked = True
        if self._service is not None:
            self._service.stop()

    def run(self) -> None:
        """Connect, and fire timers until :meth:`stop`. Blocks; call it once."""
        kantoku, settings = self._kantoku, self._settings
        slot = Slot.take(settings.slot, kantoku.namespace)
        try:
            kantoku.clients.check()
            for topic in [*own_topics(kantoku, settings), kantoku.topics.schedules]:
                partition_count(kantoku.clients, topic)
            warn_of_losses(kantoku.clients, plan(kantoku.topics, [], inputs=kantoku.inputs))
            name = executor_id()
            self._service = service = TimerService(kantoku, settings, slot, name)
            if self._stop_asked:
                service.stop()
            _log.info("scheduler %s, slot %s", name, slot.name, extra={"action": "started"})
            with Commands(kantoku.clients, kantoku.topics.control, service.command):
                service.run()
        finally:
            slot.release()


def own_topics(kantoku: Kantoku, settings: ExecutorSettings) -> list[str]:
    """The topics that a checkpoint may write to."""
    topics = kantoku.topics
    own = [topics.results, topics.dlq, topics.timers]
    return own if settings.events is EventDetail.OFF else [*own, topics.events]


def vitals_of(loop: Loop | TimerLoop | None, kantoku: Kantoku) -> Vitals:
    """How a process is whose loop this is; None: it has none yet."""
    patience_seconds = kantoku.connection.max_poll_seconds
    if loop is None:
        return Vitals(None, False, 0, patience_seconds)
    return Vitals(loop.turned_at, loop.stopping, loop.assigned_partitions, patience_seconds)
