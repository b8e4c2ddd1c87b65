"""Puts an executor process together: the parts, by their settings, around the loop."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Iterable, Mapping

from kantoku_kafka.app import Kantoku, TaskType, check_pool
from kantoku_kafka.engine.checkpoint import Checkpoint
from kantoku_kafka.engine.loop import Loop, PoolBinding
from kantoku_kafka.engine.scheduler import Scheduler
from kantoku_kafka.errors import UsageError
from kantoku_kafka.invoke import Invoker
from kantoku_kafka.kafka.inputs import KafkaInputs, transactional_id
from kantoku_kafka.kafka.outputs import EventWriter, KafkaEvents, KafkaOutputs, NoEvents
from kantoku_kafka.kafka.topics import max_message_bytes, partition_count
from kantoku_kafka.kafka.transaction import ExactlyOnceTransaction, PlainTransaction
from kantoku_kafka.pools.aio import AsyncioExecutor
from kantoku_kafka.pools.hello import Hello
from kantoku_kafka.pools.inline import InlineExecutor
from kantoku_kafka.pools.processes import ProcessExecutor
from kantoku_kafka.pools.threads import ThreadExecutor
from kantoku_kafka.protocols import EXACTLY_ONCE, Events, Executor, Outputs
from kantoku_kafka.settings import EventDetail, ExecutorSettings, Guarantee, PoolKind
from kantoku_kafka.slots import Slot, executor_id

__all__ = ["ExecutorProcess"]

_log = logging.getLogger(__name__)
_ENVELOPE_BYTES = 1_024
_LARGEST_BATCH_BYTES = 1_000_000


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
        self._types = _chosen(kantoku, task_types, self._settings.pool)
        self._reference = _checked_reference(self._types, reference)
        self._own_outputs = outputs
        self._own_events = events
        self.executor_id = executor_id()
        self._loop: Loop | None = None
        self._stop_asked = False

    def stop(self) -> None:
        """Drain and end :meth:`run`. May be called from any thread or signal handler, at any time."""
        self._stop_asked = True
        if self._loop is not None:
            self._loop.stop()

    def run(self) -> None:
        """Connect, and execute tasks until :meth:`stop`. Blocks; call it once."""
        self._slot = Slot.take(self._settings.slot, self._kantoku.namespace)
        try:
            self._run()
        finally:
            self._slot.release()

    def _run(self) -> None:
        kantoku, settings, topics = self._kantoku, self._settings, self._kantoku.topics
        clients = kantoku.clients
        clients.check()
        for name in self._types:
            partition_count(clients, topics.of_type(name))
        own_topics = [topics.results, topics.dlq]
        if settings.events is not EventDetail.OFF:
            own_topics.append(topics.events)
        for topic in own_topics:
            partition_count(clients, topic)
        limits = max_message_bytes(clients, own_topics)
        inputs = KafkaInputs(
            clients,
            topics,
            slot=self._slot.name,
            static=self._slot.explicit,
            group_protocol=settings.group_protocol,
            exactly_once=settings.guarantee is Guarantee.EXACTLY_ONCE,
            timeout_seconds=settings.timeout_seconds,
        )
        batch_size_bytes = min(_LARGEST_BATCH_BYTES, *limits.values())
        transaction: ExactlyOnceTransaction | PlainTransaction
        if settings.guarantee is Guarantee.EXACTLY_ONCE:
            transaction = ExactlyOnceTransaction(
                clients,
                consumer=inputs.consumer,
                group_metadata=inputs.group_metadata,
                transactional_id=transactional_id(topics, self._slot.name),
                on_fenced=self._on_fenced,
                own_topics=own_topics,
                batch_size_bytes=batch_size_bytes,
                timeout_seconds=settings.timeout_seconds,
            )
        else:
            transaction = PlainTransaction(
                clients,
                consumer=inputs.consumer,
                own_topics=own_topics,
                batch_size_bytes=batch_size_bytes,
                timeout_seconds=settings.timeout_seconds,
            )
        limit = limits[topics.results]
        outputs = self._own_outputs or KafkaOutputs(
            transaction, topics.results, kantoku.codec, limit - min(_ENVELOPE_BYTES, limit // 2)
        )
        events = self._own_events or (
            NoEvents()
            if settings.events is EventDetail.OFF
            else KafkaEvents(transaction, EventWriter.connect(clients, topics.events, kantoku.codec))
        )
        self._announce(outputs, events, transaction.promise)
        self._loop = Loop(
            inputs=inputs,
            checkpoint=Checkpoint(
                outputs=outputs,
                events=events,
                transaction=transaction,
                detail=settings.events,
                executor_id=self.executor_id,
                slot=self._slot.name,
            ),
            codec=kantoku.codec,
            pools=self._pools(),
            dead_letter_topic=topics.dlq,
            settings=settings,
        )
        if self._stop_asked:
            self._loop.stop()
        daemons_end = self._start_daemons()
        try:
            self._loop.run()
        finally:
            daemons_end.set()
            transaction.close()
            inputs.close()

    def _pools(self) -> dict[str, PoolBinding]:
        """One pool of each kind that is used, and one scheduler for the types in it."""
        invoker = Invoker(self._kantoku)
        bindings: dict[str, PoolBinding] = {}
        for kind in {task.pool for task in self._types.values()}:
            members = {name: task for name, task in self._types.items() if task.pool is kind}
            executor = self._pool(kind, invoker, members)
            scheduler = Scheduler({name: task.limits for name, task in members.items()})
            binding = PoolBinding(executor, scheduler, self._settings.concurrency + executor.backlog)
            bindings |= dict.fromkeys(members, binding)
        return bindings

    def _pool(self, kind: PoolKind, invoker: Invoker, task_types: Iterable[str]) -> Executor:
        if kind is PoolKind.INLINE:
            return InlineExecutor(invoker)
        if kind is PoolKind.ASYNCIO:
            return AsyncioExecutor(invoker, self._settings.concurrency)
        if kind is PoolKind.PROCESS:
            assert self._reference is not None, "checked by the constructor"
            return ProcessExecutor(Hello.of(self._kantoku, self._reference, task_types), self._settings.concurrency)
        return ThreadExecutor(invoker, self._settings.concurrency)

    def _on_fenced(self) -> str:
        """Another producer took our transactional id, or the broker gave up on us: which id to go on with."""
        if not self._slot.explicit:
            self._slot = self._slot.elsewhere()
            _log.warning("fenced: moving to slot %s", self._slot.name, extra={"action": "fenced"})
        else:
            _log.warning("fenced in slot %s: starting a new epoch", self._slot.name, extra={"action": "fenced"})
        return transactional_id(self._kantoku.topics, self._slot.name)

    def _announce(self, outputs: Outputs, events: Events, promise: str) -> None:
        topics = self._kantoku.topics
        _log.info(
            "executor %s, slot %s, group %s, types %s, results %s",
            self.executor_id,
            self._slot.name,
            topics.group,
            ", ".join(sorted(self._types)),
            promise,
            extra={"action": "started"},
        )
        if promise == EXACTLY_ONCE:
            for name, part in (("Outputs", outputs), ("Events", events)):
                if part.promise != EXACTLY_ONCE:
                    _log.warning(
                        "%s %s cannot share the transaction: what it holds is %s; it must tolerate repeats by task id",
                        name,
                        type(part).__name__,
                        part.promise,
                        extra={"action": "promise"},
                    )

    def _start_daemons(self) -> threading.Event:
        end = threading.Event()
        for plugin in self._kantoku.plugins:
            for daemon in plugin.daemons():
                threading.Thread(target=daemon, args=(end,), name="kantoku-daemon", daemon=True).start()
        return end


def _chosen(kantoku: Kantoku, names: Iterable[str] | None, pool: PoolKind | None) -> Mapping[str, TaskType]:
    registered = kantoku.task_types
    chosen = list(names) if names is not None else list(registered)
    if not chosen:
        raise UsageError("The app has no task types: register one with @kan.task('name').")
    for name in chosen:
        if name not in registered:
            raise UsageError(f"Task type {name!r} is not registered; there are: {', '.join(sorted(registered))}.")
    types = {name: registered[name] for name in chosen}
    if pool is not None:
        for name, task in types.items():
            check_pool(name, pool, is_async=inspect.iscoroutinefunction(task.function))
        types = {name: _in_pool(task, pool) for name, task in types.items()}
    return types


def _checked_reference(types: Mapping[str, TaskType], reference: str | None) -> str | None:
    name = next((name for name, task in types.items() if task.pool is PoolKind.PROCESS), None)
    if name is not None and reference is None:
        raise UsageError(
            f"Task {name!r} runs in pool 'process', whose children import the app themselves: "
            "say where it is, ExecutorProcess(..., reference='module:attribute')."
        )
    return reference


def _in_pool(task: TaskType, pool: PoolKind) -> TaskType:
    return TaskType(
        name=task.name,
        function=task.function,
        pool=pool,
        limits=task.limits,
        takes_context=task.takes_context,
    )
