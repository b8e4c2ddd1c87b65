"""How Confluent's serializers mark the schema of a value. Pure.

Wire form: ``00``, the registry's id of the schema in 4 bytes, big-endian, then the Avro body. Header form: a bare body,
and a header ``__value_schema_id`` with ``01`` and the schema's GUID; *joined*, the header's bytes stand before the
body, which Confluent's deserializers read as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from kantoku_kafka.errors import EnvelopeError
from kantoku_kafka.model import VALUE_SCHEMA_ID, Headers

__all__ = ["Form", "Frame", "Mark", "joined", "marked", "split"]

Mark = int | UUID
"""What the registry knows a schema by: its id, or its GUID."""
_ID, _GUID = b"\0", b"\1"
_ID_END, _GUID_END = 5, 17


class Form(StrEnum):
    """In which of the two a topic is written."""

    WIRE = "wire"
    HEADER = "header"


class Frame(NamedTuple):
    """How the values of a topic are framed that we write: of those that begin with ``own``, a mark takes its place."""

    own: bytes
    form: Form
    mark: bytes

    def framed(self, value: bytes | None, headers: Headers) -> tuple[bytes | None, Headers]:
        """The value and the headers of a record; as they are, if the value is not of this schema in our own form."""
        if value is None or not value.startswith(self.own):
            return value, headers
        body = value[len(self.own) :]
        if self.form is Form.WIRE:
            return self.mark + body, headers
        return body, (*headers, (VALUE_SCHEMA_ID, self.mark))


def joined(value: bytes, headers: Iterable[tuple[str, bytes | None]] | None) -> bytes:
    """The value of a record; of one in header form, with its header before it."""
    for name, mark in headers or ():
        if name == VALUE_SCHEMA_ID:
            return (mark or b"") + value
    return value


def split(value: bytes) -> tuple[Mark, bytes]:
    """The mark of a (joined) value, and its body. Raises EnvelopeError if it has none."""
    kind = value[:1]
    if kind == _ID and len(value) >= _ID_END:
        return int.from_bytes(value[1:_ID_END]), value[_ID_END:]
    if kind == _GUID and len(value) >= _GUID_END:
        return UUID(bytes=value[1:_GUID_END]), value[_GUID_END:]
    raise EnvelopeError(
        "The bytes do not name their schema: they begin neither with 00 and the id of one in a schema registry, nor "
        "with 01 and a GUID."
    )


def marked(mark: Mark) -> bytes:
    """The bytes of a mark."""
    return _ID + mark.to_bytes(4) if isinstance(mark, int) else _GUID + mark.bytes
