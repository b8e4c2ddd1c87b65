"""The executors' group from outside: who is in it, how far each input is, what holds a window back. Changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from confluent_kafka import TopicPartition

from kantoku_kafka.engine import doneset
from kantoku_kafka.job import Offset, place_name
from kantoku_kafka.kafka.clients import Clients
from kantoku_kafka.kafka.codes import UNSTABLE
from kantoku_kafka.kafka.committed import committed_offsets, observer
from kantoku_kafka.kafka.scan import beginnings, ends, pick, stable_ends
from kantoku_kafka.kafka.topics import existing_topics, partition_counts
from kantoku_kafka.names import Topics

__all__ = ["InputLag", "Member", "describe", "input_topics", "lag_of", "members_of", "slot_of", "worked_topics"]


@dataclass(frozen=True, slots=True)
class Member:
    """An executor process, as the group knows it. ``partitions`` by input topic."""

    slot: str
    host: str
    member_id: str
    partitions: Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class InputLag:
    """One input partition.

    Attributes:
        committed: the lowest offset that is not done; the partition's first one if nothing was ever committed.
        end: the offset that the next record will get.
        done: the runs of offsets that are done beyond ``committed``.
        oldest_ms: when the oldest record that is not done was written, None if there is none.
        markers: offsets from ``committed`` on at which there is no record.
    """

    topic: str
    partition: int
    committed: int
    end: int
    done: Sequence[doneset.Run]
    oldest_ms: int | None
    markers: int = 0

    @property
    def done_beyond(self) -> int:
        """How many are done beyond ``committed``: what stands there holds the window back if there are many."""
        return sum(end - start for start, end in self.done)

    @property
    def lag(self) -> int:
        """Records that are not done: waiting and running ones. Transaction markers further on may be among them."""
        return max(0, self.end - self.committed - self.markers - self.done_beyond)


def input_topics(clients: Clients, topics: Topics) -> dict[str, tuple[str, str]]:
    """The input topics that the namespace has, with task type and priority, by their names and by overrides."""
    told = {name: topics.told_by(name) for name in existing_topics(clients)}
    return {name: of for name, of in sorted(told.items(), key=lambda item: item[1] or ()) if of is not None}


def worked_topics(clients: Clients, topics: Topics) -> list[str]:
    """The inputs, also those with names of their own: of all topics that we see those where the group has committed.

    (``AdminClient.list_consumer_group_offsets`` would tell, but ends the process when a coordinator is still loading:
    librdkafka 2.16.) Raises KantokuError.
    """
    describe(clients, topics.group)  # is told of a missing right; a consumer asks for offsets in vain without it
    places = [TopicPartition(topic, n) for topic, count in partition_counts(clients).items() for n in range(count)]
    with observer(clients, topics.group, settled=True) as consumer:
        committed = clients.insist(
            lambda: consumer.committed(places, clients.connection.timeout_seconds),
            f"reading the committed offsets of {topics.group}",
        )
    worked = {p.topic for p in committed if p.offset >= 0 or (p.error is not None and p.error.code() in UNSTABLE)}
    return sorted(worked.union(input_topics(clients, topics)))


def members_of(clients: Clients, topics: Topics) -> list[Member]:
    """Who is in the group. Raises KantokuError."""
    members = []
    for member in describe(clients, topics.group).members:
        held: dict[str, list[int]] = {}
        for place in member.assignment.topic_partitions if member.assignment else ():
            held.setdefault(place.topic, []).append(place.partition)
        partitions = {topic: sorted(numbers) for topic, numbers in held.items()}
        members.append(Member(slot_of(member.client_id), member.host, member.member_id, partitions))
    return sorted(members, key=lambda m: m.slot)


def slot_of(client_id: str) -> str:
    """Which slot a member has, by the client id that it goes by: what stands before it may differ from ours."""
    return client_id.rpartition("/")[2]


def describe(clients: Clients, group: str) -> Any:
    """The group as the administrative client tells it. Raises KantokuError."""
    admin, seconds = clients.admin(), clients.connection.timeout_seconds
    return clients.insist(
        lambda: admin.describe_consumer_groups([group])[group].result(seconds), f"looking at group {group}"
    )


def lag_of(clients: Clients, topics: Topics, inputs: Sequence[str], *, oldest: bool = True) -> list[InputLag]:
    """How far each partition of these topics is.

    Parameters:
        oldest: look up the oldest record that is not done, which reads one of each partition.

    Raises:
        TopicMismatch, AccessDenied, BrokerUnavailable.
        WaitTimeout: the oldest record of a partition does not come.
    """
    first = {(topic, n): offset for topic in inputs for n, offset in beginnings(clients, topic).items()}
    committed = committed_offsets(clients, topics.group, first, settled=False) if first else []
    # Later: what is done is never beyond the end.
    present = {(topic, n): offset for topic in inputs for n, offset in ends(clients, topic).items()}
    found = [_lag(offset, first[offset.place], present[offset.place]) for offset in committed]
    return _with_oldest(clients, found) if oldest else found


def _with_oldest(clients: Clients, lags: Sequence[InputLag]) -> list[InputLag]:
    """What is not done begins with the first record there: before it stand markers of transactions, or only they.

    What stands behind the last stable offset is undecided: it counts as records.
    """
    oldest: dict[tuple[str, int], tuple[int, int | None]] = {}
    for topic in {lag.topic for lag in lags if lag.lag}:
        wanted = {lag.partition: [lag.committed] for lag in lags if lag.topic == topic and lag.lag}
        decided = stable_ends(clients, topic)  # first: the look-up reads as far at least
        oldest |= {(topic, partition): (decided[partition], None) for partition in wanted}
        for record in pick(clients, topic, wanted, insist=True):
            oldest[topic, record.partition() or 0] = record.offset() or 0, record.timestamp()[1]
    found = []
    for lag in lags:
        offset, written_ms = oldest.get((lag.topic, lag.partition), (lag.committed, None))
        markers = max(0, min(offset, lag.end) - lag.committed)
        found.append(replace(lag, oldest_ms=written_ms, markers=markers))
    return found


def _lag(committed: Offset, first: int, end: int) -> InputLag:
    base = max(committed.offset, first)  # before the first one stands what was deleted, and "nothing committed"
    name = place_name(*committed.place)
    done = doneset.decode(committed.metadata, name, committed.offset) if committed.metadata else None
    runs = [(max(start, base), stop) for start, stop in done.runs if stop > base] if done else []
    return InputLag(*committed.place, base, end, runs, None)
