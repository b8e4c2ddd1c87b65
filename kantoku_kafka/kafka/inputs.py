"""Inputs on Kafka: one group member, and the rules by which partitions come and go."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as KafkaMessage

from kantoku_kafka.engine import doneset
from kantoku_kafka.errors import KantokuError, SlotTaken
from kantoku_kafka.job import Job, Offset, Partition
from kantoku_kafka.kafka.config import UNREACHABLE, Clients, kantoku_error
from kantoku_kafka.kafka.transaction import end_transaction_of
from kantoku_kafka.model import Topics
from kantoku_kafka.protocols import Rebalance
from kantoku_kafka.settings import GroupProtocol

__all__ = ["KafkaInputs", "transactional_id"]

_log = logging.getLogger(__name__)
_PATIENCE_SECONDS = 1.0
_NO_GENERATION = b"\xff\xff\xff\xff"
# Passing states of the connection or the group: librdkafka goes on by itself.
_PASSING = UNREACHABLE | {
    KafkaError._PARTITION_EOF,
    KafkaError._MAX_POLL_EXCEEDED,
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.OFFSET_OUT_OF_RANGE,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError._AUTO_OFFSET_RESET,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
}


class KafkaInputs:
    """The input topics of some task types, shared with the other members of the group.

    The loop thread owns it; only :meth:`group_metadata` and :meth:`store` may be called from the publisher. They never
    touch the consumer: confluent-kafka lets one thread at a time into it, and a rebalance inside ``poll`` waits for
    the publisher.

    Parameters:
        clients: the connection.
        topics: names of the topics and of the group.
        slot: of this process, for the takeover of what a dead process of the same slot left.
        static: whether the slot is an explicit one: then the membership is static.
        exactly_once: whether offsets come by transactions, which a dead member may have left open.
        timeout_seconds: for one request to Kafka.
    """

    def __init__(
        self,
        clients: Clients,
        topics: Topics,
        *,
        slot: str,
        static: bool,
        group_protocol: GroupProtocol,
        exactly_once: bool,
        timeout_seconds: float,
    ) -> None:
        self._clients = clients
        self._topics = topics
        self._slot = slot
        self._exactly_once = exactly_once
        self._classic = group_protocol is GroupProtocol.CLASSIC
        self._static = static and self._classic
        self._timeout_seconds = timeout_seconds
        self._partitions: dict[tuple[str, int], Partition] = {}
        self._metadata: bytes | None = None
        self._stored: deque[Sequence[Offset]] = deque()
        self._closed = False
        self.consumer = clients.consumer(**self._member_config())

    def subscribe(self, task_types: Sequence[str], rebalance: Rebalance) -> None:
        self._rebalance = rebalance
        self.consumer.subscribe(
            [self._topics.of_type(task_type) for task_type in task_types],
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )

    def poll(self, max_jobs: int, timeout_seconds: float) -> list[Job]:
        # consume(n, timeout) would wait for n: the first record comes by poll, the rest is what is there.
        self._commit_stored()
        first = self.consumer.poll(timeout_seconds)
        if self._classic:
            self._metadata = self._fresh_metadata()
        if first is None:
            return []
        messages: list[Any] = [first]  # a consumed record without error has all its coordinates
        if max_jobs > 1:
            messages += self.consumer.consume(max_jobs - 1, 0)
        partitions = self._partitions
        jobs = []
        for message in messages:
            if message.error() is not None:
                self._on_error(message)
                continue
            partition = partitions.get((message.topic(), message.partition()))
            if partition is not None:
                jobs.append(Job(partition, message.offset(), message.key(), message.value() or b"", message.headers()))
        return jobs

    def pause(self, partitions: Iterable[Partition]) -> None:
        self.consumer.pause([TopicPartition(p.topic, p.number) for p in partitions])

    def resume(self, partitions: Iterable[Partition]) -> None:
        self.consumer.resume([TopicPartition(p.topic, p.number) for p in partitions])

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.consumer.close()

    def group_metadata(self) -> bytes | None:
        """What to commit with; None while there is no membership, for the broker would not fence such a commit.

        Classic brokers refuse every old generation, so it is that of the last poll. KIP-848 fences by the epoch in
        which a partition was assigned: what was valid after the last rebalance stays so for all that we hold.
        """
        return self._metadata

    def store(self, offsets: Sequence[Offset]) -> None:
        """Commit these outside of any transaction, with the next poll, or before the partitions go."""
        self._stored.append(offsets)

    # --- rebalances: librdkafka calls these from inside poll and close, on the loop thread

    def _on_assign(self, _: Consumer, assigned: list[TopicPartition]) -> None:
        positions = [
            Offset(p.topic, p.partition, self._start_of(p), p.metadata or "") for p in self._committed(assigned)
        ]
        for partition in self._rebalance.assigned(positions):
            self._partitions[partition.topic, partition.number] = partition
        self.consumer.incremental_assign([TopicPartition(p.topic, p.partition, p.offset) for p in positions])
        # Pauses outlive an assignment in librdkafka: begin with a clean state.
        self.consumer.resume([TopicPartition(p.topic, p.partition) for p in positions])
        self._metadata = self._fresh_metadata()
        _log.info("assigned %s", _names(assigned), extra={"action": "assigned"})

    def _on_revoke(self, _: Consumer, revoked: list[TopicPartition]) -> None:
        _log.info("revoked %s", _names(revoked), extra={"action": "revoked"})
        if self._classic:  # the group has a new generation by now
            self._metadata = self._fresh_metadata()
        self._rebalance.revoked(self._forget(revoked, keep=True))
        self._commit_stored(wait=True)
        self._forget(revoked)
        self._metadata = None

    def _on_lost(self, _: Consumer, lost: list[TopicPartition]) -> None:
        _log.warning("lost %s", _names(lost), extra={"action": "lost"})
        self._rebalance.lost(self._forget(lost))
        self._metadata = None

    def _forget(self, partitions: Iterable[TopicPartition], *, keep: bool = False) -> list[Partition]:
        take = self._partitions.get if keep else self._partitions.pop
        found = (take((p.topic, p.partition), None) for p in partitions)
        return [partition for partition in found if partition is not None]

    def _commit_stored(self, *, wait: bool = False) -> None:
        """Commit what was stored. A commit that fails is made up for by a later one: this promises at least once."""
        commit: Any = self.consumer.commit  # its stub knows either constant of asynchronous, but no bool
        while self._stored:
            positions = [TopicPartition(o.topic, o.partition, o.offset, o.metadata) for o in self._stored.popleft()]
            try:
                commit(offsets=positions, asynchronous=not wait)
            except KafkaException as error:
                _log.info("offsets were not committed: %s", error, extra={"action": "commit_refused"})

    def _committed(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        """Offsets and metadata as of the last checkpoint; ends what a dead member left open.

        An open transaction that holds offsets already makes the read wait; one that has only records in it does
        not, but keeps the results behind it from every reader.
        """
        patience = _PATIENCE_SECONDS
        while True:
            try:
                found = self._read_committed(self.consumer, partitions, patience)
            except KafkaException as error:
                if error.args[0].code() not in UNREACHABLE | _UNSTABLE:
                    raise self._clients.error(error.args[0], "reading the committed offsets") from error
            else:
                self._take_over(found, lambda writers: writers - self._live_slots())
                return found
            _log.info("waiting for the offsets of %s", _names(partitions), extra={"action": "unstable_offsets"})
            self._take_over(self._read_behind_transactions(partitions), lambda writers: writers)
            patience = self._timeout_seconds

    def _read_behind_transactions(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        """What was committed before the transaction that is open; nothing if it cannot be read either."""
        observer = self._clients.consumer(**{"group.id": self._topics.group, "isolation.level": "read_uncommitted"})
        try:
            return self._read_committed(observer, partitions, self._timeout_seconds)
        except KafkaException as error:
            _log.warning("takeover failed, waiting instead: %s", error, extra={"action": "takeover_failed"})
            return []
        finally:
            observer.close()

    def _take_over(self, committed: Iterable[TopicPartition], dead_among: Callable[[set[str]], set[str]]) -> None:
        """The metadata name the slot of their writer. If it is gone, a new epoch of its id ends its transaction."""
        done_sets = (doneset.decode(p.metadata, p.offset) for p in committed if p.metadata)
        writers = {done.slot for done in done_sets if done is not None} - {self._slot}
        if not writers or not self._exactly_once:
            return
        try:
            for slot in dead_among(writers):
                _log.warning("ending what slot %s may have left open", slot, extra={"action": "takeover"})
                end_transaction_of(self._clients, transactional_id(self._topics, slot), self._timeout_seconds)
        except KafkaException as error:
            _log.warning("takeover failed, waiting instead: %s", error, extra={"action": "takeover_failed"})

    def _live_slots(self) -> set[str]:
        """Slots of the group's present members, which their client ids tell."""
        admin = self._clients.admin()
        (future,) = admin.describe_consumer_groups([self._topics.group]).values()
        return {
            member.client_id.removeprefix(self._client_id(""))
            for member in future.result(self._timeout_seconds).members
        }

    def _client_id(self, slot: str) -> str:
        return f"{self._clients.client_id}/{slot}"

    def _read_committed(
        self, consumer: Consumer, partitions: list[TopicPartition], timeout_seconds: float
    ) -> list[TopicPartition]:
        found = consumer.committed([TopicPartition(p.topic, p.partition) for p in partitions], timeout_seconds)
        for partition in found:
            if partition.error is not None:
                raise KafkaException(partition.error)
        return list(found)

    def _start_of(self, committed: TopicPartition) -> int:
        """Where to begin: the committed offset, or the oldest record."""
        if committed.offset >= 0:
            return int(committed.offset)
        deadline = time.monotonic() + 60
        while True:
            try:
                low, _ = self.consumer.get_watermark_offsets(
                    TopicPartition(committed.topic, committed.partition), self._timeout_seconds
                )
                return int(low)
            except KafkaException as error:
                if error.args[0].code() not in UNREACHABLE or time.monotonic() > deadline:
                    raise self._clients.error(error.args[0], f"reading {committed.topic}") from error

    def _fresh_metadata(self) -> bytes | None:
        metadata: bytes = self.consumer.consumer_group_metadata()
        # Serialised as "CGMDv2:", the generation in 4 bytes, group, member: generation -1 is "never joined".
        return None if metadata[7:11] == _NO_GENERATION else metadata

    def _on_error(self, message: KafkaMessage) -> None:
        error = message.error()
        assert error is not None
        # librdkafka reports it as _FATAL; a static classic member has no other fatal error.
        if error.code() == KafkaError.FENCED_INSTANCE_ID or (self._static and error.code() == KafkaError._FATAL):
            raise SlotTaken(
                f"Another executor of {self._topics.group} runs with --slot {self._slot}; give each one its own."
            )
        if error.code() in _PASSING and not error.fatal():
            _log.info("consumer: %s", error.str(), extra={"action": "consumer_error"})
            return
        raise self._error(error)

    def _error(self, error: KafkaError) -> KantokuError:
        return kantoku_error(error, f"reading the inputs as group {self._topics.group}")

    def _member_config(self) -> dict[str, object]:
        config: dict[str, object] = {
            "group.id": self._topics.group,
            "client.id": self._client_id(self._slot),
            "queued.max.messages.kbytes": 16 << 10,
            "queued.min.messages": 20_000,
            "max.poll.interval.ms": 300_000,
            "topic.metadata.refresh.interval.ms": 30_000,
        }
        if self._classic:
            config |= {
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": 10_000,
                "heartbeat.interval.ms": 1_000,  # by a heartbeat a survivor learns that another member is gone
            }
            if self._static:
                config["group.instance.id"] = self._slot
        else:
            config["group.protocol"] = "consumer"
        return config


_UNSTABLE = frozenset({KafkaError.UNSTABLE_OFFSET_COMMIT})


def transactional_id(topics: Topics, slot: str) -> str:
    """The transactional id of an executor process: an ACL can name the prefix ``{ns}.executors.``."""
    return f"{topics.group}.{slot}"


def _names(partitions: Iterable[TopicPartition]) -> str:
    return ", ".join(f"{p.topic}[{p.partition}]" for p in partitions) or "nothing"
