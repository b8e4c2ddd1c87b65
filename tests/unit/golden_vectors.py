"""Writes ``schemas/golden/*.json``, by fastavro and librdkafka: no code of ours decides what is right.

    python tests/unit/golden_vectors.py

A vector never changes once it is released; new ones are added at the end.
"""

from __future__ import annotations

import base64
import hmac
import io
import json
from collections.abc import Callable, Iterator
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
HEADERS = [
    {"name": "traceparent", "value": b"00-1"},
    {"name": "nothing", "value": None},
    {"name": "traceparent", "value": bytes((0, 255))},
]
BEAT_NUMBERS = ("started_at", "at", "interval_ms")
SCHEDULE_NUMBERS = ("changed_at", "every", "jitter", "start_at", "end_at", "grace")


def plain(schema: Any) -> Any:
    """The schema with times as plain numbers."""
    if isinstance(schema, dict):
        return {name: plain(part) for name, part in schema.items() if name != "logicalType"}
    return [plain(part) for part in schema] if isinstance(schema, list) else schema


def parsed(name: str) -> Any:
    return fastavro.parse_schema(plain(json.loads((SCHEMAS / f"{name}.avsc").read_text(encoding="utf-8"))))


def defaults(name: str) -> dict[str, Any]:
    """Every field in its order; None where there is no default."""
    return {field["name"]: field.get("default") for field in parsed(name)["fields"]}


def header(name: str) -> bytes:
    """C3 01 and the fingerprint; logical types are not part of it."""
    return b"\xc3\x01" + bytes.fromhex(fingerprint(to_parsing_canonical_form(parsed(name)), "CRC-64-AVRO"))


def encoded(name: str, record: dict[str, Any]) -> bytes:
    body = io.BytesIO()
    fastavro.schemaless_writer(body, parsed(name), record)
    return header(name) + body.getvalue()


# What every record has; the other fields have the defaults of their schema.
TASK: dict[str, Any] = {"id": ID, "type": "resize", "data": b"photo", "created_at": NOW_US}
RESULT: dict[str, Any] = {
    "task_id": ID,
    "type": "resize",
    "status": "OK",
    "data": b"small photo",
    "executor_id": EXECUTOR,
    "started_at": NOW_US + 1000,
    "finished_at": NOW_US + 2500,
    "source": SOURCE,
}
EVENT: dict[str, Any] = {"task_id": ID, "type": "resize", "name": "spawned", "at": NOW_US}
TIMER: dict[str, Any] = {
    "task_id": ID,
    "type": "resize",
    "attempt": 1,
    "due_at": NOW_US + 10**6,
    "topic": "shop.tasks.resize",
    "key": ID.encode(),
    "task": encoded("Task", TASK),
}
COMMAND: dict[str, Any] = {"kind": "cancel", "at": NOW_US}
HEARTBEAT: dict[str, Any] = {
    "executor_id": EXECUTOR,
    "slot": "0",
    "host": "host",
    "pid": 4711,
    "version": "0.1.0",
    "started_at": NOW_US,
    "at": NOW_US + 10**7,
    "interval_ms": 10_000,
    "in_flight": {},
}
SCHEDULE: dict[str, Any] = {
    "name": "nightly",
    "changed_at": NOW_US,
    "topic": "shop.tasks.resize",
    "task": encoded("Task", TASK | {"id": "schedule/nightly", "created_at": 0}),
    "cron": "30 2 * * *",
}
SCHEDULE_STATE: dict[str, Any] = {"due_at": NOW_US, "task_id": V5, "spawned": 1, "skipped": 0}

