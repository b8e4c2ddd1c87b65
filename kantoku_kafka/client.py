"""The spawning and waiting half of an app."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

from kantoku_kafka.engine.cancel import CANCEL, command_message
from kantoku_kafka.errors import (
    AccessDenied,
    KantokuError,
    TopicMismatch,
    UsageError,
)
from kantoku_kafka.job import Message
from kantoku_kafka.kafka.clients import Clients
from kantoku_kafka.kafka.outputs import EventWriter
from kantoku_kafka.kafka.reader import ResultReader
from kantoku_kafka.kafka.spawner import Failures, Spawner, Ticket
from kantoku_kafka.model import Command, Result, Task, now_us
from kantoku_kafka.plugins import run_after
from kantoku_kafka.settings import Connection, EventDetail
from kantoku_kafka.spawning import prepare, spawned_event
from kantoku_kafka.throttle import Throttle
from kantoku_kafka.waiting import Waiting

if TYPE_CHECKING:
    from kantoku_kafka.app import Kantoku

__all__ = ["Client", "Spawned"]

_log = logging.getLogger(__name__)
_WARN_EVERY_SECONDS = 30.0


class Spawned(Ticket):
    """A task that was spawned.

    Attributes:
        id: of the task.
        topic: its input topic; ``partition`` and ``offset``: where it stands there, None until the broker has
            acknowledged it (after ``spawn_nowait``, and inside a transaction).
        log: what plugins noted about the creation.
        spawned_at: when, by this process's monotonic clock.
    """

    __slots__ = ("_client", "id", "log", "spawned_at")

    def __init__(self, client: Client, task_id: str, topic: str, log: list[str], failures: Failures) -> None:
        super().__init__(topic, failures)
        self._client = client
        self.id = task_id
        self.spawned_at = time.monotonic()
        self.log: Sequence[str] = log or ()

    def __repr__(self) -> str:
        return f"Spawned({self.id!r}, {self.topic}[{self.partition}]@{self.offset})"

    def result(self, timeout_seconds: float | None = None) -> Result:
        """Wait for the result. As :meth:`~kantoku_kafka.waiting.Waiting.wait`."""
        return self._client.gather([self], timeout_seconds=timeout_seconds)[0]


@dataclass(slots=True)
class _Transaction:
    """What a block of :meth:`Client.transaction` spawns through. ``over``: it has ended."""

    spawner: Spawner
    failures: Failures
    over: bool = False


class Client(Waiting):
    """Spawns tasks and waits for results. All methods are thread-safe; connections are opened at first use.

    After a fork the child has to make its own: using the parent's raises KantokuError.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        events: EventDetail,
        queue_timeout_seconds: float,
        delivery_timeout_seconds: float,
    ) -> None:
        self.connection = connection
        self.event_detail = events
        self._timeouts = {
            "queue_timeout_seconds": queue_timeout_seconds,
            "delivery_timeout_seconds": delivery_timeout_seconds,
        }
        self._lock = threading.RLock()
        self._pid: int | None = None
        self._clients: Clients | None = None
        self._spawner: Spawner | None = None
        self._failed_spawners: list[Spawner] = []
        self._reader: ResultReader | None = None
        self._event_writer: EventWriter | None = None
        self._nowait_failures: Failures = []
        self._event_failures: Failures = []
        self._warnings = Throttle(_WARN_EVERY_SECONDS)
        self._idle_spawners: deque[Spawner] = deque()
        self._open_transaction: ContextVar[_Transaction | None] = ContextVar("transaction", default=None)

    # --- spawning

    def spawn(self, task: Task) -> Spawned:
        """Spawn one task; returns when the broker has acknowledged it.

        Inside :meth:`transaction` it returns at once, and the task is accepted when the block ends.

        Raises:
            QueueFull, TaskTooLarge, SpawnError, TopicMismatch, AccessDenied: not accepted.
            BrokerUnavailable: not acknowledged in time; if a broker was reached, it may still have been accepted.
            Whatever a plugin's before hook raises: a veto.
        """
        return self.spawn_many([task])[0]

    def spawn_many(self, tasks: Iterable[Task]) -> list[Spawned]:
        """Spawn many; returns when the broker has acknowledged all. Raises as :meth:`spawn`; some may be accepted."""
        tickets: list[Ticket] = []
        transaction = self._transaction
        if transaction is not None:
            return [self._send(task, transaction.spawner, transaction.failures, tickets) for task in tasks]
        spawner = self._connected_spawner()
        failures: Failures = []
        spawned = [self._send(task, spawner, failures, tickets) for task in tasks]
        spawner.wait(tickets, failures)
        return spawned

    def spawn_nowait(self, task: Task) -> Spawned:
        """Hand a task to the local queue. It is accepted only once :meth:`flush` (or the transaction) ends.

        Raises:
            As :meth:`spawn`, for this task or for one that was handed over before.
        """
        transaction = self._transaction or _Transaction(self._connected_spawner(), self._nowait_failures)
        spawner, failures = transaction.spawner, transaction.failures
        spawner.check(failures)
        return self._send(task, spawner, failures, [])

    def flush(self) -> None:
        """Wait until the broker has acknowledged every :meth:`spawn_nowait`. Raises as :meth:`spawn`."""
        spawner = self._connected_spawner()
        while self._failed_spawners:
            self._failed_spawners.pop().flush(self._nowait_failures)
        spawner.flush(self._nowait_failures)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All spawns of this thread (or coroutine) within the block become visible together, or none does.

        Raises:
            SpawnError, TopicMismatch, AccessDenied, UsageError (within another one): none was accepted.
            BrokerUnavailable: if the block had ended, they may have been accepted, all or none.
        """
        if self._transaction is not None:
            raise UsageError("A transaction cannot begin within another one of the same thread or coroutine.")
        spawner = self._transactional_spawner()
        failures: Failures = []
        spawner.begin()
        transaction = _Transaction(spawner, failures)
        token = self._open_transaction.set(transaction)
        try:
            yield
            spawner.flush(failures)
        except BaseException:
            if spawner.abort():
                self._idle_spawners.append(spawner)
            raise
        finally:
            transaction.over = True
            self._open_transaction.reset(token)
        if spawner.commit():
            self._idle_spawners.append(spawner)

    async def spawn_async(self, task: Task) -> Spawned:
        """:meth:`spawn` for asyncio."""
        return await asyncio.to_thread(self.spawn, task)

    async def spawn_many_async(self, tasks: Iterable[Task]) -> list[Spawned]:
        """:meth:`spawn_many` for asyncio."""
        return await asyncio.to_thread(self.spawn_many, list(tasks))

    # --- control

    def cancel(
        self,
        *task_ids: str,
        type: str | None = None,  # noqa: A002 - the word for it everywhere
        labels: Mapping[str, str] | None = None,
        reason: str | None = None,
    ) -> None:
        """Cancel tasks: these, or all of a type or with these labels that were spawned by now.

        Returns when the broker has acknowledged the command. Each task's result is CANCELLED, unless it ends before
        its executor hears of it. What runs in pool ``process`` is killed, ``asyncio`` cancelled; a thread is asked by
        :attr:`Context.cancelled`.

        Raises:
            UsageError: neither ids nor a choice, or both.
            TopicMismatch, AccessDenied, BrokerUnavailable.
        """
        if bool(task_ids) == bool(type or labels):
            raise UsageError("cancel takes ids of tasks, or else a type or labels.")
        chosen: Iterable[str | None] = task_ids or (None,)
        at_us = now_us()
        commands = [Command(CANCEL, at_us, one, type, dict(labels or {}), None, reason) for one in chosen]
        self.write([command_message(self._app.topics.control, command) for command in commands])

    def write(self, messages: Iterable[Message]) -> None:
        """Write records to any topics; returns when the broker has acknowledged them.

        Inside :meth:`transaction` it returns at once, and they are visible when the block has ended. Raises as
        :meth:`spawn`.
        """
        transaction = self._transaction
        spawner = self._connected_spawner() if transaction is None else transaction.spawner
        failures: Failures = [] if transaction is None else transaction.failures
        tickets: list[Ticket] = []
        for message in messages:
            tickets.append(Ticket(message.topic, failures))
            spawner.send(message, tickets[-1])
        if transaction is None:
            spawner.wait(tickets, failures)

    # --- connections

    def close(self) -> None:
        """Wait for what is still queued, end the reader and its waits. The client may be used again afterwards.

        Raises:
            As :meth:`flush`, if tasks of :meth:`spawn_nowait` were not accepted.
        """
        with self._lock:
            spawner, reader = self._spawner, self._reader
            self._spawner = self._reader = self._event_writer = None
            self._idle_spawners.clear()
        if reader is not None:
            reader.close()
        if spawner is not None:
            if not spawner.close():
                raise self.clients.unreachable("waiting for the broker to acknowledge what was spawned")
            spawner.check(self._nowait_failures)

    @property
    def clients(self) -> Clients:
        """The maker of Kafka clients for this app's connection."""
        with self._lock:
            if self._clients is None:
                self._clients = Clients(self.connection, self._app.frames)
            return self._clients

    def connect_to(self, connection: Connection) -> None:
        """Use another connection from now on (the command line's options); only before the first use."""
        self.connection = connection
        self._clients = None

    @property
    def _app(self) -> Kantoku:
        return cast("Kantoku", self)

    @property
    def _transaction(self) -> _Transaction | None:
        """That of this thread or coroutine, while its block has not ended: who began within it may live longer."""
        transaction = self._open_transaction.get()
        return None if transaction is None or transaction.over else transaction

    def _connected_spawner(self) -> Spawner:
        spawner = self._spawner
        if spawner is None or spawner.failed or self._pid != os.getpid():
            with self._lock:
                self._check_fork()
                spawner = self._spawner
                if spawner is None or spawner.failed:
                    if spawner is not None:  # what it was handed without waiting has to be answered for
                        self._failed_spawners.append(spawner)
                    spawner = self._spawner = self._new_spawner()
        return spawner

    def _connected_reader(self) -> ResultReader:
        with self._lock:
            self._check_fork()
            if self._reader is None or self._reader.failed:
                windows = [task.rules.deduplicate_seconds for task in self._app.task_types.values()]
                self._reader = ResultReader(
                    self.clients, self._app.topics, self._app.codec, remembered_seconds=max(windows, default=None)
                )
            return self._reader

    def _transactional_spawner(self) -> Spawner:
        """One for this transaction alone: as many are kept as there have been at once."""
        with self._lock:
            self._check_fork()
            if self._idle_spawners:
                return self._idle_spawners.popleft()
        return self._new_spawner(f"{self._app.topics.spawners}.{uuid.uuid4()}")

    def _new_spawner(self, transactional_id: str | None = None) -> Spawner:
        if self.event_detail is EventDetail.FULL and self._event_writer is None:
            self.clients.check(self._app.topics.events)  # a refusal of which events are not the reason
            try:
                self._event_writer = EventWriter.connect(self.clients, self._app.topics.events, self._app.codec)
            except (TopicMismatch, AccessDenied) as error:
                sentence = str(error).removesuffix(".")
                raise type(error)(f"{sentence}. Or go without: Kantoku(..., events='off').") from error
        return Spawner(self.clients, transactional_id=transactional_id, **self._timeouts)

    def _check_fork(self) -> None:
        if self._pid is None:
            self._pid = os.getpid()
        elif self._pid != os.getpid():
            raise KantokuError("This Kantoku was used before the fork; make a new one in the child process.")

    def _send(self, task: Task, spawner: Spawner, failures: Failures, tickets: list[Ticket]) -> Spawned:
        ctx, message = prepare(self._app, task)
        spawned = Spawned(self, ctx.id, message.topic, ctx.log, failures)
        event = None if self._event_writer is None else self._event_writer.message(spawned_event(ctx))
        if event is not None:
            spawned.refused = partial(_take_back, spawner, event)
        spawner.send(message, spawned)
        tickets.append(spawned)
        if event is not None:
            # Within a transaction one record that is refused refuses all.
            ticket = Ticket(event.topic, failures if spawner.transactional else self._event_failures)
            self._log_spawned(spawner, event, ticket)
            tickets.append(ticket)
        if ctx.hooks.after_scheduled:
            run_after(ctx.hooks.after_scheduled, ctx)
        return spawned

    def _log_spawned(self, spawner: Spawner, event: Message, ticket: Ticket) -> None:
        """The task is on its way already: what becomes of its event does not change that."""
        try:
            spawner.send(event, ticket)
        except KantokuError as error:
            if spawner.transactional:
                raise
            ticket.settled = True
            self._warn_of(error)
        if self._event_failures:
            try:
                spawner.check(self._event_failures)
            except KantokuError as error:
                self._warn_of(error)

    def _warn_of(self, error: KantokuError) -> None:
        if self._warnings.passes("event_lost") is not None:
            _log.warning("the event that a task was spawned is missing: %s", error, extra={"action": "event_lost"})


def _take_back(spawner: Spawner, event: Message) -> None:
    """A task that was refused was not spawned. The events topic takes what it may: this is not worth an error."""
    with suppress(KantokuError):
        spawner.send((event.topic, event.key, None, (), event.partition), Ticket(event.topic, []))
