"""The records of the control topic. They are few: the generic library writes and reads them."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import fastavro

from kantoku_kafka.avro import schemas
from kantoku_kafka.errors import EnvelopeError
from kantoku_kafka.model import Heartbeat

__all__ = ["decode_heartbeat", "encode_heartbeat"]

_HEADER_BYTES = len(schemas.MARKER) + 8
_MAX_BYTES = 1 << 20
# What the library raises on bytes that are no record of the schema.
_MALFORMED = (EOFError, IndexError, OverflowError, TypeError, UnicodeDecodeError, ValueError)


def encode_heartbeat(heartbeat: Heartbeat) -> bytes:
    """The bytes of a record: Avro single-object encoding."""
    mark, schema = next(iter(_versions("Heartbeat").items()))
    fields = {name.removesuffix("_us"): value for name, value in heartbeat._asdict().items()}
    body = io.BytesIO()
    fastavro.schemaless_writer(body, schema, fields)
    return schemas.MARKER + mark + body.getvalue()


def decode_heartbeat(value: bytes) -> Heartbeat:
    """The heartbeat in a record. Raises EnvelopeError, and nothing else, if it is none of a released schema."""
    schema = _versions("Heartbeat").get(value[len(schemas.MARKER) : _HEADER_BYTES])
    if schema is None or not value.startswith(schemas.MARKER) or len(value) > _MAX_BYTES:
        raise EnvelopeError("The record is no heartbeat of a released schema.")
    body = io.BytesIO(value[_HEADER_BYTES:])
    try:
        fields: Any = fastavro.schemaless_reader(body, schema, None)
    except _MALFORMED as error:
        raise EnvelopeError(f"The heartbeat cannot be read: {type(error).__name__}.") from error
    if body.read(1):
        raise EnvelopeError("Bytes follow the heartbeat; a record holds one and no more.")
    return Heartbeat(**{f"{name}_us" if name in ("at", "started_at") else name: v for name, v in fields.items()})


@cache
def _versions(name: str) -> dict[bytes, Any]:
    """Parsed schemas by fingerprint, newest first. Times stay numbers, as our model has them."""
    return {mark: fastavro.parse_schema(_plain(schema)) for mark, schema in schemas.versions(name)}


def _plain(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {name: _plain(value) for name, value in schema.items() if name != "logicalType"}
    return [_plain(item) for item in schema] if isinstance(schema, list) else schema
