"""The one request of Kafka's protocol that is made by hand."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kantoku_kafka.kafka.handshake import SaslAnswer, parse


def answer(code: int, *mechanisms: bytes) -> bytes:
    names = b"".join(struct.pack(">h", len(name)) + name for name in mechanisms)
    return struct.pack(">ihi", 1, code, len(mechanisms)) + names


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (answer(33, b"PLAIN", b"SCRAM-SHA-256"), SaslAnswer(True, ("PLAIN", "SCRAM-SHA-256"))),
        (answer(0, b"PLAIN"), SaslAnswer(True, ("PLAIN",))),
        (answer(34), SaslAnswer(False)),
        (answer(0, b"PLAIN") + b"x", None),
        (answer(0, b"PLAIN")[:-1], None),
        (answer(0, b"\xff"), None),
        (b"HTTP/1.1 400 Bad Request", None),
        (b"", None),
    ],
)
def test_what_brokers_and_others_say(given: bytes, wanted: SaslAnswer | None) -> None:
    assert parse(given) == wanted


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_none(data: bytes) -> None:
    found = parse(data)
    assert found is None or isinstance(found, SaslAnswer)
