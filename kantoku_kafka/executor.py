"""Puts an executor process together: the Kafka parts, by their settings, around the loop."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.metadata import version

from kantoku_kafka.app import Kantoku
from kantoku_kafka.bindings import bind_pools, chosen_types
from kantoku_kafka.engine.cancel import QUIET, STOP
from kantoku_kafka.engine.foreign import foreign_readers
from kantoku_kafka.engine.loop import Loop
from kantoku_kafka.engine.pools import Pools, Rate
from kantoku_kafka.kafka.clients import Clients
from kantoku_kafka.kafka.commands import Commands
from kantoku_kafka.kafka.drift import warn_of_losses
from kantoku_kafka.kafka.heartbeats import Pulse
from kantoku_kafka.kafka.history import KafkaHistory
from kantoku_kafka.kafka.member import Member
from kantoku_kafka.kafka.topics import partition_count, plan
from kantoku_kafka.meter import TASKS, Meters, Vitals
from kantoku_kafka.model import Command, Heartbeat, now_us
from kantoku_kafka.protocols import EXACTLY_ONCE, Events, Outputs, TaskReader
from kantoku_kafka.registry.envelopes import RegistryCodec
from kantoku_kafka.registry.payload import RegistryAvro
from kantoku_kafka.settings import ExecutorSettings
from kantoku_kafka.signing.guard import Guard
from kantoku_kafka.slots import Slot, executor_id, host
from kantoku_kafka.timing import TimerService, own_topics, vitals_of

__all__ = ["ExecutorProcess"]

_log = logging.getLogger(__name__)


class ExecutorProcess:
    """One executor: a member of the group that runs an app's tasks.

    Parameters:
        kantoku: the app.
        settings: see :class:`~kantoku_kafka.settings.ExecutorSettings`.
        task_types: which types to serve; default all that are registered.
        outputs, events: the user's own instead of Kafka's; the log then says which promise is left.
        reference: the app as ``module:attribute``, by which the children of pool ``process`` import it.

    Raises (constructor or :meth:`run`):
        UsageError, SlotTaken, BrokerUnavailable, AccessDenied, TopicMismatch.
    """

    def __init__(
        self,
        kantoku: Kantoku,
        settings: ExecutorSettings | None = None,
        *,
        task_types: Iterable[str] | None = None,
        outputs: Outputs | None = None,
        events: Events | None = None,
        reference: str | None = None,
    ) -> None:
        self._kantoku = kantoku
        self._settings = settings or ExecutorSettings()
        self._types = chosen_types(kantoku, task_types, self._settings.pool, reference)
        self._inputs = frozenset(topic for task in self._types.values() for topic in task.inputs(kantoku.topics))
        self._from_topics = {name: task.from_topics for name, task in self._types.items()}
        self._reference = reference
        self._own_outputs = outputs
        self._own_events = events
        self.executor_id = executor_id()
        self._loop: Loop | None = None
        self._stop_asked = False
        self._started_at_us = now_us()

    def stop(self) -> None:
        """Drain and end :meth:`run`. May be called from any thread or signal handler, at any time."""
        self._stop_asked = True
        if self._loop is not None:
            self._loop.stop()

    @property
    def running(self) -> bool:
        """Whether :meth:`run` has connected: from then on :meth:`stop` drains."""
        return self._loop is not None

    def vitals(self) -> Vitals:
        """How it is. May be called from any thread, at any time."""
        return vitals_of(self._loop, self._kantoku)

    def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Connect, and execute tasks until :meth:`stop`. Blocks; call it once.

        Parameters:
            on_ready: called once, when broker and topics are found to be there and the pools have started.
        """
        kantoku, settings, clients = self._kantoku, self._settings, self._kantoku.clients
        with ExitStack() as ending:
            slot = Slot.take(settings.slot, kantoku.namespace)
            ending.callback(slot.release)
            own = own_topics(kantoku, settings)
            self._check_topics(clients, [*own, kantoku.topics.schedules] if settings.timers else own)
            foreign = foreign_readers(self._from_topics, kantoku.topics, kantoku.codec)
            self._ask_registries()
            meters = Meters(kantoku.meters, TASKS)
            member = Member(
                clients,
                kantoku.topics.group,
                slot,
                settings,
                own,
                tells_ends=settings.burst,
                foreign={topic: reader.format.since_ms for topic, reader in foreign.items()},
                meters=meters,
            )
            ending.callback(member.close)
            outputs = self._own_outputs or member.outputs(kantoku.topics, kantoku.codec)
            events = self._own_events or member.events(kantoku.topics, kantoku.codec)
            self._announce(slot, outputs, events, member.transaction.promise)
            checkpoint = member.checkpoint(outputs, events, self.executor_id)
            self._loop = Loop(
                inputs=member.inputs,
                checkpoint=checkpoint,
                codec=kantoku.codec,
                pools=Pools(bind_pools(kantoku, self._types, settings, self._reference), self._rates(clients)),
                rules={name: task.rules for name, task in self._types.items()},
                input_topics=self._inputs,
                topics=kantoku.topics,
                settings=settings,
                history=self._history(clients),
                readers={**self._own_readers(), **foreign},
                meters=meters,
                guard=Guard.of(kantoku),
            )
            if self._stop_asked:
                self._loop.stop()
            ending.enter_context(_daemons(kantoku))
            ending.enter_context(self._pulse(clients, member, self._loop, meters))
            listeners: list[Callable[[Sequence[Command]], None]] = [self._steer, self._loop.command]
            if settings.timers:
                listeners.append(ending.enter_context(self._timers(slot, self._loop)).command)
            ending.enter_context(Commands(clients, kantoku.topics.control, partial(_tell, listeners)))
            for hook in kantoku.startup_hooks:
                hook()
            self._loop.run(on_ready)
            for hook in kantoku.shutdown_hooks:
                hook()

    def _ask_registries(self) -> None:
        """Schema registries of the app have to answer now, and to have what is to be written."""
        codec, topics = self._kantoku.codec, self._kantoku.topics
        if isinstance(codec, RegistryCodec) and codec.at_start:
            codec.open(topics, self._kantoku.inputs)
        for task in self._types.values():
            for payload, to_write in zip(task.payloads, (False, True), strict=False):
                if isinstance(payload, RegistryAvro):
                    payload.open(to_write=to_write)

    def _own_readers(self) -> Mapping[str, TaskReader]:
        """Of our own inputs, if others may write to them in the forms of a registry."""
        codec = self._kantoku.codec
        return dict.fromkeys(self._inputs, codec.read) if isinstance(codec, RegistryCodec) else {}

    def _check_topics(self, clients: Clients, own: Iterable[str]) -> None:
        """Fail now if there is no broker or no topic."""
        clients.check()
        types = self._types.values()
        replies = {task.rules.reply_to for task in types if task.rules.reply_to is not None}
        foreign = replies.union(*(task.from_topics for task in types))
        for topic in [*sorted(self._inputs | replies), *own]:
            partition_count(clients, topic, foreign=topic in foreign)
        warn_of_losses(clients, plan(self._kantoku.topics, [], inputs=self._inputs - foreign))

    def _history(self, clients: Clients) -> KafkaHistory:
        """It may take half of the time after which the group would take us for dead."""
        most_seconds = clients.connection.max_poll_seconds / 2
        window_seconds = max((task.rules.deduplicate_seconds for task in self._types.values()), default=0.0)
        topics, codec = self._kantoku.topics, self._kantoku.codec
        return KafkaHistory(clients, topics, codec, window_seconds=window_seconds, most_seconds=most_seconds)

    def _rates(self, clients: Clients) -> dict[str, Rate]:
        rates = {}
        for name, task in self._types.items():
            if task.limits.rate_per_second is not None:
                inputs = task.inputs(self._kantoku.topics)
                partitions = sum(partition_count(clients, topic) for topic in inputs)
                rates[name] = Rate(task.limits.rate_per_second, inputs.keys(), partitions)
        return rates

    @contextmanager
    def _timers(self, slot: Slot, loop: Loop) -> Iterator[TimerService]:
        """The timers in a thread of their own; without them the executor does not go on."""
        service = TimerService(self._kantoku, self._settings, slot, self.executor_id, yields=True)
        failed: list[BaseException] = []

        def run() -> None:
            try:
                service.run()
            except BaseException as error:  # noqa: BLE001 - raised again where run() was called
                failed.append(error)
                loop.stop()

        thread = threading.Thread(target=run, name="kantoku-timers")
        thread.start()
        try:
            yield service
        finally:
            service.stop()
            thread.join()
        if failed:
            raise failed[0]

    def _pulse(self, clients: Clients, member: Member, loop: Loop, meters: Meters) -> Pulse:
        """Says what this executor is and does, now and then."""
        settings, started_at_us, release = self._settings, self._started_at_us, version("kantoku-kafka")
        attributes = {
            "guarantee": str(settings.guarantee),
            "events": str(settings.events),
            "concurrency": str(settings.concurrency),
        }

        def take() -> Heartbeat:
            return Heartbeat(
                executor_id=self.executor_id,
                slot=member.slot.name,
                host=host(),
                pid=os.getpid(),
                version=release,
                started_at_us=started_at_us,
                at_us=now_us(),
                interval_ms=round(1000 * settings.heartbeat_seconds),
                draining=loop.stopping,
                in_flight=loop.running_by_type(),
                attributes=attributes,
            )

        topic, seconds = self._kantoku.topics.control, settings.heartbeat_seconds
        return Pulse(clients, topic, take, interval_seconds=seconds, meters=meters)

    def _steer(self, commands: Sequence[Command]) -> None:
        """Quiet or stop, if that is meant for this process."""
        for command in commands:
            ours = command.executor_id in (None, self.executor_id) and command.at_us >= self._started_at_us
            if ours and command.kind in (QUIET, STOP):
                if command.kind == STOP:
                    self.stop()
                elif self._loop is not None:
                    self._loop.quiet()
                _log.info("told to %s", command.kind, extra={"action": command.kind})

    def _announce(self, slot: Slot, outputs: Outputs, events: Events, promise: str) -> None:
        _log.info(
            "executor %s, slot %s, group %s, types %s, results %s",
            self.executor_id,
            slot.name,
            self._kantoku.topics.group,
            ", ".join(sorted(self._types)),
            promise,
            extra={"action": "started"},
        )
        if self._kantoku.seal is not None:
            _log.info("tasks are checked by %s", self._kantoku.seal, extra={"action": "seal"})
        for name, part in (("Outputs", outputs), ("Events", events)):
            if promise == EXACTLY_ONCE and part.promise != EXACTLY_ONCE:
                _log.warning(
                    "%s %s cannot share the transaction: what it holds is %s; it must tolerate repeats by task id",
                    name,
                    type(part).__name__,
                    part.promise,
                    extra={"action": "promise"},
                )


def _tell(listeners: Iterable[Callable[[Sequence[Command]], None]], commands: Sequence[Command]) -> None:
    for listener in listeners:
        listener(commands)


@contextmanager
def _daemons(kantoku: Kantoku) -> Iterator[None]:
    """The background jobs of plugins, each in a thread, for as long as the executor runs."""
    end = threading.Event()
    for plugin in kantoku.plugins:
        for daemon in plugin.daemons():
            threading.Thread(target=daemon, args=(end,), name="kantoku-daemon", daemon=True).start()
    try:
        yield
    finally:
        end.set()
