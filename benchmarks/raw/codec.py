"""The envelopes as a hand-written program handles them: fastavro with schemas that were parsed once.

Two liberties that a careful engineer takes are taken here, so that the opponent is not a weak one:

- the `timestamp-micros` annotations are dropped from the parsed schemas. The bytes are the same, but fastavro
  then moves plain integers instead of building `datetime` objects: 0.9 us less to read a task, 1.3 us less to
  write a result;
- task ids are formatted by hand, with the time part kept until the millisecond changes: 0.3 us instead of the
  1.4 us of `uuid.uuid4()`.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from fastavro import parse_schema, schemaless_reader, schemaless_writer
from fastavro.schema import fingerprint, to_parsing_canonical_form

SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"
HEADER_BYTES = 10


def _plain(node: Any) -> Any:
    """The schema without what has no bearing on the bytes: documentation and logical types."""
    if isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items() if key not in ("doc", "logicalType")}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    return node


def load(name: str) -> tuple[Any, bytes]:
    """The parsed schema of an envelope, and the header of its single-object encoding."""
    schema = json.loads((SCHEMAS / f"{name}.avsc").read_text(encoding="utf-8"))
    crc = bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))
    return parse_schema(_plain(schema)), b"\xc3\x01" + crc


TASK, TASK_HEADER = load("Task")
RESULT, RESULT_HEADER = load("Result")


def task_ids(
    clock_ns: Callable[[], int] = time.time_ns, random_bits: Callable[[int], int] = random.getrandbits
) -> Iterator[tuple[str, int]]:
    """Endless (UUIDv7 as text, microseconds since 1970): 26 random bits a millisecond, 48 for each id."""
    last_ms, prefix = -1, ""
    while True:
        now_us = clock_ns() // 1000
        now_ms = now_us // 1000
        if now_ms != last_ms:
            last_ms, text = now_ms, f"{now_ms:012x}"
            prefix = f"{text[:8]}-{text[8:]}-7{random_bits(12):03x}-{0x8000 | random_bits(14):04x}-"
        yield "%s%012x" % (prefix, random_bits(48)), now_us  # noqa: UP031 (the fastest form, and this is a benchmark)


def encode_task(task_id: str, task_type: str, data: bytes, created_at: int) -> bytes:
    out = BytesIO()
    out.write(TASK_HEADER)
    schemaless_writer(out, TASK, {"id": task_id, "type": task_type, "data": data, "created_at": created_at})
    return out.getvalue()


def decode_result(value: bytes) -> dict[str, Any]:
    if not value.startswith(RESULT_HEADER):
        raise ValueError("not a Result envelope of the current schema")
    stream = BytesIO(value)
    stream.seek(HEADER_BYTES)
    record = schemaless_reader(stream, RESULT, None)
    assert isinstance(record, dict)
    return record
