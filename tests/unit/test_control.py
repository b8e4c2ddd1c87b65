"""The records of the control topic."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kantoku_kafka.avro import schemas
from kantoku_kafka.avro.control import decode_heartbeat, encode_heartbeat
from kantoku_kafka.errors import EnvelopeError
from kantoku_kafka.model import Heartbeat

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
int32, int64 = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)
heartbeats = st.builds(
    Heartbeat,
    executor_id=text,
    slot=text,
    host=text,
    pid=int32,
    version=text,
    started_at_us=int64,
    at_us=int64,
    interval_ms=int64,
    draining=st.booleans(),
    in_flight=st.dictionaries(text, int32, max_size=3),
    attributes=st.dictionaries(text, text, max_size=3),
)
HEADER = schemas.MARKER + schemas.fingerprint_of(schemas.load("Heartbeat.avsc"))


@given(heartbeats)
def test_what_was_written_is_read(heartbeat: Heartbeat) -> None:
    value = encode_heartbeat(heartbeat)
    assert value.startswith(HEADER)
    assert decode_heartbeat(value) == heartbeat


@given(heartbeats, st.data())
def test_what_is_no_heartbeat_is_refused(heartbeat: Heartbeat, data: st.DataObject) -> None:
    value = encode_heartbeat(heartbeat)
    for bad in (value[: data.draw(st.integers(0, len(value) - 1))], value + b"\0"):
        with pytest.raises(EnvelopeError):
            decode_heartbeat(bad)


@given(st.binary(max_size=200) | st.binary(max_size=200).map(HEADER.__add__))
def test_random_bytes_raise_one_error_only(value: bytes) -> None:
    with suppress(EnvelopeError):
        decode_heartbeat(value)


@given(heartbeats, st.data())
def test_damaged_bytes_raise_one_error_only(heartbeat: Heartbeat, data: st.DataObject) -> None:
    value = bytearray(encode_heartbeat(heartbeat))
    value[data.draw(st.integers(len(HEADER), len(value) - 1))] = data.draw(st.integers(0, 255))
    with suppress(EnvelopeError):
        decode_heartbeat(bytes(value))