# Title, changes of the record above, and the record key where it does not follow from the record.
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
TIMERS: list[tuple[str, dict[str, Any]]] = [
    ("minimal", {}),
    (
        "a retry under an ordering key, with headers",
        {"attempt": 2, "key": b"customer-7", "task": encoded("Task", TASK | {"attempt": 2}), "headers": HEADERS},
    ),
    ("no key", {"key": None}),
    ("empty", {"type": "", "topic": "", "key": b"", "task": b"", "headers": [{"name": "", "value": b""}]}),
    ("binary data", {"key": b"\x00\xff\x80", "task": bytes(range(256))}),
    ("a task of 8192 bytes: the length takes three", {"task": b"x" * 8192}),
    ("64 headers: the count takes two", {"headers": [{"name": f"h{n}", "value": None} for n in range(64)]}),
    (
        "unicode",
        {"type": "t", "topic": UNICODE, "key": UNICODE.encode(), "headers": [{"name": UNICODE, "value": None}]},
    ),
    ("largest numbers", {"attempt": 2**31 - 1, "due_at": LONG_MAX}),
    ("least numbers", {"attempt": -(2**31), "due_at": LONG_MIN}),
    ("before the epoch", {"attempt": 0, "due_at": -1}),
    ("of an idempotent task", {"task_id": V5}),
]
COMMANDS: list[tuple[str, dict[str, Any]]] = [
    ("cancel a task", {"task_id": ID}),
    ("cancel a type", {"type": "resize"}),
    ("cancel by labels", {"labels": {"b": "2", "a": "1"}}),
    ("cancel a type by labels, with a reason", {"type": "resize", "labels": {"a": "1"}, "reason": "too many"}),
    ("quiet an executor", {"kind": "quiet", "executor_id": EXECUTOR}),
    ("stop all executors", {"kind": "stop"}),
    ("unknown kind", {"kind": "dance", "executor_id": EXECUTOR}),
    ("empty strings", {"kind": "", "task_id": ID, "type": "", "labels": {"": ""}, "executor_id": "", "reason": ""}),
    ("unicode", {"labels": {UNICODE: UNICODE}, "reason": UNICODE}),
    ("a reason of 8192 bytes: the length takes three", {"task_id": V5, "reason": "x" * 8192}),
    ("largest numbers", {"task_id": ID, "at": LONG_MAX}),
    ("least numbers", {"task_id": ID, "at": LONG_MIN}),
    ("the epoch", {"task_id": ID, "at": 0}),
]
HEARTBEATS: list[tuple[str, dict[str, Any]]] = [
    ("idle", {}),
    ("at work", {"slot": "7", "in_flight": {"resize": 3, "report": 0}, "attributes": {"pool": "process"}}),
    ("draining", {"version": "0.2.0", "draining": True, "in_flight": {"resize": 1}}),
    ("empty strings", {"executor_id": "", "slot": "", "host": "", "version": "", "attributes": {"": ""}}),
    ("unicode", {"executor_id": UNICODE, "host": UNICODE, "attributes": {UNICODE: UNICODE}}),
    ("64 types: the count takes two", {"in_flight": {f"t{n}": n for n in range(64)}}),
    ("largest numbers", {**dict.fromkeys(BEAT_NUMBERS, LONG_MAX), "pid": 2**31 - 1, "in_flight": {"t": 2**31 - 1}}),
    ("least numbers", {**dict.fromkeys(BEAT_NUMBERS, LONG_MIN), "pid": -(2**31), "in_flight": {"t": -(2**31)}}),
    ("zeros", {**dict.fromkeys(BEAT_NUMBERS, 0), "pid": 0}),
]
SCHEDULES: list[tuple[str, dict[str, Any]]] = [
    ("cron", {}),
    ("every minute", {"name": "minutely", "cron": None, "every": 60_000_000}),
    (
        "all fields",
        {
            "time_zone": "Europe/Berlin",
            "jitter": 5_000_000,
            "start_at": NOW_US + 10**6,
            "end_at": NOW_US + 10**12,
            "overlap": "skip",
            "catch_up": "all",
            "grace": 1,
            "paused": True,
            "key": b"customer-7",
            "headers": HEADERS,
        },
    ),
    ("overlap cancel, catch_up skip", {"overlap": "cancel", "catch_up": "skip", "grace": 0}),
    ("a priority", {"topic": "shop.priority.high.resize"}),
    ("empty", {"topic": "", "task": b"", "cron": "", "time_zone": "", "key": b""}),
    ("binary data", {"task": bytes(range(256)), "key": b"\x00\xff\x80"}),
    ("unicode", {"topic": UNICODE, "key": UNICODE.encode(), "headers": [{"name": UNICODE, "value": b"1"}]}),
    ("a name of 200 characters", {"name": "n" * 200}),
    ("a task of 8192 bytes: the length takes three", {"task": b"x" * 8192}),
    ("largest numbers", {**dict.fromkeys(SCHEDULE_NUMBERS, LONG_MAX), "cron": None}),
    ("least numbers", {**dict.fromkeys(SCHEDULE_NUMBERS, LONG_MIN), "cron": None}),
]
SCHEDULE_STATES: list[tuple[str, dict[str, Any], bytes]] = [
    ("the first task", {}, b"state/nightly"),
    ("no task yet", {"task_id": None, "spawned": 0, "skipped": 1}, b"state/nightly"),
    ("many", {"task_id": ID, "spawned": 8192, "skipped": 64}, b"state/Nightly-2.a_b"),
    ("empty id", {"task_id": ""}, b"state/n"),
    ("unicode", {"task_id": UNICODE}, b"state/n"),
    ("largest numbers", {"due_at": LONG_MAX, "spawned": LONG_MAX, "skipped": LONG_MAX}, b"state/" + b"n" * 200),
    ("least numbers", {"due_at": LONG_MIN, "spawned": LONG_MIN, "skipped": LONG_MIN}, b"state/n"),
    ("before the epoch", {"due_at": -1, "spawned": -1, "skipped": -1}, b"state/n"),
]
TABLES: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "Task": (TASK, TASKS),
    "Result": (RESULT, RESULTS),
    "Event": (EVENT, EVENTS),
    "Timer": (TIMER, TIMERS),
    "Command": (COMMAND, COMMANDS),
    "Heartbeat": (HEARTBEAT, HEARTBEATS),
    "Schedule": (SCHEDULE, SCHEDULES),
    "ScheduleState": (SCHEDULE_STATE, SCHEDULE_STATES),
}


