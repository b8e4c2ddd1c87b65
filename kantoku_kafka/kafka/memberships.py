"""Under which memberships of the group a process commits: its own, and those of a dead process of its slot."""

from __future__ import annotations

from collections.abc import Sequence

from confluent_kafka import Consumer

from kantoku_kafka.errors import BrokerUnavailable
from kantoku_kafka.job import Offset, Partition
from kantoku_kafka.kafka.inheritance import Inheritance
from kantoku_kafka.kafka.membership import Membership
from kantoku_kafka.kafka.takeover import Takeover

__all__ = ["SlotMemberships"]


class SlotMemberships:
    """The fence of what is committed. The loop thread renews it, in which the consumer is; the publisher asks.

    Parameters:
        slot: of this process.
        inheritance: what a dead process of the slot left.
        classic: whether the group's protocol is the classic one.
        inherits: whether another process of the slot may go on under our membership.

    Attributes:
        slot: under which the others know us.
        untrusted: nothing is committed any more until the consumer joins anew.
    """

    def __init__(self, slot: str, inheritance: Inheritance, *, classic: bool, inherits: bool) -> None:
        self.slot = self._next_slot = slot
        self.untrusted = False
        self._inheritance = inheritance
        self._classic = classic
        self._inherits = inherits
        self._metadata: bytes | None = None
        self._outdated = False

    # --- the loop's

    def begin(self) -> str:
        """In which slot to join the group, by another consumer than before."""
        self._metadata = None
        self.untrusted = False
        self.slot = self._next_slot
        return self.slot

    def joins(self, consumer: Consumer, takeover: Takeover) -> None:
        """This consumer is about to become the member."""
        self._consumer = consumer
        self._takeover = takeover
        self._own = Membership(self.slot)
        self._member_id = Membership.of(self.slot, consumer.consumer_group_metadata()).member_id

    def polled(self) -> None:
        """Classic brokers refuse every old generation; the others may have refused the last commit for its epoch."""
        if self._classic or self._outdated:
            self._outdated = False
            self._renew()

    def assigned(self) -> None:
        """The consumer holds other partitions than before."""
        self._renew()
        if self._inherits and self._metadata is not None:
            self._own = Membership.of(self.slot, self._metadata)

    def is_revoked(self) -> None:
        """The last commits of what it gives back are still to come: a classic group has a new generation by now."""
        if self._classic:
            self._renew()

    def ended(self) -> None:
        """Until the next assignment there is no membership to commit with."""
        self._metadata = None

    def _renew(self) -> None:
        try:
            metadata: bytes = self._consumer.consumer_group_metadata()
        except RuntimeError:  # a consumer that closes has none any more; out of a callback it becomes a SystemError
            self._metadata = None
        else:
            self._metadata = metadata if Membership.joined(metadata) else None

    # --- the publisher's

    def shares(self, offsets: Sequence[Offset]) -> Sequence[tuple[bytes, Sequence[Offset]]] | None:
        """The group metadata to commit each offset with; None while we are no member, for nobody would be fenced.

        Classic brokers refuse every old generation, so it is that of the last poll. KIP-848 fences by the epoch in
        which a partition was assigned: what was valid after the last rebalance stays so for all that we hold. (A
        broker before 4.3 fences as with classic: after a refusal the next poll renews them there too.)
        """
        return None if self.untrusted else self._inheritance.shares(self._metadata, offsets)

    def refused(self, group_metadata: bytes) -> None:
        """A commit with these was refused by the group. The next poll renews them; what was inherited it lets go."""
        self._outdated = True
        self._inheritance.refused(group_metadata)

    def fenced(self, slot: str) -> None:
        """Our producer was fenced; we go on in this slot, which may be the same.

        By the slot others know us, and who inherits from us may have committed under our membership meanwhile. In
        either case nothing is committed under it any more; the next poll starts over with another one.
        """
        self._next_slot = slot
        self.untrusted = self._inherits or slot != self.slot

    def writer(self, partition: Partition) -> str:
        """Whom the metadata of a commit name: a successor then knows whose transaction may hang."""
        return (self._inheritance.membership_of(partition.place) or self._own).text

    def slot_is_taken(self) -> bool:
        """Whether another live member of a KIP-848 group has our slot. (A classic broker tells by itself.)"""
        if self._classic:
            return False
        try:
            members = self._takeover.members()
        except BrokerUnavailable:
            return False
        return any(slot == self.slot and member != self._member_id for member, slot in members.items())
