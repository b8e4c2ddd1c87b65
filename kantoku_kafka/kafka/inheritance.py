"""The partitions that a killed process of our slot still holds in a KIP-848 group.

The broker keeps them for it until the session timeout, 45 s by default. Yet a commit needs no more than the id and
the epoch of a member, and the commit metadata name those: the broker takes it exactly as long as it gives the partition
to nobody else, and refuses it from then on. So the slot's next process goes on at once under the dead membership.
"""

from __future__ import annotations

from collections.abc import Iterable

from confluent_kafka import TopicPartition

from kantoku_kafka.job import Offset, Place
from kantoku_kafka.kafka.clients import Clients
from kantoku_kafka.kafka.membership import Membership, writer_of
from kantoku_kafka.kafka.takeover import Takeover
from kantoku_kafka.kafka.topics import partition_count

__all__ = ["Inheritance"]


class Inheritance:
    """Reads the inherited partitions by a consumer that is no member, and knows under whom to commit each.

    The loop thread owns it; the publisher may call :meth:`shares` and :meth:`refused`.
    """

    def __init__(self, clients: Clients, group: str, settings: dict[str, object]) -> None:
        self._clients = clients
        self._memberships: dict[Place, Membership] = {}
        self._refused: set[Membership] = set()
        self.consumer = clients.consumer(**{"group.id": group, **settings})
        self._template: bytes = self.consumer.consumer_group_metadata()

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

    def membership_of(self, place: Place) -> Membership | None:
        """Under whom to commit; None for a partition that is not inherited."""
        return self._memberships.get(place)

    def shares(self, own: bytes | None, offsets: Iterable[Offset]) -> list[tuple[bytes, list[Offset]]] | None:
        """The offsets by the group metadata to commit them with; None if it takes ``own`` and there are none."""
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

    def drop(self, keys: Iterable[Place]) -> bool:
        """Read these no more. Whether anything is left."""
        for key in keys:
            del self._memberships[key]
            self.consumer.incremental_unassign([TopicPartition(*key)])
        return bool(self._memberships)