def command_key(command: dict[str, Any]) -> str:
    labels = "&".join(f"{name}={value}" for name, value in sorted(command["labels"].items()))
    chosen = f"{command['kind']}/{command['type'] or ''}/{labels}"
    return command["task_id"] or command["executor_id"] or chosen


KEYS: dict[str, Callable[[dict[str, Any]], str]] = {
    "Task": lambda task: task["id"],
    "Result": lambda result: result["task_id"],
    "Event": lambda event: f"{event['task_id']}/{event['attempt']}/{event['name']}",
    "Timer": lambda timer: timer["task_id"],
    "Command": command_key,
    "Heartbeat": lambda heartbeat: f"heartbeat/{heartbeat['executor_id']}",
    "Schedule": lambda schedule: schedule["name"],
}


def jsonable(value: Any) -> Any:
    """Bytes as hex; everything else as it is."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        return [jsonable(part) for part in value]
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
    """The vectors of a schema. Events go by their task; the topic of schedules has one partition."""
    base, cases = TABLES[name]
    for title, changes, *given in cases:
        record = defaults(name) | base | changes
        key = KEYS[name](record).encode() if given in ([], [None]) else given[0]
        partitioned_by = record["task_id"].encode() if name == "Event" else key
        counts = PARTITIONS[:1] if name.startswith("Schedule") else PARTITIONS
        yield {
            "name": title,
            "value": jsonable(record),
            "bytes": encoded(name, record).hex(),
            "key": key.hex(),
            "partition": {str(n): librdkafka_partition(partitioned_by, n) for n in counts},
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


def signatures() -> Iterator[dict[str, Any]]:
    """Signed tasks: the same as in ``task.json``, with headers."""
    secret = bytes(range(32))
    for number, (title, changes, *_) in enumerate(TASKS):
        task = defaults("Task") | TASK | changes
        key, end = (None, b"-") if number % 2 else (task["id"].encode(), b"%d" % NOW_US)
        headers = (
            HEADERS
            if number % 3
            else [{"name": "tenant", "value": b"7"}, *HEADERS, {"name": "kantoku-x", "value": b""}]
        )
        claim = b"1.task.2026-01." + end
        fields = [claim, "shop", *(task[name] for name in ("id", "type", "data", "created_at")), key]
        fields += [task[name] for name in ("max_attempts", "timeout_ms", "not_before", "expires_at")]
        fields += [task[name] for name in ("parent_id", "context_id", "restarted_from", "idempotency_key")]
        for values in (task["labels"], task["options"]):
            fields += [len(values), *(part for name in sorted(values) for part in (name, values[name]))]
        signed = [header for header in headers if header["name"] in ("tenant", "nothing")]
        fields += [len(signed), *(part for header in signed for part in header.values())]
        mac = hmac.new(secret, b"".join(map(behind_its_length, fields)), "sha256").digest()
        yield {
            "name": title,
            "namespace": "shop",
            "value": jsonable(task),
            "key": jsonable(key),
            "headers": jsonable(headers),
            "secret": secret.hex(),
            "signature": (claim + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode(),
        }


def behind_its_length(field: str | bytes | int | None) -> bytes:
    if field is None:
        return b"\xff\xff\xff\xff"
    raw = field if isinstance(field, bytes) else str(field).encode()
    return len(raw).to_bytes(4, "big") + raw


OTHERS: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {"refused": refused, "signature": signatures}


def text_of(file_name: str) -> str:
    """What a file has to contain."""
    name = file_name.removesuffix(".json")
    found = list(OTHERS[name]() if name in OTHERS else vectors(name.title().replace("_", "")))
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


KINDS = ("task", "result", "event", "timer", "command", "heartbeat", "schedule", "schedule_state")
FILES = tuple(f"{kind}.json" for kind in (*KINDS, *OTHERS))

if __name__ == "__main__":
    for file in FILES:
        (SCHEMAS / "golden" / file).write_text(text_of(file), encoding="utf-8")
