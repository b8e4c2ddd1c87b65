"""The codec of the fixed envelopes: Avro single-object encoding, by hand.

A record is ``C3 01``, the fingerprint of the writer's schema, and the Avro body. The three current schemas
are written and read by code made for them; an older version is read by its own schema.
The generic library stays the oracle of the tests: same bytes, same values, both ways.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import TypeVar

from kantoku_kafka.avro import schemas
from kantoku_kafka.avro.readers import STATUSES, read_by_schema, read_event, read_result, read_task, read_usual_event
from kantoku_kafka.avro.wire import (
    Reader,
    encode_bytes,
    encode_long,
    encode_map,
    encode_string,
    read_bytes,
)
from kantoku_kafka.errors import EnvelopeError
from kantoku_kafka.model import ErrorInfo, Event, Result, Source, TaskEnvelope, Trail

__all__ = ["AvroCodec"]

T = TypeVar("T")

# Fingerprints of the current schemas; a test compares them with the files.
TASK_HEADER = schemas.MARKER + bytes.fromhex("3000548637174e6f")
RESULT_HEADER = schemas.MARKER + bytes.fromhex("a85096f29f3bc204")
EVENT_HEADER = schemas.MARKER + bytes.fromhex("fca43825067010ae")
_HEADER_BYTES = len(TASK_HEADER)
_MAX_ID = 255

_PLAIN_TAIL = b"\2" + b"\0" * 10  # attempt 1, and every later field of Task at its default
_PLAIN = TaskEnvelope("", "", b"", 0)[4:]
_STATUS_BYTES = {status: encode_long(index) for index, status in enumerate(STATUSES)}
_NULL = b"\0"
_NOTHING_MORE = b"\0\0"  # no error, no attributes
_some_string = lru_cache(maxsize=4096)(lambda text: b"\2" + encode_string(text))
_known_string = lru_cache(maxsize=4096)(encode_string)
# The bits that say "more follows" in a long of exactly 8 bytes, as every time between 1988 and 2111 is.
_MORE, _MORE_OF_8 = 0x8080808080808080, 0x0080808080808080


class AvroCodec:
    """Encodes and decodes ``Task``, ``Result`` and ``Event``. Stateless: safe in any thread.

    Parameters:
        max_envelope_bytes: a longer record is refused before it is looked at; default 32 MiB.

    Every ``decode_*`` and :meth:`peek_task` raises EnvelopeError, and nothing else, on bytes that are not
    exactly one envelope of a released schema.
    """

    def __init__(self, *, max_envelope_bytes: int = 32 << 20) -> None:
        self.max_envelope_bytes = max_envelope_bytes

    # --- Task

    def encode_task(self, task: TaskEnvelope) -> bytes:
        """The bytes of an input record."""
        task_id, type_, data, created_at_us = task[:4]
        return b"".join(
            (
                TASK_HEADER,
                encode_string(task_id),
                _known_string(type_),
                encode_long(len(data)),
                data,
                encode_long(created_at_us),
                _PLAIN_TAIL if task[4:] == _PLAIN else _task_tail(task),
            )
        )

    def peek_task(self, value: bytes) -> tuple[str, str, bytes, int, TaskEnvelope | None]:
        """``(id, type, data, attempt)`` of an input record, having checked all of it; and the whole envelope if there
        is more in it than these and ``created_at``."""
        try:
            id_size, pos = value[_HEADER_BYTES], _HEADER_BYTES + 1
            if id_size < 128 and not id_size & 1 and value.startswith(TASK_HEADER):
                id_end = pos + (id_size >> 1)
                type_size = value[id_end]
                if type_size < 128 and not type_size & 1:
                    type_end = id_end + 1 + (type_size >> 1)
                    data, data_end = read_bytes(value, type_end)
                    tail = data_end + 8
                    if (
                        value[tail:] == _PLAIN_TAIL
                        and int.from_bytes(value[data_end:tail], "little") & _MORE == _MORE_OF_8
                        and tail < self.max_envelope_bytes
                        and id_size
                    ):
                        return value[pos:id_end].decode(), value[id_end + 1 : type_end].decode(), data, 1, None
        except (IndexError, UnicodeDecodeError):
            pass  # decode_task names what is wrong
        task = self.decode_task(value)
        return task.id, task.type, task.data, task.attempt, task

    def decode_task(self, value: bytes) -> TaskEnvelope:
        """The whole envelope of an input record."""
        task = self._decode("Task", TASK_HEADER, read_task, value)
        if not 0 < len(task.id) <= _MAX_ID:
            raise EnvelopeError(f"The task has an id of {len(task.id)} characters; it may have 1 to {_MAX_ID}.")
        return task

    # --- Result

    def encode_result(self, result: Result) -> bytes:
        """The bytes of a record of the results topic."""
        task_id, type_, status, data, error, attempt, executor_id, started_us, finished_us, source, _ = result
        return b"".join(
            (
                RESULT_HEADER,
                encode_string(task_id),
                _known_string(type_),
                _STATUS_BYTES[status],
                encode_long(len(data)),
                data,
                _NULL if error is None else _error(error),
                encode_long(attempt),
                _known_string(executor_id),
                _NULL if started_us is None else b"\2" + encode_long(started_us),
                encode_long(finished_us),
                _source(source),
            )
        )

    def decode_result(self, value: bytes) -> Result:
        """The result in a record of the results topic (without the record's headers)."""
        return self._decode("Result", RESULT_HEADER, read_result, value)

    # --- Event

    def encode_trails(self, trails: Iterable[Trail]) -> list[bytes]:
        """The bytes of records of the audit topic, one for each step; the steps of a trail share the work."""
        encoded = []
        last_attributes: object = None
        ending = _NOTHING_MORE
        for task_id, type_, attempt, executor_id, source, steps in trails:
            head = EVENT_HEADER + encode_string(task_id)
            executor = _NULL if executor_id is None else _some_string(executor_id)
            origin = executor + (_NULL if source is None else b"\2" + _source(source))
            last_at_us, at = None, b""
            for name, at_us, error, attributes in steps:
                if at_us != last_at_us:
                    last_at_us, at = at_us, encode_long(at_us)
                if error is not None:
                    end = _error(error) + encode_map(attributes, encode_string)
                elif not attributes:
                    end = _NOTHING_MORE
                else:
                    if attributes is not last_attributes:
                        last_attributes, ending = attributes, _NULL + encode_map(attributes, encode_string)
                    end = ending
                encoded.append(b"".join((head, _step(type_, name, attempt), at, origin, end)))
        return encoded

    def decode_event(self, value: bytes) -> Event:
        """The event in a record of the audit topic."""
        event = (
            read_usual_event(value)
            if len(value) <= self.max_envelope_bytes and value.startswith(EVENT_HEADER)
            else None
        )
        return event or self._decode("Event", EVENT_HEADER, read_event, value)

    def _decode(self, name: str, header: bytes, read: Reader[T], value: bytes) -> T:
        if len(value) > self.max_envelope_bytes:
            raise EnvelopeError(
                f"The record has {len(value)} bytes; an envelope may have {self.max_envelope_bytes} at most."
            )
        decoded: T
        if value.startswith(header):
            decoded, end = read(value, _HEADER_BYTES)
        else:
            decoded, end = read_by_schema(name, value, _HEADER_BYTES)
        if end != len(value):
            raise EnvelopeError(f"{len(value) - end} bytes follow the envelope; a record holds one and no more.")
        return decoded


def _task_tail(task: TaskEnvelope) -> bytes:
    limits = (task.max_attempts, task.timeout_ms, task.not_before_us, task.expires_at_us)
    lineage = (task.parent_id, task.context_id, task.restarted_from, task.idempotency_key)
    maps = encode_map(task.labels, encode_string) + encode_map(task.options, encode_bytes)
    return b"".join(
        (
            encode_long(task.attempt),
            *(_NULL if number is None else b"\2" + encode_long(number) for number in limits),
            *(_NULL if text is None else b"\2" + encode_string(text) for text in lineage),
            maps,
        )
    )


def _error(error: ErrorInfo) -> bytes:
    type_, message, detail, retryable = error
    return b"".join(
        (
            b"\2",
            encode_string(type_),
            encode_string(message),
            _NULL if detail is None else b"\2" + encode_string(detail),
            b"\1" if retryable else b"\0",
        )
    )


def _source(source: Source) -> bytes:
    topic, partition, offset, epoch = source
    return _source_prefix(topic, partition) + encode_long(offset) + encode_long(epoch)


@lru_cache(maxsize=4096)
def _step(type_: str, name: str, attempt: int) -> bytes:
    return encode_string(type_) + encode_string(name) + encode_long(attempt)


@lru_cache(maxsize=4096)
def _source_prefix(topic: str, partition: int) -> bytes:
    return encode_string(topic) + encode_long(partition)
