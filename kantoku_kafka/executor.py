"""Puts an executor process together: the Kafka parts, by their settings, around the loop."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version

from kantoku_kafka.app import Kantoku
from kantoku_kafka.bindings import bind_pools, chosen_types
from kantoku_kafka.engine.checkpoint import Checkpoint
from kantoku_kafka.engine.loop import Loop
from kantoku_kafka.errors import SlotTaken
from kantoku_kafka.kafka.channel import Channel
from kantoku_kafka.kafka.config import Clients
from kantoku_kafka.kafka.heartbeats import Pulse
from kantoku_kafka.kafka.inputs import KafkaInputs
from kantoku_kafka.kafka.outputs import EventWriter, KafkaEvents, KafkaOutputs, NoEvents
from kantoku_kafka.kafka.takeover import transactional_id
from kantoku_kafka.kafka.topics import max_message_bytes, partition_count
from kantoku_kafka.kafka.transaction import ExactlyOnceTransaction, PlainTransaction
from kantoku_kafka.model import Heartbeat, now_us
from kantoku_kafka.protocols import EXACTLY_ONCE, Events, Outputs
from kantoku_kafka.settings import EventDetail, ExecutorSettings, Guarantee
from kantoku_kafka.slots import Slot, executor_id, host

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
        self._types = chosen_types(kantoku, task_types, self._settings.pool, reference)
        self._reference = reference
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

    @property
    def running(self) -> bool:
        """Whether :meth:`run` has connected: from then on :meth:`stop` drains."""
        return self._loop is not None

    def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Connect, and execute tasks until :meth:`stop`. Blocks; call it once.

        Parameters:
            on_ready: called once, when broker and topics are found to be there.
        """
        kantoku, settings, clients = self._kantoku, self._settings, self._kantoku.clients
        with ExitStack() as ending:
            self._slot = Slot.take(settings.slot, kantoku.namespace)
            ending.callback(lambda: self._slot.release())
            own_topics = self._check_topics(clients)
            inputs = KafkaInputs(
                clients,
                kantoku.topics,
                slot=self._slot.name,
                static=self._slot.explicit,
                group_protocol=settings.group_protocol,
                exactly_once=settings.guarantee is Guarantee.EXACTLY_ONCE,
                timeout_seconds=settings.timeout_seconds,
            )
            ending.callback(inputs.close)
            sizes = max_message_bytes(clients, own_topics)
            transaction = self._transaction(clients, inputs, own_topics, min(_LARGEST_BATCH_BYTES, *sizes.values()))
            ending.callback(transaction.close)
            outputs = self._own_outputs or self._outputs(transaction, sizes[kantoku.topics.results])
            events = self._own_events or self._events(transaction, clients)
            self._announce(outputs, events, transaction.promise)
            checkpoint = Checkpoint(
                outputs=outputs,
                events=events,
                transaction=transaction,
                detail=settings.events,
                executor_id=self.executor_id,
                writer=inputs.writer,
            )
            self._loop = Loop(
                inputs=inputs,
                checkpoint=checkpoint,
                codec=kantoku.codec,
                pools=bind_pools(kantoku, self._types, settings.concurrency, self._reference),
                dead_letter_topic=kantoku.topics.dlq,
                settings=settings,
            )
            if self._stop_asked:
                self._loop.stop()
            ending.enter_context(_daemons(kantoku))
            ending.enter_context(self._pulse(clients, self._loop))
            on_ready()
            self._loop.run()

    def _check_topics(self, clients: Clients) -> list[str]:
        """Fail now if there is no broker or no topic. Answers the topics that every checkpoint may write to."""
        topics = self._kantoku.topics
        clients.check()
        own = [topics.results, topics.dlq]
        if self._settings.events is not EventDetail.OFF:
            own.append(topics.events)
        for topic in [*map(topics.of_type, self._types), *own]:
            partition_count(clients, topic)
        return own

    def _transaction(
        self, clients: Clients, inputs: KafkaInputs, own_topics: list[str], batch_size_bytes: int
    ) -> ExactlyOnceTransaction | PlainTransaction:
        if self._settings.guarantee is Guarantee.AT_LEAST_ONCE:
            return PlainTransaction(
                clients,
                store=inputs.store,
                own_topics=own_topics,
                batch_size_bytes=batch_size_bytes,
                timeout_seconds=self._settings.timeout_seconds,
            )
        return ExactlyOnceTransaction(
            clients,
            group=self._kantoku.topics.group,
            memberships=inputs,
            transactional_id=transactional_id(self._kantoku.topics, self._slot.name),
            on_fenced=lambda: self._on_fenced(inputs),
            own_topics=own_topics,
            batch_size_bytes=batch_size_bytes,
            timeout_seconds=self._settings.timeout_seconds,
        )

    def _outputs(self, transaction: Channel, limit_bytes: int) -> KafkaOutputs:
        max_data_bytes = limit_bytes - min(_ENVELOPE_BYTES, limit_bytes // 2)
        return KafkaOutputs(transaction, self._kantoku.topics.results, self._kantoku.codec, max_data_bytes)

    def _events(self, transaction: Channel, clients: Clients) -> Events:
        if self._settings.events is EventDetail.OFF:
            return NoEvents()
        writer = EventWriter.connect(clients, self._kantoku.topics.events, self._kantoku.codec)
        return KafkaEvents(transaction, writer)

    def _pulse(self, clients: Clients, loop: Loop) -> Pulse:
        """Says what this executor is and does, now and then."""
        settings, started_at_us, release = self._settings, now_us(), version("kantoku-kafka")
        attributes = {
            "guarantee": str(settings.guarantee),
            "events": str(settings.events),
            "concurrency": str(settings.concurrency),
        }

        def take() -> Heartbeat:
            return Heartbeat(
                executor_id=self.executor_id,
                slot=self._slot.name,
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

        return Pulse(clients, self._kantoku.topics.control, take, interval_seconds=settings.heartbeat_seconds)

    def _on_fenced(self, inputs: KafkaInputs) -> str:
        """Another producer took our transactional id, or the broker gave up on us: which id to go on with."""
        if self._slot.explicit and inputs.slot_is_taken():
            raise SlotTaken.of(self._kantoku.topics.group, self._slot.name)
        if not self._slot.explicit:
            self._slot = self._slot.elsewhere()
            _log.warning("fenced: moving to slot %s", self._slot.name, extra={"action": "fenced"})
        else:
            _log.warning("fenced in slot %s: starting a new epoch", self._slot.name, extra={"action": "fenced"})
        inputs.fenced(self._slot.name)
        return transactional_id(self._kantoku.topics, self._slot.name)

    def _announce(self, outputs: Outputs, events: Events, promise: str) -> None:
        _log.info(
            "executor %s, slot %s, group %s, types %s, results %s",
            self.executor_id,
            self._slot.name,
            self._kantoku.topics.group,
            ", ".join(sorted(self._types)),
            promise,
            extra={"action": "started"},
        )
        for name, part in (("Outputs", outputs), ("Events", events)):
            if promise == EXACTLY_ONCE and part.promise != EXACTLY_ONCE:
                _log.warning(
                    "%s %s cannot share the transaction: what it holds is %s; it must tolerate repeats by task id",
                    name,
                    type(part).__name__,
                    part.promise,
                    extra={"action": "promise"},
                )


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
