"""What a group has ever committed, as ``__consumer_offsets`` has it: where it stands never goes back by itself."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from kantoku_kafka.job import Place
from kantoku_kafka.kafka.clients import Clients
from kantoku_kafka.kafka.scan import Scan, beginnings, ends

__all__ = ["commits", "went_back"]

_TOPIC = "__consumer_offsets"
_OFFSET_KEYS = (0, 1)  # versions of a key that is about an offset


def went_back(clients: Clients, group: str) -> list[str]:
    """Every commit that is less than one before it. Source: OffsetCommitKey and OffsetCommitValue of Kafka."""
    stands: dict[Place, int] = {}
    found = []
    for place, offset in commits(clients, group):
        if offset < stands.get(place, 0):
            found.append(f"{place[0]}[{place[1]}] went back from {stands[place]} to {offset}")
        stands[place] = offset
    return found


def commits(clients: Clients, group: str) -> Iterator[tuple[Place, int]]:
    """Committed commits of a group in their order. All of a group's are in one partition."""
    scan = Scan(clients, _TOPIC, beginnings(clients, _TOPIC), ends(clients, _TOPIC))
    for batch in scan.batches():
        for record in batch:
            key, value = record.key(), record.value()
            place = _place(key, group) if key else None
            if place is not None and value:
                yield place, struct.unpack_from(">q", value, 2)[0]


def _place(key: bytes, group: str) -> Place | None:
    """Of a key about an offset of the group: version, group, topic, partition."""
    (version,) = struct.unpack_from(">h", key)
    if version not in _OFFSET_KEYS:
        return None
    named, at = _text(key, 2)
    topic, at = _text(key, at)
    return (topic, struct.unpack_from(">i", key, at)[0]) if named == group else None


def _text(raw: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from(">h", raw, at)
    return raw[at + 2 : at + 2 + length].decode(), at + 2 + length
