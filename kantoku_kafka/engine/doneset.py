"""The text that a checkpoint leaves in the commit metadata: who wrote it, and what is done beyond the offset.

Layout, then base85: version (1 byte), CRC-32 (4 bytes), number of the checkpoint (4 bytes), writer (length, UTF-8),
body kind (1 byte), body. The body is a list of runs relative to the committed offset, whichever form is shorter:
``runs`` are varint pairs (unfinished, finished); ``bitmap`` has bit i set if offset + i is finished.
Two bits of the kind stand for 8 bytes each before the body: 0x80 for how far below the offset ids are remembered,
0x40 for how far beyond it the group had been before it was set back.
The CRC covers place and offset too: metadata that were copied to another offset say nothing there. Pure functions.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["MAX_BITMAP_SPAN", "MAX_RUNS", "MAX_WRITER_BYTES", "DoneSet", "Run", "decode", "encode"]

# Kafka keeps 4,096 bytes of metadata and librdkafka sends a closing NUL: 4,095 characters, 3,276 raw bytes.
_MAX_CHARACTERS = 4095
_VERSION = 1
MAX_WRITER_BYTES = 128
_NUMBER_BYTES = 4
_REMEMBERS, _WAS_SET_BACK, _DISTANCE_BYTES = 0x80, 0x40, 8
_HEADER_BYTES = 1 + 4 + _NUMBER_BYTES + 1 + MAX_WRITER_BYTES + 1 + 2 * _DISTANCE_BYTES
_MAX_BODY_BYTES = _MAX_CHARACTERS // 5 * 4 - _HEADER_BYTES
MAX_BITMAP_SPAN = _MAX_BODY_BYTES * 8
"""A done-set within this many offsets always fits."""
MAX_RUNS = _MAX_BODY_BYTES // 8
"""So many runs always fit: a pair takes 8 bytes up to 2**28 offsets each."""
_EMPTY, _RUNS, _BITMAP = 0, 1, 2

Run = tuple[int, int]
"""Finished offsets [start, end)."""


@dataclass(frozen=True, slots=True)
class DoneSet:
    """What a commit says besides its offset: who wrote it, the finished runs beyond, from where ids are remembered, and
    up to where the group had been before it was set back."""

    writer: str
    runs: Sequence[Run]
    remembered_from: int | None = None
    past_end: int | None = None


def encode(
    writer: str,
    place: str,
    offset: int,
    runs: Sequence[Run],
    number: int = 0,
    remembered_from: int | None = None,
    past_end: int | None = None,
) -> str:
    """The metadata text for a commit at ``offset``.

    Parameters:
        writer: at most 128 bytes in UTF-8.
        place: topic and partition.
        runs: ascending, not touching, all beyond ``offset``.
        number: of the checkpoint, by which a commit is told from the one before it; its lowest 32 bits are kept.
        remembered_from: an offset from which on a successor has to know the ids; None, or none below ``offset``.
        past_end: records below it may have ended before the group was set back; None, or none beyond ``offset``.

    Raises:
        ValueError: if it does not fit; the window keeps that from happening.
    """
    raw_writer = writer.encode()
    kind, body = _EMPTY, b""
    if runs:
        kind, body = _RUNS, _encode_runs(offset, runs)
        if (runs[-1][1] - offset + 7) // 8 < len(body):
            kind, body = _BITMAP, _encode_bitmap(offset, runs)
    if len(raw_writer) > MAX_WRITER_BYTES or len(body) > _MAX_BODY_BYTES:
        raise ValueError(f"a done-set of {len(runs)} runs ({len(body)} bytes) does not fit the commit metadata")
    if past_end is not None and past_end > offset:
        kind, body = kind | _WAS_SET_BACK, (past_end - offset).to_bytes(_DISTANCE_BYTES, "big") + body
    if remembered_from is not None and remembered_from < offset:
        kind, body = kind | _REMEMBERS, (offset - remembered_from).to_bytes(_DISTANCE_BYTES, "big") + body
    raw_number = (number & 0xFFFFFFFF).to_bytes(_NUMBER_BYTES, "big")
    rest = b"".join((raw_number, bytes((len(raw_writer),)), raw_writer, bytes((kind,)), body))
    return base64.b85encode(bytes((_VERSION,)) + _checksum(rest, place, offset) + rest).decode()


def decode(metadata: str, place: str, offset: int) -> DoneSet | None:
    """What a commit at ``offset`` said, or None if the text is not ours or damaged."""
    try:
        raw = base64.b85decode(metadata)
        rest = raw[5:]
        if raw[0] != _VERSION or _checksum(rest, place, offset) != raw[1:5]:
            return None
        writer_end = _NUMBER_BYTES + 1 + rest[_NUMBER_BYTES]
        writer, kind, body = rest[_NUMBER_BYTES + 1 : writer_end].decode(), rest[writer_end], rest[writer_end + 1 :]
        remembered_from = past_end = None
        if kind & _REMEMBERS:
            remembered_from = offset - int.from_bytes(body[:_DISTANCE_BYTES], "big")
            kind, body = kind & ~_REMEMBERS, body[_DISTANCE_BYTES:]
            if not 0 <= remembered_from < offset:
                return None
        if kind & _WAS_SET_BACK:
            past_end = offset + int.from_bytes(body[:_DISTANCE_BYTES], "big")
            kind, body = kind & ~_WAS_SET_BACK, body[_DISTANCE_BYTES:]
            if past_end == offset:
                return None
        if kind == _RUNS:
            return DoneSet(writer, _decode_runs(offset, body), remembered_from, past_end)
        if kind == _BITMAP:
            return DoneSet(writer, _decode_bitmap(offset, body), remembered_from, past_end)
        return DoneSet(writer, (), remembered_from, past_end) if kind == _EMPTY and not body else None
    except (ValueError, IndexError, binascii.Error):
        return None


def _checksum(rest: bytes, place: str, offset: int) -> bytes:
    return zlib.crc32(rest, zlib.crc32(f"{place}@{offset}".encode())).to_bytes(4, "big")


def _encode_runs(offset: int, runs: Sequence[Run]) -> bytes:
    out = bytearray()
    for start, end in runs:
        for number in (start - offset, end - start):
            while number > 127:
                out.append(number & 127 | 128)
                number >>= 7
            out.append(number)
        offset = end
    return bytes(out)


def _decode_runs(offset: int, body: bytes) -> list[Run]:
    numbers, number, shift = [], 0, 0
    for byte in body:
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            numbers.append(number)
            number = shift = 0
    if shift or len(numbers) % 2:
        raise ValueError("a run is cut off")
    runs = []
    for skipped, length in zip(numbers[::2], numbers[1::2], strict=True):
        runs.append((offset + skipped, offset + skipped + length))
        offset += skipped + length
    return runs


def _encode_bitmap(offset: int, runs: Sequence[Run]) -> bytes:
    bits = 0
    for start, end in runs:
        bits |= ((1 << (end - start)) - 1) << (start - offset)
    return bits.to_bytes((runs[-1][1] - offset + 7) // 8, "little")


def _decode_bitmap(offset: int, body: bytes) -> list[Run]:
    runs: list[Run] = []
    start = None
    for index, bit in enumerate(f"{int.from_bytes(body, 'little'):b}"[::-1] + "0"):
        if bit == "1" and start is None:
            start = offset + index
        elif bit == "0" and start is not None:
            runs.append((start, offset + index))
            start = None
    return runs
