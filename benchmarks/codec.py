"""One envelope at a time, without Kafka: fastavro with schemas parsed once, against the codec made for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any, NamedTuple

from fastavro import schemaless_reader, schemaless_writer

from benchmarks.raw.codec import HEADER_BYTES, load
from kantoku_kafka.avro.codec import AvroCodec
from kantoku_kafka.ids import new_task_id
from kantoku_kafka.model import Event, Result, Source, Status, TaskEnvelope, Trail, now_us

COUNT = 2_000
REPEATS = 5

Work = Callable[[], object]


class Pair(NamedTuple):
    """What is done, by fastavro and by the codec."""

    title: str
    fastavro: Work
    codec: Work


def rate(work: Work) -> float:
    """Envelopes a second, of the quickest of some repeats: what else the machine does only slows down."""

    def once() -> float:
        started = time.perf_counter()
        for _ in range(COUNT):
            work()
        return time.perf_counter() - started

    return COUNT / min(once() for _ in range(REPEATS))


def pairs(payload_bytes: int) -> Iterator[Pair]:
    codec, data, now = AvroCodec(), bytes(payload_bytes), now_us()
    task = TaskEnvelope(new_task_id(), "echo", data, now)
    source = Source("bench.tasks.echo", 3, 123_456, 2)
    result = Result(task.id, "echo", Status.OK, data, None, 1, "host-1234-abcdef", now, now + 7, source)
    event = Event(task.id, "echo", "executed_task", 1, now, "host-1234-abcdef", source, None, {"status": "OK"})
    trail = Trail.of(event)
    task_bytes, result_bytes = codec.encode_task(task), codec.encode_result(result)
    (event_bytes,) = codec.encode_trails([trail])
    yield Pair("read a Task", _reads("Task", task_bytes), lambda: codec.decode_task(task_bytes))
    yield Pair("peek at a Task", _reads("Task", task_bytes), lambda: codec.peek_task(task_bytes))
    yield Pair("write a Task", _writes("Task", task_bytes), lambda: codec.encode_task(task))
    yield Pair("read a Result", _reads("Result", result_bytes), lambda: codec.decode_result(result_bytes))
    yield Pair("write a Result", _writes("Result", result_bytes), lambda: codec.encode_result(result))
    yield Pair("read an Event", _reads("Event", event_bytes), lambda: codec.decode_event(event_bytes))
    yield Pair("write an Event", _writes("Event", event_bytes), lambda: codec.encode_trails((trail,)))


def _reads(name: str, value: bytes) -> Work:
    schema, header = load(name)

    def read() -> Any:
        if not value.startswith(header):
            raise ValueError(f"not a {name} envelope of the current schema")
        stream = BytesIO(value)
        stream.seek(HEADER_BYTES)
        return schemaless_reader(stream, schema, None)

    return read


def _writes(name: str, value: bytes) -> Work:
    schema, header = load(name)
    record = _reads(name, value)()

    def write() -> bytes:
        out = BytesIO()
        out.write(header)
        schemaless_writer(out, schema, record)
        return out.getvalue()

    return write
