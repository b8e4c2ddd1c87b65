"""Kafka's protocol by hand, for diagnosis: which SASL mechanisms does a listener take, and which requests?"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

__all__ = ["SaslAnswer", "ask", "versions"]

_SASL_HANDSHAKE, _API_VERSIONS = 17, 18
_ILLEGAL_STATE = 34
_CLIENT = b"kantoku-kafka"
_MOST_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class SaslAnswer:
    """What a broker says to a SASL handshake.

    Attributes:
        is_sasl: whether the listener wants SASL at all.
        mechanisms: those that it offers.
    """

    is_sasl: bool
    mechanisms: tuple[str, ...] = ()


def ask(wire: socket.socket, mechanism: str) -> SaslAnswer | None:
    """Ask for this mechanism, on a connection that is fresh. No credentials are sent.

    Returns:
        None: what came is no answer of a Kafka broker.

    Raises:
        TimeoutError: nothing came within the time-out of the socket.
    """
    name = mechanism.encode()
    try:
        return parse(_answered(wire, _SASL_HANDSHAKE, 1, struct.pack(f">h{len(name)}s", len(name), name)))
    except TimeoutError:
        raise
    except OSError:
        return None


def versions(wire: socket.socket) -> dict[int, int]:
    """The newest version that a broker takes of each request, by its number; on a connection that is fresh.

    Raises:
        OSError, struct.error: there is no such answer.
    """
    answer = _answered(wire, _API_VERSIONS, 0, b"")
    return {key: newest for key, _, newest in struct.iter_unpack(">hhh", answer[10:])}


def _answered(wire: socket.socket, api: int, version: int, body: bytes) -> bytes:
    request = struct.pack(f">hhih{len(_CLIENT)}s", api, version, 1, len(_CLIENT), _CLIENT) + body
    wire.sendall(struct.pack(">i", len(request)) + request)
    return _frame(wire)


def parse(answer: bytes) -> SaslAnswer | None:
    """The body of the answer, without its size: correlation id, error code, names of mechanisms."""
    try:
        correlation, code, count = struct.unpack_from(">ihi", answer)
        if correlation != 1:
            return None
        names, at = [], 10
        for _ in range(count):
            (size,) = struct.unpack_from(">H", answer, at)
            names.append(answer[at + 2 : at + 2 + size].decode())
            at += 2 + size
    except (struct.error, UnicodeDecodeError):
        return None
    return SaslAnswer(code != _ILLEGAL_STATE, tuple(names)) if at == len(answer) else None


def _frame(wire: socket.socket) -> bytes:
    """What follows a size, or nothing if that cannot be the size of such an answer."""
    size = int.from_bytes(_exactly(wire, 4))
    return _exactly(wire, size) if size <= _MOST_BYTES else b""


def _exactly(wire: socket.socket, size: int) -> bytes:
    """So many bytes, or fewer if no more come."""
    received = b""
    while len(received) < size and (more := wire.recv(size - len(received))):
        received += more
    return received
