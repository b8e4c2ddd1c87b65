"""The requests of Kafka's protocol that are made by hand."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kantoku_kafka.kafka.handshake import SaslAnswer, parse, versions
from kantoku_kafka.kafka.reachability import look, nobody_at


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


def frame(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


def supported(**newest: int) -> bytes:
    """What a broker answers whose requests are these: ``k28=2``."""
    ranges = b"".join(struct.pack(">hhh", int(name[1:]), 0, version) for name, version in newest.items())
    return frame(struct.pack(">ihi", 1, 0, len(newest)) + ranges)


@contextmanager
def broker(*answers: bytes) -> Iterator[str]:
    """Answers one connection after the other, whatever it is asked."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for answer in answers:
                wire, _ = server.accept()
                with wire:
                    if answer:
                        wire.recv(1000)
                        wire.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join(30)


NO_SASL = frame(answer(34))


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (supported(k28=2, k18=3), "older than 2.5"),
        (supported(k18=0), "older than 2.5"),
        (supported(k28=3), "group protocol classic"),
        (supported(k28=5, k68=1), "group protocols classic and consumer"),
        (frame(b"\0" * 11), "does not answer"),
    ],
)
def test_a_broker_that_is_too_old(told: bytes, words: str) -> None:
    with broker(b"", NO_SASL, told) as address:  # the first connection is only made
        last = look({"bootstrap.servers": address}, seconds=30)[-1]
    assert last.check == "Kafka" and words in last.detail
    assert (last.error is None) == words.startswith("group")


def test_versions_are_read_from_the_wire() -> None:
    here, there = socket.socketpair()
    with here, there:
        there.sendall(supported(k1=17, k28=5))
        assert versions(here) == {1: 17, 28: 5}


def test_nobody_is_there_only_if_that_is_certain() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # taken, and refuses
        here, refused = (f"127.0.0.1:{one.getsockname()[1]}" for one in (server, silent))
        unknown = "no-such-host.invalid:9092"
        assert nobody_at([refused, unknown], 30)
        assert not nobody_at([refused, unknown, here], 30)
        assert not nobody_at([refused], 0), "there was no time to find out"
