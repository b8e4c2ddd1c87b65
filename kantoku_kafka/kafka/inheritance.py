"""The partitions that a killed process of our slot still holds in a KIP-848 group.

The broker keeps them for it until the session timeout, 45 s by default. Yet a commit needs no more than the id and
the epoch of a member, and the commit metadata name those: the broker takes it exactly as long as it gives the partition
to nobody else, and refuses it from then on. So the slot's next process goes on at once under the dead membership.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from confluent_kafka import Consumer, TopicPartition

from kantoku_kafka.job import Offset, Place
from kantoku_kafka.kafka.clients import Clients
from kantoku_kafka.kafka.membership import Membership, writer_of
from kantoku_kafka.kafka.takeover import Takeover
from kantoku_kafka.kafka.topics import partition_count

__all__ = ["Inheritance"]


class Inheritance:
    """Reads the inherited partitions by a consumer that is no member, and knows under whom to commit each.

    The loop thread owns it; the publisher may call :meth:`shares`, :meth:`refused` and :meth:`membership_of`.

    Attributes:
        consumer: reads them; None as long as nothing is inherited.
    """

    def __init__(self, clients: Clients, group: str, settings: Mapping[str, object]) -> None:
        self._clients = clients
        self._config = {"group.id": group, **settings}
        self._memberships: dict[Place, Membership] = {}
        self._refused: set[Membership] = set()
        self._template = b""
        self.consumer: Consumer | None = None

    def find(self, takeover: Takeover, topics: Iterable[str], slot: str) -> list[Offset]:
        """Where the partitions stand whose last writer is a member of this slot that the group still has.

        Call it once the slot's last transaction has ended, and before joining the group.
        """
        places = [(topic, n) for topic in topics for n in range(partition_count(self._clients, topic))]
        found = []
        members = takeover.members()
        for position in takeover.peek(places):
            writer = writer_of(position)
            if writer is not None and writer.slot == slot and members.get(writer.member_id) == slot:
                self._memberships[position.place] = writer
                found.append(position)
        return found

    def begin(self, positions: list[TopicPartition]) -> None:
        """Read what was found from these positions on."""
        self.consumer = self._clients.consumer(**self._config)
        self._template = self.consumer.consumer_group_metadata()
        self.consumer.assign(positions)

    def membership_of(self, place: Place) -> Membership | None:
        """Under whom to commit; None for a partition that is not inherited."""
        return self._memberships.get(place)

    def shares(self, own: bytes | None, offsets: Sequence[Offset]) -> Sequence[tuple[bytes, Sequence[Offset]]] | None:
        """The offsets by the group metadata to commit them with; None if it takes ``own`` and there are none."""
        if not self._memberships:
            return None if own is None else [(own, offsets)]
        shares: dict[bytes, list[Offset]] = {}
        for offset in offsets:
            membership = self.membership_of(offset.place)
            metadata = own if membership is None else membership.group_metadata(self._template)
            if metadata is None:
                return None
            shares.setdefault(metadata, []).append(offset)
        return list(shares.items())

    def refused(self, group_metadata: bytes) -> None:
        """The broker took no commit under these: the member has gone."""
        self._refused |= {m for m in self._memberships.values() if m.group_metadata(self._template) == group_metadata}

    def ended(self, assigned: Iterable[Place] = ()) -> set[Place]:
        """What is inherited no longer: of members that were refused, or that lost one of these partitions."""
        gone = self._refused | {self._memberships[key] for key in assigned if key in self._memberships}
        return {key for key, membership in self._memberships.items() if membership in gone}

    def drop(self, places: Iterable[Place]) -> None:
        """Read these no more."""
        for place in places:
            del self._memberships[place]
            if self.consumer is not None:
                self.consumer.incremental_unassign([TopicPartition(*place)])
        if not self._memberships:
            self.close()

    def close(self) -> None:
        """Let go of all. Idempotent."""
        self._memberships.clear()
        if self.consumer is not None:
            self.consumer.close()
            self.consumer = None
