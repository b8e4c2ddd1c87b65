"""A member of a consumer group, and the transaction that commits its offsets: both go by one slot."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from kantoku_kafka.engine.checkpoint import Checkpoint
from kantoku_kafka.errors import SlotTaken
from kantoku_kafka.kafka.clients import Clients
from kantoku_kafka.kafka.committed import CommittedOffsets
from kantoku_kafka.kafka.inputs import KafkaInputs
from kantoku_kafka.kafka.outputs import EventWriter, KafkaEvents, KafkaOutputs, NoEvents
from kantoku_kafka.kafka.statistics import Watch
from kantoku_kafka.kafka.takeover import transactional_id
from kantoku_kafka.kafka.topics import max_message_bytes
from kantoku_kafka.kafka.transaction import ExactlyOnceTransaction, PlainTransaction
from kantoku_kafka.meter import UNMETERED, Meters
from kantoku_kafka.names import Topics
from kantoku_kafka.protocols import Codec, Events, Outputs
from kantoku_kafka.settings import EventDetail, ExecutorSettings, Guarantee
from kantoku_kafka.slots import Slot

__all__ = ["Member"]

_log = logging.getLogger(__name__)
_ENVELOPE_BYTES = 1_024
_LARGEST_BATCH_BYTES = 1_000_000


class Member:
    """Connects when it is made. Its parts belong to the threads that their own classes name.

    Parameters:
        clients: the connection.
        group: of which it is a member.
        slot: of this process.
        settings: of the executor.
        own_topics: without these nothing can go on.
        tells_ends, foreign: as of :class:`~kantoku_kafka.kafka.inputs.KafkaInputs`.
        meters: who is told of its consumer, its checkpoints and its fences.

    Raises:
        SlotTaken, BrokerUnavailable, AccessDenied.
    """

    def __init__(
        self,
        clients: Clients,
        group: str,
        slot: Slot,
        settings: ExecutorSettings,
        own_topics: Sequence[str],
        *,
        tells_ends: bool = False,
        foreign: Mapping[str, int | None] = MappingProxyType({}),
        meters: Meters = UNMETERED,
    ) -> None:
        self._clients = clients
        self._group = group
        self._settings = settings
        self._meters = meters
        self.slot = slot
        self._committed = CommittedOffsets(clients, group, slot.name, settings.timeout_seconds)
        self.inputs = KafkaInputs(
            clients,
            group,
            slot=slot.name,
            static=slot.explicit,
            group_protocol=settings.group_protocol,
            exactly_once=settings.guarantee is Guarantee.EXACTLY_ONCE,
            timeout_seconds=settings.timeout_seconds,
            committed=self._committed,
            tells_ends=tells_ends,
            foreign=foreign,
            watch=Watch(clients, meters) if meters else None,
        )
        try:
            self._sizes = max_message_bytes(clients, own_topics)
            self.transaction = self._transaction(own_topics)
        except BaseException:
            self.inputs.close()
            raise

    def close(self) -> None:
        """Let go of the connections. Idempotent."""
        self.transaction.close()
        self.inputs.close()

    def checkpoint(self, outputs: Outputs, events: Events, executor_id: str) -> Checkpoint:
        """What publishes by this member's transaction."""
        return Checkpoint(
            outputs=outputs,
            events=events,
            transaction=self.transaction,
            detail=self._settings.events,
            executor_id=executor_id,
            writer=self.inputs.memberships.writer,
            meters=self._meters,
        )

    def outputs(self, topics: Topics, codec: Codec) -> KafkaOutputs:
        """Results, in this member's transaction."""
        limit_bytes = self._sizes[topics.results]
        max_data_bytes = limit_bytes - min(_ENVELOPE_BYTES, limit_bytes // 2)
        return KafkaOutputs(self.transaction, topics.results, codec, max_data_bytes)

    def events(self, topics: Topics, codec: Codec) -> Events:
        """Events, in this member's transaction, unless they are switched off. Raises TopicMismatch."""
        if self._settings.events is EventDetail.OFF:
            return NoEvents()
        return KafkaEvents(self.transaction, EventWriter.connect(self._clients, topics.events, codec))

    def _transaction(self, own_topics: Sequence[str]) -> ExactlyOnceTransaction | PlainTransaction:
        batch_size_bytes = min(_LARGEST_BATCH_BYTES, *self._sizes.values())
        timeout_seconds = self._settings.timeout_seconds
        if self._settings.guarantee is Guarantee.AT_LEAST_ONCE:
            return PlainTransaction(
                self._clients,
                store=self.inputs.store,
                own_topics=own_topics,
                batch_size_bytes=batch_size_bytes,
                timeout_seconds=timeout_seconds,
            )
        return ExactlyOnceTransaction(
            self._clients,
            group=self._group,
            memberships=self.inputs.memberships,
            committed=self._committed,
            transactional_id=transactional_id(self._group, self.slot.name),
            on_fenced=self._on_fenced,
            own_topics=own_topics,
            batch_size_bytes=batch_size_bytes,
            timeout_seconds=timeout_seconds,
        )

    def _on_fenced(self) -> str:
        """Another producer took our transactional id, or the broker gave up on us: which id to go on with."""
        self._meters.tell(lambda meter, loop: meter.fenced(loop))
        if self.slot.explicit and self.inputs.memberships.slot_is_taken():
            raise SlotTaken.of(self._group, self.slot.name)
        if not self.slot.explicit:
            self.slot = self.slot.elsewhere()
            _log.warning("fenced: moving to slot %s", self.slot.name, extra={"action": "fenced"})
        else:
            _log.warning("fenced in slot %s: starting a new epoch", self.slot.name, extra={"action": "fenced"})
        self.inputs.memberships.fenced(self.slot.name)
        return transactional_id(self._group, self.slot.name)
