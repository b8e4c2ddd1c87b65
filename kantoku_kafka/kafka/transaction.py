"""What makes a checkpoint durable: a Kafka transaction, or records followed by plain commits.

Never open while a task runs: begin, stage, commit within one turn of the loop. Sources: KIP-98, KIP-447;
A producer whose commit was slow is replaced, see :mod:`kantoku_kafka.kafka.late_requests`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from kantoku_kafka.errors import AccessDenied, BrokerUnavailable, KantokuError, SlotTaken
from kantoku_kafka.job import Offset
from kantoku_kafka.kafka.channel import Channel
from kantoku_kafka.kafka.clients import Clients
from kantoku_kafka.kafka.codes import PASSING, kantoku_error
from kantoku_kafka.kafka.committed import CommittedOffsets
from kantoku_kafka.kafka.late_requests import BACKOFF, may_be_under_way
from kantoku_kafka.one_thread import OneThread
from kantoku_kafka.protocols import AT_LEAST_ONCE, EXACTLY_ONCE, CheckpointRefused

__all__ = ["ExactlyOnceTransaction", "PlainTransaction", "end_transaction_of"]

_log = logging.getLogger(__name__)
TRANSACTION_TIMEOUT_MS = 10_000
_OUTCOME_SECONDS, _ASK_AGAIN_SECONDS = 60.0, 0.5

# The fence held: the group has moved on, and the loop learns it at its next poll.
_FENCED_BY_GROUP = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.STALE_MEMBER_EPOCH,
        KafkaError.FENCED_MEMBER_EPOCH,
    }
)
# What ended a connection; whether the broker denies us, the next one tells.
_OF_A_CONNECTION = frozenset(
    {KafkaError._SSL, KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._RESOLVE}
)


class Memberships(Protocol):
    """Under which membership of the group offsets are committed. Thread-safe, does not block."""

    def shares(self, offsets: Sequence[Offset]) -> Sequence[tuple[Any, Sequence[Offset]]] | None:
        """The offsets by the group metadata to commit them with; None while there is no valid membership."""
        ...

    def refused(self, group_metadata: bytes) -> None:
        """The group took no commit with these."""
        ...


class ExactlyOnceTransaction(Channel):
    """One short Kafka transaction per checkpoint: records and offsets become visible together.

    Parameters:
        clients: the connection.
        group: whose offsets are committed.
        memberships: under which each offset is committed; they are the fence.
        committed: what is known to be.
        transactional_id: stable, so that a restart ends what a killed process left open.
        on_fenced: answers the id to go on with when another producer took ours; may raise SlotTaken.
        own_topics: results, events and dead letters: without these nothing can go on.
        batch_size_bytes: at most what the smallest own topic takes as one batch.
    """

    promise = EXACTLY_ONCE

    def __init__(
        self,
        clients: Clients,
        *,
        group: str,
        memberships: Memberships,
        committed: CommittedOffsets,
        transactional_id: str,
        on_fenced: Callable[[], str],
        own_topics: Iterable[str],
        batch_size_bytes: int,
        timeout_seconds: float,
    ) -> None:
        self._group = group
        self._memberships = memberships
        self._committed = committed
        self._transactional_id = transactional_id
        self._on_fenced = on_fenced
        self._open = False
        self._failing_since: float | None = None
        self._sender = OneThread("kantoku-offsets")
        super().__init__(clients, own_topics, batch_size_bytes, timeout_seconds)

    def begin(self) -> None:
        if self._tainted:
            self._replace_producer()
        self._forget_reports()
        try:
            self._producer.begin_transaction()
        except KafkaException as error:
            self._check_fenced(error.args[0])
            self._tainted = True
            raise CheckpointRefused(error.args[0].name()) from error
        self._open = True

    def commit(self, offsets: Sequence[Offset]) -> None:
        self._open = False  # who gives up on this call does not abort it from outside
        shares = self._memberships.shares(offsets)
        if shares is None:
            self._abort()
            raise CheckpointRefused("this executor is not a member of its group at the moment")
        committing = False
        started = time.monotonic()
        try:
            for group_metadata, share in shares:
                self._send_offsets(share, group_metadata)
            self._tainted = may_be_under_way(started)
            self._producer.flush(self._timeout_seconds)  # records may be sent twice: they are numbered
            try:
                self._check_reports()
            except KantokuError:
                self._abort()
                raise
            started = time.monotonic()
            committing = True
            self._producer.commit_transaction(self._timeout_seconds)
        except KafkaException as error:
            with suppress(KafkaException):  # a producer that has been fenced raises here as well
                self._producer.poll(0)  # delivery reports say which record it was
            if not self._settle(error.args[0], offsets, committing):
                return
            raise self._reason(error.args[0]) from error
        self._committed.note(offsets)
        self._tainted = self._tainted or may_be_under_way(started)

    def _send_offsets(self, offsets: Sequence[Offset], group_metadata: Any) -> None:
        """In a thread of its own: without an answer to that request the client never returns (librdkafka #5456)."""
        send, positions = self._producer.send_offsets_to_transaction, _positions(offsets)
        sent = self._sender.submit(send, positions, group_metadata, self._timeout_seconds)
        try:
            sent.result(self._timeout_seconds)
        except TimeoutError:
            self._sender.close()
            self._sender = OneThread("kantoku-offsets")
            self._tainted = True  # the next epoch ends this transaction, and fences what the call may still do
            raise CheckpointRefused("nobody answered the offsets of a checkpoint") from None
        except KafkaException as error:
            if error.args[0].code() in _FENCED_BY_GROUP:
                self._memberships.refused(group_metadata)
            raise

    def abort(self) -> None:
        """Give up what was staged since ``begin``."""
        if self._open:
            self._abort()

    def close(self) -> None:
        self.abort()
        self._sender.close()

    def _settle(self, error: KafkaError, offsets: Sequence[Offset], committing: bool) -> bool:
        """After a failure: make sure of the outcome. True if nothing became visible.

        That librdkafka wants it aborted says nothing once the end may have been sent: so it does when the
        coordinator's answer is lost, and its name or its certificate with it.
        """
        _log.info("checkpoint refused: %s", error, extra={"action": "checkpoint_refused"})
        if not committing:
            self._abort()
            self._tainted = True
            return True
        self._check_fenced(error)
        return not self._happened(offsets)

    def _happened(self, offsets: Sequence[Offset]) -> bool:
        """Whether a commit did that was not answered: a new epoch ends it, then the offsets tell. Blocks until then."""
        deadline = time.monotonic() + _OUTCOME_SECONDS
        while True:
            try:
                self._producer = self._connect()
                happened = self._committed.happened(offsets)
                self._check_alone()
                return happened
            except KantokuError as error:
                if not _passes(error):
                    raise
                if time.monotonic() > deadline:
                    raise BrokerUnavailable(
                        f"For {_OUTCOME_SECONDS:.0f} s no broker has told whether the last checkpoint was committed. "
                        "This executor ends; the next one, started when Kafka answers again, sees it in the offsets."
                    ) from error
                _log.warning("outcome of a commit unknown, asking again: %s", error, extra={"action": "outcome"})
                time.sleep(_ASK_AGAIN_SECONDS)

    def _abort(self) -> None:
        self._open = False
        started = time.monotonic()
        try:
            self._producer.abort_transaction(self._timeout_seconds)
            # After a refused record librdkafka's sequence numbers may not be those of the broker any more.
            self._tainted = self._tainted or may_be_under_way(started) or self._failed is not None
        except KafkaException as error:
            _log.info("abort failed, replacing the producer: %s", error, extra={"action": "abort_failed"})
            self._check_fenced(error.args[0])
            self._tainted = True

    def _check_fenced(self, error: KafkaError) -> None:
        if error.code() == KafkaError._FENCED:
            self._transactional_id = self._on_fenced()

    def _check_alone(self, *, settled: bool = True) -> None:
        """A new epoch fences whoever took our id since the last one, and does not say that there was somebody."""
        if self._committed.by_a_twin(settled=settled):
            self._transactional_id = self._on_fenced()

    def _reason(self, error: KafkaError) -> KantokuError:
        if error.code() == KafkaError.FENCED_INSTANCE_ID:
            return SlotTaken.of(self._group, self._transactional_id.removeprefix(f"{self._group}."))
        if self._failed is not None:
            return self._refused(*self._failed)
        if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED and (denied := self._denied()) is not None:
            return denied
        known = kantoku_error(error, "committing a checkpoint")
        passes = type(known) is KantokuError or error.code() in _OF_A_CONNECTION
        return CheckpointRefused(error.name()) if passes else known

    def _connect(self) -> Producer:
        producer = self._clients.producer(
            **{
                "transactional.id": self._transactional_id,
                "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
                **BACKOFF,
                **self._settings(),
            }
        )
        try:
            producer.init_transactions(self._timeout_seconds)
        except KafkaException as error:
            raise self._clients.error(error.args[0], f"starting transactions as {self._transactional_id}") from error
        self._tainted = False
        return producer

    def _replace_producer(self) -> None:
        self._tainted = True
        try:
            self._check_alone(settled=False)  # who has taken our place need not be fenced for it
            self._producer = self._connect()
            self._check_alone()
        except KantokuError as error:
            self._tainted = True
            if not _passes(error):
                raise
            now = time.monotonic()
            self._failing_since = self._failing_since or now
            if now > self._failing_since + _OUTCOME_SECONDS:
                self._failing_since = None
                self._clients.check_refused("replacing the producer of checkpoints")
            raise CheckpointRefused(str(error)) from error
        self._failing_since = None


class PlainTransaction(Channel):
    """At least once: the records are acknowledged first, then the offsets are committed.

    Parameters:
        store: takes the offsets to be committed; it must not block.
    """

    promise = AT_LEAST_ONCE

    def __init__(
        self,
        clients: Clients,
        *,
        store: Callable[[Sequence[Offset]], None],
        own_topics: Iterable[str],
        batch_size_bytes: int,
        timeout_seconds: float,
    ) -> None:
        self._store = store
        super().__init__(clients, own_topics, batch_size_bytes, timeout_seconds)

    def begin(self) -> None:
        if self._tainted:
            self._producer = self._connect()
        with suppress(KafkaException):  # what is reported now is of the last one
            self._producer.poll(0)
        self._forget_reports()

    def commit(self, offsets: Sequence[Offset]) -> None:
        try:
            self.probe()
        except KantokuError:
            self.abort()
            raise
        self._store(offsets)

    def abort(self) -> None:
        """What has left cannot be taken back; what has not is dropped, and staged again if it is still wanted."""
        self._producer.purge(in_flight=False, blocking=False)
        with suppress(KafkaException):  # a producer that is beyond help: begin() replaces it
            self._producer.poll(0)

    def close(self) -> None:
        """What was staged for a checkpoint that was given up does not leave any more."""
        self.abort()
        with suppress(KafkaException):
            self._producer.flush(self._timeout_seconds)

    def _connect(self) -> Producer:
        self._tainted = False
        return self._clients.producer(**self._settings())


def end_transaction_of(clients: Clients, transactional_id: str, timeout_seconds: float) -> None:
    """End the open transaction of a process that is gone, instead of waiting for the broker's timeout."""
    producer = clients.producer(
        **{"transactional.id": transactional_id, "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS}
    )
    producer.init_transactions(timeout_seconds)


def _passes(error: KantokuError) -> bool:
    """Whether no broker has said so itself: it may be that connections are cut amid the handshake."""
    cause = error.__cause__
    said = cause.args[0].code() if isinstance(cause, KafkaException) else None
    cut = isinstance(error, AccessDenied) and said in PASSING | _OF_A_CONNECTION
    return isinstance(error, BrokerUnavailable) or cut


def _positions(offsets: Sequence[Offset]) -> list[TopicPartition]:
    return [TopicPartition(o.topic, o.partition, o.offset, o.metadata) for o in offsets]
