"""What dead members leave behind: open transactions are ended, where their partitions stand is read."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException

from kantoku_kafka.errors import KantokuError
from kantoku_kafka.job import Offset, Place
from kantoku_kafka.kafka.clients import Clients
from kantoku_kafka.kafka.codes import PASSING, UNSTABLE
from kantoku_kafka.kafka.committed import observer, offsets_of
from kantoku_kafka.kafka.group import describe, slot_of
from kantoku_kafka.kafka.membership import writer_of
from kantoku_kafka.kafka.transaction import end_transaction_of

__all__ = ["Takeover", "names", "transactional_id"]

_log = logging.getLogger(__name__)
_PATIENCE_SECONDS, _ASK_AGAIN_SECONDS, _MOST_SECONDS = 1.0, 0.1, 60.0
_NOT_YET = PASSING | UNSTABLE | {KafkaError.STALE_MEMBER_EPOCH}


class Takeover:
    """Reads committed offsets on behalf of one slot. The loop thread owns it; :meth:`members` is thread-safe.

    Parameters:
        clients: the connection.
        group: whose members these are.
        slot: ours.
        exactly_once: whether offsets come by transactions, which a dead member may have left open.
        timeout_seconds: for one request to Kafka.
    """

    def __init__(self, clients: Clients, group: str, *, slot: str, exactly_once: bool, timeout_seconds: float) -> None:
        self._clients = clients
        self._group = group
        self._slot = slot
        self._exactly_once = exactly_once
        self._timeout_seconds = timeout_seconds

    @property
    def client_id(self) -> str:
        """By which the other members know our slot."""
        return f"{self._clients.client_id}/{self._slot}"

    def members(self) -> dict[str, str]:
        """Slot by member id of the group's present members. Raises KantokuError."""
        return {member.member_id: slot_of(member.client_id) for member in describe(self._clients, self._group).members}

    def committed(self, consumer: Consumer, places: Sequence[Place]) -> list[Offset]:
        """Offsets and metadata as of the last checkpoint; ends what a dead member left open.

        An open transaction that holds offsets already makes the read wait; one that has only records in it does
        not, but keeps the results behind it from every reader.

        Raises:
            BrokerUnavailable: they could not be read for a minute.
        """
        patience = _PATIENCE_SECONDS
        deadline = time.monotonic() + _MOST_SECONDS
        while True:
            try:
                found = offsets_of(consumer, places, patience)
            except KafkaException as error:
                if error.args[0].code() not in _NOT_YET or time.monotonic() > deadline:
                    raise self._clients.error(error.args[0], "reading the committed offsets") from error
            else:
                self._end_transactions(found)
                return found
            _log.info("waiting for the offsets of %s", names(places), extra={"action": "unstable_offsets"})
            self._end_transactions(self.peek(places))
            patience = self._timeout_seconds
            time.sleep(_ASK_AGAIN_SECONDS)

    def peek(self, places: Sequence[Place]) -> list[Offset]:
        """What was committed, whatever transaction is open; nothing if it cannot be read."""
        try:
            with observer(self._clients, self._group, settled=False) as consumer:
                return offsets_of(consumer, places, self._timeout_seconds)
        except KafkaException as error:
            _log.warning("takeover failed, waiting instead: %s", error, extra={"action": "takeover_failed"})
            return []

    def _end_transactions(self, committed: Iterable[Offset]) -> None:
        """The metadata name their writer. If it is gone, a new epoch of its id ends its transaction."""
        writers = map(writer_of, committed)
        slots = {writer.slot for writer in writers if writer is not None} - {self._slot}
        if not slots or not self._exactly_once:
            return
        try:
            for slot in slots - set(self.members().values()):
                _log.warning("ending what slot %s may have left open", slot, extra={"action": "takeover"})
                end_transaction_of(self._clients, transactional_id(self._group, slot), self._timeout_seconds)
        except (KafkaException, KantokuError) as error:
            _log.warning("takeover failed, waiting instead: %s", error, extra={"action": "takeover_failed"})


def transactional_id(group: str, slot: str) -> str:
    """The transactional id of a member: an ACL can name the prefix ``{ns}.executors.``."""
    return f"{group}.{slot}"


def names(places: Iterable[Place]) -> str:
    """For the log."""
    return ", ".join(f"{topic}[{number}]" for topic, number in places) or "nothing"
