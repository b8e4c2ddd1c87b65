"""Heartbeats, commands, timers and schedules. They are few: generic code writes and reads them, by their schemas."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import fastavro

from kantoku_kafka.avro import schemas
from kantoku_kafka.avro.readers import read_by_schema
from kantoku_kafka.errors import EnvelopeError
from kantoku_kafka.model import Command, Heartbeat, Schedule, ScheduleState, Timer

__all__ = [
    "decode_command",
    "decode_heartbeat",
    "decode_schedule",
    "decode_schedule_state",
    "decode_timer",
    "encode_command",
    "encode_heartbeat",
    "encode_schedule",
    "encode_schedule_state",
    "encode_timer",
]

_HEADER_BYTES = len(schemas.MARKER) + 8
_MAX_CONTROL_BYTES, _MAX_TIMER_BYTES = 1 << 20, 40 << 20


def encode_heartbeat(heartbeat: Heartbeat) -> bytes:
    """The bytes of a record: Avro single-object encoding."""
    return _encode("Heartbeat", heartbeat._asdict())


def decode_heartbeat(value: bytes) -> Heartbeat:
    """The heartbeat in a record. Raises EnvelopeError, and nothing else, if it is none of a released schema."""
    heartbeat: Heartbeat = _decode("Heartbeat", value, _MAX_CONTROL_BYTES)
    return heartbeat


def encode_command(command: Command) -> bytes:
    """The bytes of a record: Avro single-object encoding."""
    return _encode("Command", command._asdict())


def decode_command(value: bytes) -> Command:
    """The command in a record. Raises EnvelopeError, and nothing else, if it is none of a released schema."""
    command: Command = _decode("Command", value, _MAX_CONTROL_BYTES)
    return command


def encode_timer(timer: Timer) -> bytes:
    """The bytes of a record: Avro single-object encoding."""
    return _encode("Timer", timer._asdict())


def decode_timer(value: bytes) -> Timer:
    """The timer in a record. Raises EnvelopeError, and nothing else, if it is none of a released schema."""
    timer: Timer = _decode("Timer", value, _MAX_TIMER_BYTES)
    return timer


def encode_schedule(schedule: Schedule) -> bytes:
    """The bytes of a record: Avro single-object encoding."""
    return _encode("Schedule", schedule._asdict())


def decode_schedule(value: bytes) -> Schedule:
    """The schedule in a record. Raises EnvelopeError, and nothing else, if it is none of a released schema."""
    schedule: Schedule = _decode("Schedule", value, _MAX_TIMER_BYTES)
    return schedule


def encode_schedule_state(state: ScheduleState) -> bytes:
    """The bytes of a record: Avro single-object encoding."""
    return _encode("ScheduleState", state._asdict())


def decode_schedule_state(value: bytes) -> ScheduleState:
    """The state in a record. Raises EnvelopeError, and nothing else, if it is none of a released schema."""
    state: ScheduleState = _decode("ScheduleState", value, _MAX_CONTROL_BYTES)
    return state


def _encode(name: str, fields: dict[str, Any]) -> bytes:
    if "headers" in fields:
        fields["headers"] = [{"name": name, "value": value} for name, value in fields["headers"]]
    header, schema = _current(name)
    body = io.BytesIO(header)
    body.seek(len(header))
    fastavro.schemaless_writer(body, schema, {name.removesuffix("_us"): value for name, value in fields.items()})
    return body.getvalue()


def _decode(name: str, value: bytes, max_bytes: int) -> Any:
    if len(value) > max_bytes:
        raise EnvelopeError(f"The record has {len(value)} bytes; a {name} may have {max_bytes} at most.")
    found, end = read_by_schema(name, value, _HEADER_BYTES)
    if end != len(value):
        raise EnvelopeError(f"{len(value) - end} bytes follow the {name}; a record holds one and no more.")
    return found


@cache
def _current(name: str) -> tuple[bytes, Any]:
    """What a record begins with, and its schema, parsed."""
    schema = schemas.load(f"{name}.avsc")
    return schemas.MARKER + schemas.fingerprint_of(schema), fastavro.parse_schema(schema)
