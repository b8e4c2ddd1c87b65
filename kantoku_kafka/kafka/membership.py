"""Under which membership offsets are committed, and what of it the commit metadata keep."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from kantoku_kafka.engine import doneset
from kantoku_kafka.job import Offset, place_name

__all__ = ["Membership", "writer_of"]

_SEPARATOR = "\0"
_NO_EPOCH = b"\xff\xff\xff\xff"
_EPOCH = slice(7, 11)


@dataclass(frozen=True, slots=True)
class Membership:
    """A slot's membership in the group. Without a member id, the slot alone is known."""

    slot: str
    member_id: str = ""
    epoch: int = -1

    @classmethod
    def parse(cls, text: str) -> Membership:
        """What :attr:`text` gave. Raises ValueError."""
        slot, *rest = text.split(_SEPARATOR)
        return cls(slot, rest[0], int(rest[1])) if len(rest) == 2 else cls(slot)

    @property
    def text(self) -> str:
        """For the commit metadata: who wrote them."""
        return _SEPARATOR.join((self.slot, self.member_id, str(self.epoch))) if self.member_id else self.slot

    def group_metadata(self, own: bytes) -> bytes:
        """The group metadata of this membership, made from those of another member of the group.

        librdkafka serialises "CGMDv2:", the generation (4 bytes, native), group, member, both
        ending with NUL, and the rest.
        """
        group, _, others = own[_EPOCH.stop :].partition(b"\0")
        _, _, rest = others.partition(b"\0")
        epoch = self.epoch.to_bytes(4, sys.byteorder, signed=True)
        return b"\0".join((own[: _EPOCH.start] + epoch + group, self.member_id.encode(), rest))

    @staticmethod
    def joined(group_metadata: bytes) -> bool:
        """Whether these metadata are of a member; the broker would not fence the commits of another."""
        return group_metadata[_EPOCH] != _NO_EPOCH

    @classmethod
    def of(cls, slot: str, group_metadata: bytes) -> Membership:
        """The membership that librdkafka's group metadata tell of."""
        _, member_id, *_ = group_metadata[_EPOCH.stop :].split(b"\0")
        return cls(slot, member_id.decode(), int.from_bytes(group_metadata[_EPOCH], sys.byteorder, signed=True))


def writer_of(committed: Offset) -> Membership | None:
    """Who committed this; None if the metadata are not ours."""
    place = place_name(*committed.place)
    done = doneset.decode(committed.metadata, place, committed.offset) if committed.metadata else None
    if done is None:
        return None
    try:
        return Membership.parse(done.writer)
    except ValueError:
        return None
