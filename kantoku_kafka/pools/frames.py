"""What a pool's parent and its child processes say to each other, as bytes. Pure; safe in any thread.

A frame is the length of its body (4 bytes, big-endian), its kind (1 byte), and the body. Within a body, numbers,
byte strings and texts are Avro's primitives, a list is its length and its items, and ``x?`` is a union with null:

=======  ================  =========================================================================================
kind     who               body
=======  ================  =========================================================================================
HELLO    parent, once      JSON object: the fields of Hello (hello.py)
TASK     parent            job number, topic, partition number, epoch, offset, key?, headers, value as it came
CANCEL   parent            empty: end at once, as by SIGTERM
END      parent            empty: end after the running task
READY    child, once       empty: the app is imported
FAILED   child, instead    one sentence in UTF-8: why there will be no READY
ANSWER   child, per TASK   job number, last, status, output, error?, raised?, started_at_us, finished_at_us,
                            messages, events
BEAT     child             job number, progress: a map of texts
=======  ================  =========================================================================================

last: the child takes no other task, and wants to be ended.
header: name, value?. error: type, message, detail?, retryable. message: topic, key?, value, headers, partition.
event: bytes, an ``Event`` envelope. raised: kinds, after_us?, asked, final.
Nothing in a frame is ever executed or unpickled.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import IntEnum
from functools import partial
from typing import TypeVar

from kantoku_kafka.avro.codec import AvroCodec
from kantoku_kafka.avro.wire import (
    encode_bytes,
    encode_long,
    encode_map,
    encode_string,
    read_boolean,
    read_bytes,
    read_long,
    read_map,
    read_optional,
    read_string,
)
from kantoku_kafka.errors import EnvelopeError, KantokuError
from kantoku_kafka.job import Job, Message, Partition, Raised
from kantoku_kafka.model import ErrorInfo, Status, Trail

__all__ = [
    "FrameBuffer",
    "FrameError",
    "Kind",
    "MAX_BODY_BYTES",
    "decode_task",
    "encode_answer",
    "encode_beat",
    "encode_task",
    "frame",
    "take_answer",
    "take_beat",
]

T = TypeVar("T")

MAX_BODY_BYTES = 64 << 20
"""A longer body is refused before it is read: twice the largest envelope."""
_HEAD = struct.Struct(">IB")
_CODEC = AvroCodec(max_envelope_bytes=MAX_BODY_BYTES)


class FrameError(KantokuError):
    """Bytes that are no frame, or not the frame that is due."""


class Kind(IntEnum):
    """What a frame says."""

    HELLO = 1
    TASK = 2
    CANCEL = 3
    END = 4
    READY = 5
    FAILED = 6
    ANSWER = 7
    BEAT = 8


_KINDS = {int(kind): kind for kind in Kind}


def frame(kind: Kind, body: bytes = b"") -> bytes:
    """A whole frame. Raises FrameError if the body is too long."""
    if len(body) > MAX_BODY_BYTES:
        raise FrameError(f"A frame of {len(body)} bytes; {MAX_BODY_BYTES} is the most.")
    return _HEAD.pack(len(body), kind) + body


class FrameBuffer:
    """Bytes in, as they arrive; whole frames out. Not thread-safe."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Kind, bytes]]:
        """The frames that are complete now. Raises FrameError at the first that is none; feed it no more then."""
        self._bytes += data
        while len(self._bytes) >= _HEAD.size:
            size, number = _HEAD.unpack_from(self._bytes)
            kind = _KINDS.get(number)
            if kind is None or size > MAX_BODY_BYTES:
                raise FrameError(f"No frame begins with {bytes(self._bytes[: _HEAD.size])!r}.")
            end = _HEAD.size + size
            if len(self._bytes) < end:
                return
            with memoryview(self._bytes) as view:
                body = bytes(view[_HEAD.size : end])
            del self._bytes[:end]
            yield kind, body


def encode_task(number: int, job: Job) -> bytes:
    """The body of a TASK frame."""
    partition = job.partition
    return b"".join(
        (
            encode_long(number),
            encode_string(partition.topic),
            encode_long(partition.number),
            encode_long(partition.epoch),
            encode_long(job.offset),
            _optional(encode_bytes, job.key),
            _list(_header, job.raw_headers or ()),
            encode_bytes(job.value),
        )
    )


def decode_task(body: bytes) -> tuple[int, Job]:
    """The job of a TASK frame, not yet decoded, and its number."""
    number, pos = read_long(body, 0)
    topic, pos = read_string(body, pos)
    partition, pos = read_long(body, pos)
    epoch, pos = read_long(body, pos)
    offset, pos = read_long(body, pos)
    key, pos = read_optional(read_bytes, body, pos)
    headers, pos = _read_list(_read_header, body, pos)
    value, pos = read_bytes(body, pos)
    return number, Job(Partition(topic, partition, epoch), offset, key, value, headers)


def encode_answer(number: int, job: Job, *, last: bool = False) -> bytes:
    """The body of an ANSWER frame. Raises whatever comes of values in the effects that are not of their type."""
    assert job.status is not None, "the job has not ended"
    return b"".join(
        (
            encode_long(number),
            b"\1" if last else b"\0",
            encode_string(job.status.value),
            encode_bytes(job.output),
            _optional(_error, job.error),
            _optional(_raised, job.raised),
            encode_long(job.started_at_us or 0),
            encode_long(job.finished_at_us),
            _list(_message, job.effects or ()),
            _list(encode_bytes, _CODEC.encode_trails(map(Trail.of, job.events or ()))),
        )
    )


