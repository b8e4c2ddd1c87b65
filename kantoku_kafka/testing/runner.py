"""Runs tasks of an app without any broker: the real loop, scheduler, pools and codec over an in-memory log."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue

from kantoku_kafka.app import Kantoku
from kantoku_kafka.bindings import bind_pools, chosen_types
from kantoku_kafka.engine.cancel import Cancellations
from kantoku_kafka.engine.checkpoint import Checkpoint
from kantoku_kafka.engine.foreign import foreign_readers
from kantoku_kafka.engine.loop import Loop
from kantoku_kafka.engine.pools import Pools, Rate
from kantoku_kafka.engine.reply import Replies
from kantoku_kafka.engine.timer_book import TimerBook
from kantoku_kafka.engine.timer_loop import TimerLoop
from kantoku_kafka.errors import WaitTimeout
from kantoku_kafka.kafka.outputs import EventWriter
from kantoku_kafka.model import Event, Result, Task, now_us
from kantoku_kafka.plugins import run_after
from kantoku_kafka.settings import ExecutorSettings
from kantoku_kafka.signing.guard import Guard
from kantoku_kafka.spawning import prepare, spawned_event
from kantoku_kafka.testing.memory import (
    InMemoryEvents,
    InMemoryInputs,
    InMemoryLog,
    InMemoryOutputs,
    InMemoryTransaction,
    Record,
)

__all__ = ["Run", "run_tasks"]

_EXECUTOR_ID = "in-memory"
_LOOK_SECONDS = 0.05
_END_OF_TIME_US = (1 << 63) - 2


@dataclass(frozen=True, slots=True)
class Run:
    """What came of :func:`run_tasks`.

    Attributes:
        results: of the tasks, in their order.
        log: everything else: side outputs, dead letters, results of child tasks.
    """

    kantoku: Kantoku
    results: Sequence[Result]
    log: InMemoryLog

    @property
    def all_results(self) -> list[Result]:
        """Those of child tasks as well."""
        return [self.kantoku.codec.decode_result(r.value) for r in self.log.read(self.kantoku.topics.results)]

    @property
    def events(self) -> list[Event]:
        """Every step that was logged; those of one task in their order."""
        return [self.kantoku.codec.decode_event(r.value) for r in self.log.read(self.kantoku.topics.events)]

    @property
    def dead_letters(self) -> list[Record]:
        """Records that no task could be read from, tasks of unknown types, and those whose attempts are used up."""
        return self.log.read(self.kantoku.topics.dlq)


def run_tasks(
    kantoku: Kantoku,
    tasks: Iterable[Task],
    *,
    log: InMemoryLog | None = None,
    settings: ExecutorSettings | None = None,
    reference: str | None = None,
    waits_for_timers: bool = False,
    timeout_seconds: float = 10.0,
) -> Run:
    """Spawn tasks and run them and their children to the end, as an executor would; plugins take part, and so do the
    hooks of ``on_startup`` and ``on_shutdown``.

    ::

        def test_resize():
            run = run_tasks(kan, [Task("resize", photo)])
            assert run.results[0].ok

    Parameters:
        log: one that has been used before, or that holds records of the test's own; default a new one.
        settings: of the executor; default as in production.
        reference: ``module:attribute`` of the app, for tasks of pool ``process``.
        waits_for_timers: False, the default: delayed tasks and retries are due at once, whatever the time.
        timeout_seconds: for all of them, from when startup hooks and pools are ready; default 10.

    Raises:
        WaitTimeout: not all of them ended in time.
        Whatever a before hook of a plugin raises: the task is then not spawned.
        Whatever a hook of the app raises.
    """
    log = InMemoryLog() if log is None else log
    types = chosen_types(kantoku, None, None, reference)
    ids = [_spawn(kantoku, log, task) for task in tasks]
    settings = settings or ExecutorSettings()
    loop = _loop(kantoku, log, settings, reference, waits_for_timers)
    timers = _timers(kantoku, log, settings, waits_for_timers)
    topics = [*(topic for task in types.values() for topic in task.inputs(kantoku.topics)), kantoku.topics.timers]
    begun, ended = threading.Event(), Future[None]()
    ended.add_done_callback(lambda _: begun.set())
    # A daemon: a function that never returns must not keep the test run from ending.
    for run in (partial(_run_loop, kantoku, loop, begun, ended), partial(_run_timers, timers, ended)):
        threading.Thread(target=run, name="kantoku-run-tasks", daemon=True).start()
    begun.wait()
    deadline = time.monotonic() + timeout_seconds
    while not (done := log.wait_until_done(topics, _LOOK_SECONDS)):
        if ended.done() or time.monotonic() > deadline:
            break
    timers.stop()
    loop.stop()
    if done or ended.done():
        ended.result()
    found = {
        record.key: kantoku.codec.decode_result(record.value)._replace(headers=record.headers)
        for record in log.read(kantoku.topics.results)
    }
    missing = [task_id for task_id in ids if task_id.encode() not in found]
    if missing or not done:
        raise WaitTimeout(f"{len(missing)} of {len(ids)} tasks did not end within {timeout_seconds:g} s.")
    return Run(kantoku, [found[task_id.encode()] for task_id in ids], log)


def _spawn(kantoku: Kantoku, log: InMemoryLog, task: Task) -> str:
    ctx, message = prepare(kantoku, task)
    event = EventWriter(kantoku.topics.events, log.partitions, kantoku.codec).message(spawned_event(ctx))
    log.append(message, event)
    run_after(ctx.hooks.after_scheduled, ctx)
    return ctx.id


def _loop(kantoku: Kantoku, log: InMemoryLog, settings: ExecutorSettings, reference: str | None, waits: bool) -> Loop:
    inputs = InMemoryInputs(log)
    types = chosen_types(kantoku, None, settings.pool, reference)
    topics_of = {name: task.inputs(kantoku.topics).keys() for name, task in types.items()}
    rates = {
        name: Rate(task.limits.rate_per_second, topics_of[name], log.partitions * len(topics_of[name]))
        for name, task in types.items()
        if task.limits.rate_per_second is not None
    }
    return Loop(
        inputs=inputs,
        checkpoint=_checkpoint(kantoku, log, inputs, settings),
        codec=kantoku.codec,
        pools=Pools(bind_pools(kantoku, types, settings, reference), rates),
        rules={name: task.rules for name, task in types.items()},
        input_topics=frozenset().union(*topics_of.values()),
        topics=kantoku.topics,
        settings=settings,
        readers=foreign_readers(
            {name: task.from_topics for name, task in types.items()}, kantoku.topics, kantoku.codec
        ),
        guard=Guard.of(kantoku, now_us if waits else lambda: None),
    )


def _timers(kantoku: Kantoku, log: InMemoryLog, settings: ExecutorSettings, waits: bool) -> TimerLoop:
    inputs = InMemoryInputs(log)
    cancellations = Cancellations()
    replies = Replies(kantoku.topics, {name: task.rules for name, task in kantoku.task_types.items()})
    book = partial(
        TimerBook,
        topics=kantoku.topics,
        codec=kantoku.codec,
        cancellations=cancellations,
        replies=replies,
        guard=Guard.of(kantoku),
    )
    return TimerLoop(
        inputs=inputs,
        checkpoint=_checkpoint(kantoku, log, inputs, settings),
        books={kantoku.topics.timers: book},
        commands=SimpleQueue(),
        cancellations=cancellations,
        clock=now_us if waits else lambda: _END_OF_TIME_US,
        timeout_seconds=settings.timeout_seconds,
        progress_seconds=0.0,
    )


def _checkpoint(kantoku: Kantoku, log: InMemoryLog, inputs: InMemoryInputs, settings: ExecutorSettings) -> Checkpoint:
    topics, codec = kantoku.topics, kantoku.codec
    transaction = InMemoryTransaction(log, inputs)
    return Checkpoint(
        outputs=InMemoryOutputs(transaction, topics.results, codec, max_data_bytes=log.max_record_bytes - 1_024),
        events=InMemoryEvents(transaction, EventWriter(topics.events, log.partitions, codec)),
        transaction=transaction,
        detail=settings.events,
        executor_id=_EXECUTOR_ID,
        writer=lambda _: _EXECUTOR_ID,
    )


def _run_loop(kantoku: Kantoku, loop: Loop, begun: threading.Event, ended: Future[None]) -> None:
    """Hooks and loop in one thread, as ExecutorProcess.run has them."""
    try:
        for hook in kantoku.startup_hooks:
            hook()
        loop.run(begun.set)
        for hook in kantoku.shutdown_hooks:
            hook()
    except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
        ended.set_exception(error)
    else:
        ended.set_result(None)


def _run_timers(timers: TimerLoop, ended: Future[None]) -> None:
    try:
        timers.run()
    except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
        ended.set_exception(error)
