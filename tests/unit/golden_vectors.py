"""Writes ``schemas/golden/*.json``, by fastavro and librdkafka: no code of ours decides what is right.

    python tests/unit/golden_vectors.py

A vector never changes once it is released; new ones are added at the end.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
from fastavro.schema import fingerprint, to_parsing_canonical_form

SCHEMAS = Path(__file__).parent.parent.parent / "schemas"
PARTITIONS = (1, 3, 12)
ID = "0194f1c2-7c1e-7aaa-8bbb-123456789abc"
V5 = "c0d6ae5f-45a6-5d6c-b9b6-3f1ef6a8a0c5"
NOW_US = 1_767_225_600_123_456
LONG_MIN, LONG_MAX = -(2**63), 2**63 - 1
EXECUTOR = "host-4711-a1b2c3"
UNICODE = "Größe 寸法 🜚 \u0000 e\u0301"
SOURCE = {"topic": "shop.tasks.resize", "partition": 3, "offset": 1234567, "epoch": 2}
FAR_SOURCE = {"topic": UNICODE, "partition": 2**31 - 1, "offset": LONG_MAX, "epoch": -(2**31)}
ERROR = {"type": "ValueError", "message": "no picture", "detail": "Traceback: line 1", "retryable": True}
BARE_ERROR = {"type": "ValueError", "message": "", "detail": None, "retryable": False}

TASK: dict[str, Any] = {
    "id": ID,
    "type": "resize",
    "data": b"photo",
    "created_at": NOW_US,
    "attempt": 1,
    "max_attempts": None,
    "timeout_ms": None,
    "not_before": None,
    "expires_at": None,
    "parent_id": None,
    "context_id": None,
    "restarted_from": None,
    "idempotency_key": None,
    "labels": {},
    "options": {},
}
RESULT: dict[str, Any] = {
    "task_id": ID,
    "type": "resize",
    "status": "OK",
    "data": b"small photo",
    "error": None,
    "attempt": 1,
    "executor_id": EXECUTOR,
    "started_at": NOW_US + 1000,
    "finished_at": NOW_US + 2500,
    "source": SOURCE,
}
EVENT: dict[str, Any] = {
    "task_id": ID,
    "type": "resize",
    "name": "spawned",
    "attempt": 1,
    "at": NOW_US,
    "executor_id": None,
    "source": None,
    "error": None,
    "attributes": {},
}

# Name, changes of the record above, and for a task its ordering key.
TASKS: list[tuple[str, dict[str, Any], bytes | None]] = [
    ("minimal", {}, None),
    (
        "all fields",
        {
            "id": V5,
            "attempt": 3,
            "max_attempts": 5,
            "timeout_ms": 30_000,
            "not_before": NOW_US + 10**6,
            "expires_at": NOW_US + 10**9,
            "parent_id": ID,
            "context_id": "ctx-1",
            "restarted_from": ID,
            "idempotency_key": "order-17",
            "labels": {"a": "1", "b": "2"},
            "options": {"kantoku.logger": b""},
        },
        b"customer-7",
    ),
    ("empty data", {"data": b""}, None),
    ("binary data", {"data": bytes(range(256))}, b"\x00\xff\x80"),
    (
        "unicode",
        {"type": "t", "context_id": UNICODE, "idempotency_key": UNICODE, "labels": {UNICODE: UNICODE}},
        UNICODE.encode(),
    ),
    ("largest numbers", {"created_at": LONG_MAX, "attempt": 2**31 - 1, "timeout_ms": LONG_MAX}, None),
    (
        "least numbers",
        {"created_at": LONG_MIN, "attempt": -(2**31), "max_attempts": -1, "timeout_ms": 0, "not_before": LONG_MIN},
        None,
    ),
    ("data of 64 bytes: the length takes two", {"data": b"x" * 64}, None),
    ("data of 8192 bytes: the length takes three", {"data": b"x" * 8192}, None),
    ("empty strings", {"context_id": "", "idempotency_key": "", "labels": {"": ""}, "options": {"": b""}}, b"k"),
    ("binary option", {"options": {"plugin": bytes((0, 127, 128, 255))}}, None),
]
RESULTS: list[tuple[str, dict[str, Any]]] = [
    ("OK", {}),
    ("FAILED, with detail", {"status": "FAILED", "data": b"", "error": ERROR}),
    ("FAILED, without detail", {"status": "FAILED", "data": b"", "error": BARE_ERROR}),
    ("TIMED_OUT", {"status": "TIMED_OUT", "data": b"", "error": ERROR, "attempt": 2}),
    ("CANCELLED", {"status": "CANCELLED", "data": b"", "error": BARE_ERROR}),
    ("CRASHED", {"status": "CRASHED", "data": b"", "error": ERROR}),
    ("EXPIRED, never started", {"status": "EXPIRED", "data": b"", "error": BARE_ERROR, "started_at": None}),
    ("REJECTED, never started", {"status": "REJECTED", "data": b"", "error": BARE_ERROR, "started_at": None}),
    ("empty data", {"data": b""}),
    ("binary data", {"data": bytes(range(256))}),
    (
        "unicode",
        {"type": "t", "executor_id": UNICODE, "error": {**ERROR, "detail": UNICODE}, "status": "FAILED"},
    ),
    ("largest numbers", {"attempt": 2**31 - 1, "started_at": LONG_MAX, "finished_at": LONG_MAX, "source": FAR_SOURCE}),
    ("least numbers", {"attempt": -(2**31), "started_at": LONG_MIN, "finished_at": LONG_MIN}),
    ("of an idempotent task", {"task_id": V5, "executor_id": ""}),
]
EVENTS: list[tuple[str, dict[str, Any]]] = [
    ("minimal", {}),
    (
        "all fields",
        {
            "name": "sent_outputs",
            "attempt": 2,
            "executor_id": EXECUTOR,
            "source": SOURCE,
            "error": ERROR,
            "attributes": {"status": "FAILED", "label.customer": "7"},
        },
    ),
    ("error without detail", {"name": "error", "executor_id": EXECUTOR, "source": SOURCE, "error": BARE_ERROR}),
    ("of a user", {"name": "image.loaded", "executor_id": EXECUTOR, "source": SOURCE, "attributes": {"px": "9"}}),
    ("unicode", {"type": "t", "name": f"image.{UNICODE}", "attributes": {UNICODE: UNICODE}}),
    ("largest numbers", {"attempt": 2**31 - 1, "at": LONG_MAX, "source": FAR_SOURCE}),
    ("least numbers", {"attempt": -(2**31), "at": LONG_MIN}),
    ("of an idempotent task", {"task_id": V5, "name": "received_task", "source": SOURCE}),
]


def plain(schema: Any) -> Any:
    """The schema with times as plain numbers."""
    if isinstance(schema, dict):
        return {name: plain(part) for name, part in schema.items() if name != "logicalType"}
    return [plain(part) for part in schema] if isinstance(schema, list) else schema


def parsed(name: str) -> Any:
    return fastavro.parse_schema(plain(json.loads((SCHEMAS / f"{name}.avsc").read_text(encoding="utf-8"))))


def header(name: str) -> bytes:
    """C3 01 and the fingerprint; logical types are not part of it."""
    return b"\xc3\x01" + bytes.fromhex(fingerprint(to_parsing_canonical_form(parsed(name)), "CRC-64-AVRO"))


def encoded(name: str, record: dict[str, Any]) -> bytes:
    body = io.BytesIO()
    fastavro.schemaless_writer(body, parsed(name), record)
    return header(name) + body.getvalue()


def jsonable(value: Any) -> Any:
    """Bytes as hex; everything else as it is."""
    if isinstance(value, bytes):
        return value.hex()
    return {name: jsonable(part) for name, part in value.items()} if isinstance(value, dict) else value


def librdkafka_partition(key: bytes, partitions: int) -> int:
    """By the library's own function, which a Producer with partitioner=murmur2_random calls."""
    import ctypes

    import confluent_kafka.cimpl

    function = ctypes.CDLL(confluent_kafka.cimpl.__file__).rd_kafka_msg_partitioner_murmur2
    function.restype = ctypes.c_int32
    pointer = ctypes.c_void_p
    function.argtypes = (pointer, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int32, pointer, pointer)
    return int(function(None, key, len(key), partitions, None, None))


