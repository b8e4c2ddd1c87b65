"""Avro's primitive encodings, written for speed.

Source: Apache Avro 1.12 specification, "Binary Encoding". Long and int are zigzag then little-endian base 128.
Pure functions; safe in any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TypeVar

from kantoku_kafka.errors import EnvelopeError

T = TypeVar("T")
Reader = Callable[[bytes, int], tuple[T, int]]

_LONG_MIN, _LONG_MAX = -(1 << 63), (1 << 63) - 1
# Bytes of every 14-bit number: alone, and as the first two bytes of a longer one.
_SHORT = [bytes((z,)) if z < 128 else bytes((z & 127 | 128, z >> 7)) for z in range(1 << 14)]
_FIRST_TWO = [bytes((z & 127 | 128, z >> 7 | 128)) for z in range(1 << 14)]


@lru_cache(maxsize=4096)
def _unsigned(z: int) -> bytes:
    return _SHORT[z] if z < 16384 else _FIRST_TWO[z & 16383] + _unsigned(z >> 14)


def encode_long(n: int) -> bytes:
    """An Avro ``long`` or ``int``. Raises EnvelopeError beyond 64 bits."""
    z = n << 1 if n >= 0 else ~(n << 1)
    if z < 16384:
        return _SHORT[z]
    if not _LONG_MIN <= n <= _LONG_MAX:
        raise EnvelopeError(f"{n} does not fit an Avro long; use a number of 64 bits.")
    return _FIRST_TWO[z & 16383] + _unsigned(z >> 14)


def encode_bytes(value: bytes) -> bytes:
    """An Avro ``bytes``: length, then the bytes."""
    return encode_long(len(value)) + value


def encode_string(value: str) -> bytes:
    """An Avro ``string``: length in UTF-8, then the UTF-8."""
    try:
        raw = value.encode()
    except UnicodeEncodeError as error:
        raise EnvelopeError(f"A string of the envelope cannot be written as UTF-8: {error.reason}.") from error
    return encode_long(len(raw)) + raw


def encode_map(items: Mapping[str, T], encode_value: Callable[[T], bytes]) -> bytes:
    """An Avro ``map``: one block, then the empty one."""
    if not items:
        return b"\0"
    parts = [encode_long(len(items))]
    for key, value in items.items():
        parts += (encode_string(key), encode_value(value))
    parts.append(b"\0")
    return b"".join(parts)


def read_long(buf: bytes, pos: int) -> tuple[int, int]:
    """An Avro ``long`` at ``pos``, and the position behind it. Raises EnvelopeError."""
    try:
        byte = buf[pos]
        if byte < 128:
            return (byte >> 1) ^ -(byte & 1), pos + 1
        z, shift = byte & 127, 7
        while True:
            pos += 1
            byte = buf[pos]
            z |= (byte & 127) << shift
            if byte < 128:
                break
            shift += 7
            if shift > 63:
                raise EnvelopeError("A number in the envelope is longer than 64 bits.")
    except IndexError:
        raise EnvelopeError("The envelope is truncated inside a number.") from None
    if z >> 64:
        raise EnvelopeError("A number in the envelope is longer than 64 bits.")
    return (z >> 1) ^ -(z & 1), pos + 1


@lru_cache(maxsize=64)
def _upper_half(raw: bytes) -> int:
    """What the last four of eight bytes add to a long; -1 if it does not end with them. All of a minute share them."""
    if len(raw) < 4 or any(byte < 128 for byte in raw[:3]) or raw[3] > 127:
        return -1
    return sum((byte & 127) << 7 * place for place, byte in enumerate(raw, 4))


def read_time(buf: bytes, pos: int) -> tuple[int, int]:
    """As :func:`read_long`; quicker for one of eight bytes, as a time in microseconds between 1988 and 2111 is."""
    low, high = int.from_bytes(buf[pos : pos + 4], "little"), _upper_half(buf[pos + 4 : pos + 8])
    if low & 0x80808080 != 0x80808080 or high < 0:
        return read_long(buf, pos)
    z = low & 0x7F | low >> 1 & 0x3F80 | low >> 2 & 0x1FC000 | low >> 3 & 0xFE00000 | high
    return (z >> 1) ^ -(z & 1), pos + 8


def read_int(buf: bytes, pos: int) -> tuple[int, int]:
    """An Avro ``int``: a long of at most 32 bits."""
    byte = buf[pos] if pos < len(buf) else 128
    if byte < 128:
        return (byte >> 1) ^ -(byte & 1), pos + 1
    value, pos = read_long(buf, pos)
    if not -(1 << 31) <= value < 1 << 31:
        raise EnvelopeError(f"{value} does not fit the 32 bits of an Avro int.")
    return value, pos


def read_bytes(buf: bytes, pos: int) -> tuple[bytes, int]:
    """An Avro ``bytes``; the length is checked against the buffer before anything is taken."""
    size, pos = read_long(buf, pos)
    end = pos + size
    if size < 0 or end > len(buf):
        raise EnvelopeError(f"The envelope is truncated: {size} bytes announced, {len(buf) - pos} left.")
    return buf[pos:end], end


def read_string(buf: bytes, pos: int) -> tuple[str, int]:
    """An Avro ``string``; what is not UTF-8 is refused."""
    try:
        size = buf[pos]
        if size < 128 and not size & 1:  # most strings: the length is one byte, and all of it is there
            end = pos + 1 + (size >> 1)
            if end <= len(buf):
                return buf[pos + 1 : end].decode(), end
        raw, pos = read_bytes(buf, pos)
        return raw.decode(), pos
    except IndexError:
        raise EnvelopeError("The envelope is truncated at a string.") from None
    except UnicodeDecodeError as error:
        raise EnvelopeError(f"A string in the envelope is not UTF-8: {error.reason}.") from error


def read_boolean(buf: bytes, pos: int) -> tuple[bool, int]:
    """An Avro ``boolean``: one byte, 0 or 1."""
    byte = buf[pos : pos + 1]
    if byte not in (b"\0", b"\1"):
        raise EnvelopeError("The envelope has no boolean where one is due.")
    return byte == b"\1", pos + 1


def read_optional(read: Reader[T], buf: bytes, pos: int) -> tuple[T | None, int]:
    """A union of null and one other type, in that order."""
    branch = buf[pos : pos + 1]
    if branch == b"\0":
        return None, pos + 1
    if branch == b"\2":
        return read(buf, pos + 1)
    raise EnvelopeError("The envelope has an unknown union branch, or is truncated at one.")


def read_map(read: Reader[T], buf: bytes, pos: int) -> tuple[dict[str, T], int]:
    """An Avro ``map``; of a key that occurs twice the last one counts."""
    if buf.startswith(b"\0", pos):
        return {}, pos + 1

    def read_entry(buf: bytes, pos: int) -> tuple[tuple[str, T], int]:
        key, pos = read_string(buf, pos)
        value, pos = read(buf, pos)
        return (key, value), pos

    entries, pos = read_array(read_entry, buf, pos)
    return dict(entries), pos


def read_array(read: Reader[T], buf: bytes, pos: int) -> tuple[list[T], int]:
    """An Avro ``array`` of items of two bytes or more; a block of negative count states its size, which must fit."""
    items: list[T] = []
    while True:
        count, pos = read_long(buf, pos)
        if count == 0:
            return items, pos
        end = None
        if count < 0:
            count = -count
            size, pos = read_long(buf, pos)
            end = pos + size
        if count * 2 > len(buf) - pos:  # no bomb
            raise EnvelopeError(f"The envelope is truncated: {count} entries in {len(buf) - pos} bytes.")
        for _ in range(count):
            item, pos = read(buf, pos)
            items.append(item)
        if end is not None and end != pos:
            raise EnvelopeError("A block in the envelope does not have the size that it states.")