def take_answer(body: bytes, number: int, job: Job) -> bool:
    """Give the job the outcome in an ANSWER frame; whether it is the child's last one.

    Raises:
        FrameError: there is none, and the job is left alone.
    """
    try:
        answered, pos = read_long(body, 0)
        if answered != number:
            raise FrameError(f"An answer to job {answered}, where job {number} runs.")
        last, pos = read_boolean(body, pos)
        status, pos = read_string(body, pos)
        output, pos = read_bytes(body, pos)
        error, pos = read_optional(_read_error, body, pos)
        raised, pos = read_optional(_read_raised, body, pos)
        started_at_us, pos = read_long(body, pos)
        finished_at_us, pos = read_long(body, pos)
        effects, pos = _read_list(_read_message, body, pos)
        envelopes, pos = _read_list(read_bytes, body, pos)
        events = [_CODEC.decode_event(envelope) for envelope in envelopes]
        if pos != len(body):
            raise FrameError(f"{len(body) - pos} bytes follow an answer.")
        job.status = Status(status)
    except (EnvelopeError, ValueError) as error_:
        raise FrameError(f"An answer that cannot be read: {error_}") from error_
    job.output, job.error, job.raised = output, error, raised
    job.started_at_us, job.finished_at_us = started_at_us, finished_at_us
    job.effects, job.events = effects or None, events or None
    return last


def encode_beat(number: int, progress: Mapping[str, str]) -> bytes:
    """The body of a BEAT frame."""
    return encode_long(number) + encode_map(progress, encode_string)


def take_beat(body: bytes, number: int, job: Job) -> None:
    """Let the job know of a BEAT frame. Raises FrameError if there is none; one of an earlier job is passed over."""
    try:
        spoken, pos = read_long(body, 0)
        progress, pos = read_map(read_string, body, pos)
    except EnvelopeError as error:
        raise FrameError(f"A heartbeat that cannot be read: {error}") from error
    if pos != len(body):
        raise FrameError(f"{len(body) - pos} bytes follow a heartbeat.")
    if spoken == number:
        job.beat(progress)


# --- parts of bodies


def _optional(encode: Callable[[T], bytes], value: T | None) -> bytes:
    return b"\0" if value is None else b"\2" + encode(value)


def _list(encode: Callable[[T], bytes], items: Sequence[T]) -> bytes:
    return b"".join((encode_long(len(items)), *map(encode, items)))


def _read_list(read: Callable[[bytes, int], tuple[T, int]], body: bytes, pos: int) -> tuple[list[T], int]:
    count, pos = read_long(body, pos)
    if not 0 <= count <= len(body) - pos:  # an item takes a byte at least: no bomb
        raise EnvelopeError(f"A list of {count} items in {len(body) - pos} bytes.")
    items = []
    for _ in range(count):
        item, pos = read(body, pos)
        items.append(item)
    return items, pos


def _header(header: tuple[str, bytes | None]) -> bytes:
    name, value = header
    return encode_string(name) + _optional(encode_bytes, value)


def _read_header(body: bytes, pos: int) -> tuple[tuple[str, bytes | None], int]:
    name, pos = read_string(body, pos)
    value, pos = _read_bytes_or_none(body, pos)
    return (name, value), pos


_read_bytes_or_none = partial(read_optional, read_bytes)


def _error(error: ErrorInfo) -> bytes:
    texts = encode_string(error.type) + encode_string(error.message) + _optional(encode_string, error.detail)
    return texts + (b"\1" if error.retryable else b"\0")


def _read_error(body: bytes, pos: int) -> tuple[ErrorInfo, int]:
    kind, pos = read_string(body, pos)
    message, pos = read_string(body, pos)
    detail, pos = read_optional(read_string, body, pos)
    retryable, pos = read_boolean(body, pos)
    return ErrorInfo(kind, message, detail, retryable), pos


def _raised(raised: Raised) -> bytes:
    kinds, after_seconds, asked, final = raised
    after_us = None if after_seconds is None else round(after_seconds * 1_000_000)
    flags = (b"\1" if asked else b"\0") + (b"\1" if final else b"\0")
    return _list(encode_string, kinds) + _optional(encode_long, after_us) + flags


def _read_raised(body: bytes, pos: int) -> tuple[Raised, int]:
    kinds, pos = _read_list(read_string, body, pos)
    after_us, pos = read_optional(read_long, body, pos)
    asked, pos = read_boolean(body, pos)
    final, pos = read_boolean(body, pos)
    return Raised(tuple(kinds), None if after_us is None else after_us / 1_000_000, asked, final), pos


def _message(message: Message) -> bytes:
    return b"".join(
        (
            encode_string(message.topic),
            _optional(encode_bytes, message.key),
            encode_bytes(message.value or b""),
            _list(_header, message.headers),
            encode_long(message.partition),
        )
    )


def _read_message(body: bytes, pos: int) -> tuple[Message, int]:
    topic, pos = read_string(body, pos)
    key, pos = read_optional(read_bytes, body, pos)
    value, pos = read_bytes(body, pos)
    headers, pos = _read_list(_read_header, body, pos)
    partition, pos = read_long(body, pos)
    return Message(topic, key, value, tuple(headers), partition), pos