def vectors(name: str) -> Iterator[dict[str, Any]]:
    """The vectors of ``Task``, ``Result`` or ``Event``."""
    cases: list[tuple[str, dict[str, Any], bytes, bytes]] = []
    if name == "Task":
        for title, changes, key in TASKS:
            record = TASK | changes
            key = record["id"].encode() if key is None else key
            cases.append((title, record, key, key))
    elif name == "Result":
        for title, changes in RESULTS:
            record = RESULT | changes
            cases.append((title, record, record["task_id"].encode(), record["task_id"].encode()))
    else:
        for title, changes in EVENTS:
            record = EVENT | changes
            key = f"{record['task_id']}/{record['attempt']}/{record['name']}".encode()
            cases.append((title, record, key, record["task_id"].encode()))
    for title, record, key, partitioned_by in cases:
        yield {
            "name": title,
            "value": jsonable(record),
            "bytes": encoded(name, record).hex(),
            "key": key.hex(),
            "partition": {str(n): librdkafka_partition(partitioned_by, n) for n in PARTITIONS},
        }


def refused() -> Iterator[dict[str, str]]:
    """Bytes that are no ``Task``: every reader must refuse them, and none may crash, hang or take memory."""
    whole = encoded("Task", TASK)
    start, body = whole[:10], whole[10:]
    cases = {
        "empty": b"",
        "not single-object encoding": b"{" + whole[1:],
        "cut off in the header": whole[:6],
        "unknown fingerprint": whole[:2] + b"\0" * 8 + body,
        "cut off in the body": whole[:-1],
        "a byte too much": whole + b"\0",
        "the id is not UTF-8": start + b"\x04\xff\xfe" + body[1 + len(ID) :],
        "a length beyond the end": start + b"\xfe\xff\xff\xff\x0f",
        "a negative length": start + b"\x01",
        "a number of 11 bytes": start + b"\x80" * 10 + b"\x01",
        "an empty id": encoded("Task", TASK | {"id": ""}),
        "a Result": encoded("Result", RESULT),
    }
    for title, value in cases.items():
        yield {"name": title, "bytes": value.hex()}


def text_of(file_name: str) -> str:
    """What a file has to contain."""
    name = file_name.removesuffix(".json")
    found = list(refused()) if name == "refused" else list(vectors(name.capitalize()))
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


FILES = ("task.json", "result.json", "event.json", "refused.json")

if __name__ == "__main__":
    for file in FILES:
        (SCHEMAS / "golden" / file).write_text(text_of(file), encoding="utf-8")
