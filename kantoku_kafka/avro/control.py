"""The records of the control topic. They are few: the generic library writes them, the generic reader reads them."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import fastavro

from kantoku_kafka.avro import schemas
from kantoku_kafka.avro.readers import read_by_schema
from kantoku_kafka.errors import EnvelopeError
from kantoku_kafka.model import Heartbeat

__all__ = ["decode_heartbeat", "encode_heartbeat"]

_HEADER_BYTES = len(schemas.MARKER) + 8
_MAX_BYTES = 1 << 20


def encode_heartbeat(heartbeat: Heartbeat) -> bytes:
    """The bytes of a record: Avro single-object encoding."""
    header, schema = _current()
    body = io.BytesIO()
    fields = {name.removesuffix("_us"): value for name, value in heartbeat._asdict().items()}
    fastavro.schemaless_writer(body, schema, fields)
    return header + body.getvalue()


def decode_heartbeat(value: bytes) -> Heartbeat:
    """The heartbeat in a record. Raises EnvelopeError, and nothing else, if it is none of a released schema."""
    if len(value) > _MAX_BYTES:
        raise EnvelopeError(f"The record has {len(value)} bytes; a heartbeat may have {_MAX_BYTES} at most.")
    heartbeat: Heartbeat
    heartbeat, end = read_by_schema("Heartbeat", value, _HEADER_BYTES)
    if end != len(value):
        raise EnvelopeError(f"{len(value) - end} bytes follow the heartbeat; a record holds one and no more.")
    return heartbeat


@cache
def _current() -> tuple[bytes, Any]:
    """What a record begins with, and its schema, parsed."""
    schema = schemas.load("Heartbeat.avsc")
    return schemas.MARKER + schemas.fingerprint_of(schema), fastavro.parse_schema(schema)
