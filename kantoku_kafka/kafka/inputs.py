"""Inputs on Kafka: one group member, and the rules by which partitions come and go."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as KafkaMessage

from kantoku_kafka.errors import SlotTaken
from kantoku_kafka.job import Job, Offset, Partition, Place
from kantoku_kafka.kafka.clients import Clients
from kantoku_kafka.kafka.codes import NO_TOPIC, PASSING, kantoku_error
from kantoku_kafka.kafka.committed import CommittedOffsets
from kantoku_kafka.kafka.inheritance import Inheritance
from kantoku_kafka.kafka.leaving import leave
from kantoku_kafka.kafka.memberships import SlotMemberships
from kantoku_kafka.kafka.records import headers_of
from kantoku_kafka.kafka.scan import ends_of
from kantoku_kafka.kafka.statistics import Watch
from kantoku_kafka.kafka.stored import StoredOffsets
from kantoku_kafka.kafka.takeover import Takeover, names
from kantoku_kafka.kafka.unowned import UnownedWatch
from kantoku_kafka.protocols import Rebalance
from kantoku_kafka.settings import GroupProtocol

__all__ = ["KafkaInputs"]

_log = logging.getLogger(__name__)
# Passing states of the connection or the group: librdkafka goes on by itself.
_MEMBERS_PASSING = PASSING | {
    KafkaError._AUTHENTICATION,  # one broker may lag behind: Clients.check_access judges what lasts
    KafkaError._MAX_POLL_EXCEEDED,
    KafkaError._AUTO_OFFSET_RESET,
    KafkaError.OFFSET_OUT_OF_RANGE,
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
}
_OFFSETS_SECONDS = 60.0


class KafkaInputs:
    """The input topics of some task types, shared with the other members of the group.

    The loop thread owns it; the publisher may call :meth:`store` only, and what :attr:`memberships` has for it.
    They never touch the consumer: confluent-kafka lets one thread at a time into it, and a rebalance inside ``poll``
    waits for the publisher.

    Parameters:
        clients: the connection.
        group: which group to be a member of.
        slot: of this process, for the takeover of what a dead process of the same slot left.
        static: whether the slot is an explicit one: then the membership is static.
        exactly_once: whether offsets come by transactions, which a dead member may have left open.
        timeout_seconds: for one request to Kafka.
        committed: is told what may be committed in our name, and how that was found.
        tells_ends: whether :meth:`read_up_to` is asked; else it costs nothing.
        foreign: those of the topics that others write, and from which time on to read where nothing was ever committed,
            in milliseconds since the epoch; None: from the oldest record on.
        watch: is told of the consumer; jobs then know when their records were written.

    Attributes:
        memberships: under which to commit.
    """

    def __init__(
        self,
        clients: Clients,
        group: str,
        *,
        slot: str,
        static: bool,
        group_protocol: GroupProtocol,
        exactly_once: bool,
        timeout_seconds: float,
        committed: CommittedOffsets,
        tells_ends: bool = False,
        foreign: Mapping[str, int | None] = MappingProxyType({}),
        watch: Watch | None = None,
    ) -> None:
        self._reading: dict[str, object] = {
            "queued.max.messages.kbytes": 16 << 10,
            "queued.min.messages": 20_000,
            "enable.partition.eof": tells_ends,
        }
        self._watch = watch
        self._paused: set[Place] = set() if watch is None else watch.paused
        self._read_up_to: dict[Partition, int] = {}
        self._foreign = foreign
        self._clients = clients
        self._group = group
        self._classic = group_protocol is GroupProtocol.CLASSIC
        self._static = static and self._classic
        self._inherits = static and exactly_once and not self._classic
        self._timeout_seconds = timeout_seconds
        self._exactly_once = exactly_once
        self._partitions: dict[Place, Partition] = {}
        self._inheritance = Inheritance(clients, group, self._reading)
        self.memberships = SlotMemberships(slot, self._inheritance, classic=self._classic, inherits=self._inherits)
        self._unowned: UnownedWatch | None = None
        self._stored = StoredOffsets()
        self._committed = committed
        self._closed = self._leaving = False
        self._connect()

    def _connect(self) -> None:
        self._takeover = Takeover(
            self._clients,
            self._group,
            slot=self.memberships.begin(),
            exactly_once=self._exactly_once,
            timeout_seconds=self._timeout_seconds,
        )
        self.consumer = self._clients.consumer(**self._member_config())
        self.memberships.joins(self.consumer, self._takeover)

    def subscribe(self, topics: Sequence[str], rebalance: Rebalance) -> None:
        self._rebalance = rebalance
        self._subscribed = sorted(topics)
        if self._inherits:
            self._inherit()
        self._join()
        if self._static:
            self._unowned = UnownedWatch(self._clients, self._group, self._subscribed, self._group_config())
            self._unowned.start()

    def _join(self) -> None:
        self.consumer.subscribe(
            self._subscribed,
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )

    def poll(self, max_jobs: int, timeout_seconds: float) -> list[Job]:
        self._stored.commit(self.consumer)
        if self.memberships.untrusted:
            self._start_over()
        self._let_go()
        inherited = self._inheritance.consumer
        if inherited is None:
            jobs = self._poll(self.consumer, max_jobs, timeout_seconds)
        else:
            jobs = self._poll(inherited, max_jobs, timeout_seconds)
            jobs += self._poll(self.consumer, max_jobs, 0)
        self.memberships.polled()
        return jobs

    def _poll(self, consumer: Consumer, max_jobs: int, timeout_seconds: float) -> list[Job]:
        """As soon as there is one, what there is; ``consume`` alone would wait until there are so many."""
        first = consumer.poll(timeout_seconds)
        if first is None:
            self._clients.check_access(f"reading the inputs as group {self._group}")
            return []
        # A rebalance within the next call must not give this record to a later assignment: a job of it now.
        jobs = self._jobs((first,))
        return jobs + self._jobs(consumer.consume(max_jobs - 1, 0))

    def _jobs(self, messages: Iterable[Any]) -> list[Job]:
        # Any: a consumed record without error has all its coordinates.
        partitions, foreign, timed = self._partitions, self._foreign, self._watch is not None
        jobs = []
        for message in messages:
            if message.error() is not None:
                self._on_error(message)
                continue
            partition = partitions.get((message.topic(), message.partition()))
            if partition is not None:
                headers = headers_of(message)
                job = Job(partition, message.offset(), message.key(), message.value() or b"", headers)
                if foreign and partition.topic in foreign:
                    job.home, job.is_null = "", message.value() is None
                    job.written_at_ms = message.timestamp()[1]
                elif timed:
                    job.written_at_ms = message.timestamp()[1]
                jobs.append(job)
        return jobs

    def ends_of(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        """See :class:`~kantoku_kafka.protocols.TableInputs`."""
        ends = ends_of(self._clients, [p.place for p in partitions], _OFFSETS_SECONDS)
        return {partition: ends[partition.place] for partition in partitions}

    def read_up_to(self, partition: Partition) -> int:
        """See :class:`~kantoku_kafka.protocols.TableInputs`; 0 as long as the end was not met."""
        return self._read_up_to.get(partition, 0)

    def pause(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            self._reader_of(partition).pause([TopicPartition(*partition.place)])
            self._paused.add(partition.place)

    def resume(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            self._reader_of(partition).resume([TopicPartition(*partition.place)])
            self._paused.discard(partition.place)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            if self._unowned is not None:
                self._unowned.close()
            self._leave()
            self._inheritance.close()

    def store(self, offsets: Sequence[Offset]) -> None:
        """Commit these outside of any transaction, with the next poll, or before the partitions go."""
        self._stored.store(offsets)

    # --- rebalances: librdkafka calls these from inside poll and close, on the loop thread

    def _on_assign(self, _: Consumer, assigned: list[TopicPartition]) -> None:
        if self._leaving:  # they are given back at once; a client that closes answers no question about offsets
            return
        places = [(p.topic, p.partition) for p in assigned]
        self._let_go(places)
        positions = self._open(self._takeover.committed(self.consumer, places))
        self.consumer.incremental_assign(positions)
        # Pauses outlive an assignment in librdkafka: begin with a clean state.
        self.consumer.resume([TopicPartition(p.topic, p.partition) for p in positions])
        self.memberships.assigned()
        if assigned:
            _log.info("assigned %s", names(places), extra={"action": "assigned"})

    def _open(self, committed: Sequence[Offset]) -> list[TopicPartition]:
        """Begin an assignment of these; answers from where to read."""
        if self._inherits:
            self._committed.watch(committed)
        positions = [offset._replace(offset=self._start_of(offset)) for offset in committed]
        begins = []
        for position, partition in zip(positions, self._rebalance.assigned(positions), strict=True):
            self._partitions[partition.place] = partition
            begin = position.offset if partition.begin is None else partition.begin
            begins.append(TopicPartition(*partition.place, begin))
        return begins

    def _on_revoke(self, _: Consumer, revoked: list[TopicPartition]) -> None:
        places = [(p.topic, p.partition) for p in revoked]
        _log.info("revoked %s", names(places), extra={"action": "revoked"})
        self.memberships.is_revoked()
        self._rebalance.revoked([self._partitions[place] for place in places if place in self._partitions])
        self._stored.commit(self.consumer, wait=True)
        self._forget(places)
        self.memberships.ended()

    def _on_lost(self, _: Consumer, lost: list[TopicPartition]) -> None:
        places = [(p.topic, p.partition) for p in lost]
        _log.warning("lost %s", names(places), extra={"action": "lost"})
        self._lose(places)
        self.memberships.ended()

    def _lose(self, keys: Collection[Place]) -> None:
        """These belong to somebody else by now: also what was stored of them must not be committed."""
        self._rebalance.lost(self._forget(keys))
        self._stored.drop(set(keys))

    def _forget(self, keys: Iterable[Place]) -> list[Partition]:
        found = [partition for key in keys if (partition := self._partitions.pop(key, None)) is not None]
        for partition in found:
            self._read_up_to.pop(partition, None)
            self._paused.discard(partition.place)
        self._committed.forget(partition.place for partition in found)
        return found

    # --- what a dead process of our slot still holds

    def _inherit(self) -> None:
        offsets = self._inheritance.find(self._takeover, self._subscribed, self.memberships.slot)
        if offsets:
            self._inheritance.begin(self._open(offsets))
            _log.info("inherited %s", names(offset.place for offset in offsets), extra={"action": "inherited"})

    def _start_over(self) -> None:
        """Forget all that was not committed, and join the group as a new member."""
        _log.warning("slot %s was fenced: joining anew", self.memberships.slot, extra={"action": "start_over"})
        self._lose(list(self._partitions))
        self._inheritance.close()
        self._leave()
        self._connect()
        self._join()

    def _leave(self) -> None:
        self._leaving = True
        leave(self.consumer, stays=self._static)
        self._leaving = False

    def _let_go(self, assigned: Iterable[Place] = ()) -> None:
        """End what was inherited of members that have gone, which an assignment of theirs to somebody tells too."""
        ended = self._inheritance.ended(assigned)
        if ended:
            _log.info("inherited no longer: %d partitions", len(ended), extra={"action": "inheritance_ended"})
            self._lose(ended)
            self._inheritance.drop(ended)

    def _reader_of(self, partition: Partition) -> Consumer:
        inherited = self._inheritance.consumer
        if inherited is not None and self._inheritance.membership_of(partition.place) is not None:
            return inherited
        return self.consumer

    def _start_of(self, committed: Offset) -> int:
        """Where to begin: the committed offset; else the oldest record, or the first since the time that was given."""
        if committed.offset >= 0:
            return committed.offset
        place = TopicPartition(*committed.place)
        since_ms = self._foreign.get(committed.topic)

        def oldest() -> int:
            first, end = self.consumer.get_watermark_offsets(place, self._timeout_seconds)
            if since_ms is None:
                return int(first)
            at = TopicPartition(*committed.place, since_ms)
            (found,) = self.consumer.offsets_for_times([at], self._timeout_seconds)
            if found.error is not None:
                raise KafkaException(found.error)
            return int(found.offset if found.offset >= 0 else end)

        # A partition that was added just now is known to some brokers before others.
        return self._clients.insist(oldest, f"reading {place.topic}", NO_TOPIC, _OFFSETS_SECONDS)

    def _on_error(self, message: KafkaMessage) -> None:
        error = message.error()
        assert error is not None
        if error.code() == KafkaError._PARTITION_EOF:
            self._met_end(message)
            return
        # librdkafka reports it as _FATAL; a static classic member has no other fatal error.
        if error.code() == KafkaError.FENCED_INSTANCE_ID or (self._static and error.code() == KafkaError._FATAL):
            raise SlotTaken.of(self._group, self.memberships.slot)
        if error.code() in _MEMBERS_PASSING and not error.fatal():
            _log.info("consumer: %s", error.str(), extra={"action": "consumer_error"})
            return
        raise kantoku_error(error, f"reading {message.topic() or 'the inputs'} as group {self._group}")

    def _met_end(self, message: Any) -> None:
        # Any: this message has all its coordinates.
        partition = self._partitions.get((message.topic(), message.partition()))
        if partition is not None:
            self._read_up_to[partition] = message.offset()

    def _member_config(self) -> dict[str, object]:
        names = {"group.instance.id": self.memberships.slot} if self._static else {}
        return {
            **self._group_config(),
            "client.id": self._takeover.client_id,
            **names,
            **(self._watch.config if self._watch is not None else {}),
        }

    def _group_config(self) -> dict[str, object]:
        """Of any member, whoever it is."""
        config: dict[str, object] = {
            "group.id": self._group,
            **self._reading,
            "max.poll.interval.ms": self._clients.setting("max.poll.interval.ms", 300_000),
            "topic.metadata.refresh.interval.ms": 30_000,
        }
        if self._classic:
            config |= {
                "partition.assignment.strategy": "cooperative-sticky",
                "heartbeat.interval.ms": 1_000,  # by a heartbeat a survivor learns that another member is gone
            }
        else:
            config["group.protocol"] = "consumer"
        return config
