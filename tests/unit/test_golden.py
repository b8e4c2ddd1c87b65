"""The golden vectors, which every language must reproduce: by our codec, and by fastavro and librdkafka.

``python tests/unit/golden_vectors.py`` writes them again, by fastavro: review the difference, a released vector
never changes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import fastavro
import golden_vectors
import pytest

from kantoku_kafka.avro import control
from kantoku_kafka.avro.codec import AvroCodec
from kantoku_kafka.engine.cancel import command_message
from kantoku_kafka.engine.schedule_book import STATE
from kantoku_kafka.errors import EnvelopeError
from kantoku_kafka.job import Message
from kantoku_kafka.kafka.heartbeats import PREFIX
from kantoku_kafka.kafka.outputs import EventWriter
from kantoku_kafka.kafka.partitioner import partition_of, python_partition_of
from kantoku_kafka.model import (
    SIGNATURE,
    CatchUp,
    Command,
    ErrorInfo,
    Event,
    Heartbeat,
    Overlap,
    Result,
    Schedule,
    ScheduleState,
    Source,
    Status,
    TaskEnvelope,
    Timer,
    Trail,
)
from kantoku_kafka.signing.form import header_of, read_header, signed_bytes
from kantoku_kafka.signing.keys import HmacKey

CODEC = AvroCodec()
FOLDER = golden_vectors.SCHEMAS / "golden"
TIMES = {"created_at", "not_before", "expires_at", "started_at", "finished_at", "at", "due_at"}
TIMES |= {"changed_at", "every", "jitter", "start_at", "end_at", "grace"}
READERS: dict[str, list[Callable[[bytes], Any]]] = {
    "task": [CODEC.decode_task, CODEC.peek_task],
    "result": [CODEC.decode_result],
    "event": [CODEC.decode_event],
    "timer": [control.decode_timer],
    "command": [control.decode_command],
    "heartbeat": [control.decode_heartbeat],
    "schedule": [control.decode_schedule],
    "schedule_state": [control.decode_schedule_state],
}


def vectors(kind: str) -> list[Any]:
    return [
        pytest.param(vector, id=vector["name"])
        for vector in json.loads((FOLDER / f"{kind}.json").read_text(encoding="utf-8"))
    ]


def unhex(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)


def in_model(value: dict[str, Any]) -> dict[str, Any]:
    """The JSON value in the names and types of our model."""
    fields = {f"{name}_us" if name in TIMES else name: part for name, part in value.items()}
    for name in {"data", "task", "key"} & fields.keys():
        fields[name] = unhex(fields[name])
    if "options" in fields:
        fields["options"] = {name: bytes.fromhex(option) for name, option in fields["options"].items()}
    if "headers" in fields:
        fields["headers"] = tuple((header["name"], unhex(header["value"])) for header in fields["headers"])
    if "overlap" in fields:
        fields |= {"overlap": Overlap(fields["overlap"]), "catch_up": CatchUp(fields["catch_up"])}
    if "status" in fields:
        fields["status"] = Status[fields["status"]]
    if fields.get("error") is not None:
        fields["error"] = ErrorInfo(**fields["error"])
    if fields.get("source") is not None:
        fields["source"] = Source(**fields["source"])
    return fields


def check_oracle(name: str, vector: dict[str, Any]) -> None:
    """The independent reader gives the value; librdkafka and our own murmur2 give the partitions."""
    raw = bytes.fromhex(vector["bytes"])
    assert raw[:10] == golden_vectors.header(name)
    body = io.BytesIO(raw[10:])
    record = fastavro.schemaless_reader(body, golden_vectors.parsed(name), None)
    assert golden_vectors.jsonable(record) == vector["value"]
    assert body.read() == b""


def check_partitions(partitions: dict[str, int], key: bytes, counts: tuple[str, ...] = ("1", "3", "12")) -> None:
    assert tuple(partitions) == counts
    for count, partition in partitions.items():
        assert partition_of(key, int(count)) == partition
        assert python_partition_of(key, int(count)) == partition


@pytest.mark.parametrize("file_name", golden_vectors.FILES)
def test_the_files_are_what_the_oracle_writes(file_name: str) -> None:
    assert (FOLDER / file_name).read_text(encoding="utf-8") == golden_vectors.text_of(file_name)


@pytest.mark.parametrize("vector", vectors("task"))
def test_task(vector: dict[str, Any]) -> None:
    raw = bytes.fromhex(vector["bytes"])
    task = TaskEnvelope(**in_model(vector["value"]))
    check_oracle("Task", vector)
    assert CODEC.encode_task(task) == raw
    assert CODEC.decode_task(raw) == task
    assert CODEC.peek_task(raw)[:4] == (task.id, task.type, task.data, task.attempt)
    check_partitions(vector["partition"], bytes.fromhex(vector["key"]))


@pytest.mark.parametrize("vector", vectors("result"))
def test_result(vector: dict[str, Any]) -> None:
    raw = bytes.fromhex(vector["bytes"])
    result = Result(**in_model(vector["value"]))
    check_oracle("Result", vector)
    assert CODEC.encode_result(result) == raw
    assert CODEC.decode_result(raw) == result
    assert bytes.fromhex(vector["key"]) == result.task_id.encode()
    check_partitions(vector["partition"], bytes.fromhex(vector["key"]))


@pytest.mark.parametrize("vector", vectors("event"))
def test_event(vector: dict[str, Any]) -> None:
    raw, key = bytes.fromhex(vector["bytes"]), bytes.fromhex(vector["key"])
    event = Event(**in_model(vector["value"]))
    check_oracle("Event", vector)
    assert CODEC.encode_trails([Trail.of(event)]) == [raw]
    assert CODEC.decode_event(raw) == event
    for count, partition in vector["partition"].items():
        written = EventWriter("shop.events", int(count), CODEC).message(event)
        assert written == Message("shop.events", key, raw, (), partition)
    check_partitions(vector["partition"], event.task_id.encode())


@pytest.mark.parametrize("vector", vectors("timer"))
def test_timer(vector: dict[str, Any]) -> None:
    raw, key = bytes.fromhex(vector["bytes"]), bytes.fromhex(vector["key"])
    timer = Timer(**in_model(vector["value"]))
    check_oracle("Timer", vector)
    assert control.encode_timer(timer) == raw
    assert control.decode_timer(raw) == timer
    assert key == timer.task_id.encode()
    check_partitions(vector["partition"], key)


@pytest.mark.parametrize("vector", vectors("command"))
def test_command(vector: dict[str, Any]) -> None:
    raw, key = bytes.fromhex(vector["bytes"]), bytes.fromhex(vector["key"])
    command = Command(**in_model(vector["value"]))
    check_oracle("Command", vector)
    assert command_message("shop.control", command) == Message("shop.control", key, raw)
    assert control.decode_command(raw) == command
    check_partitions(vector["partition"], key)


@pytest.mark.parametrize("vector", vectors("heartbeat"))
def test_heartbeat(vector: dict[str, Any]) -> None:
    raw, key = bytes.fromhex(vector["bytes"]), bytes.fromhex(vector["key"])
    heartbeat = Heartbeat(**in_model(vector["value"]))
    check_oracle("Heartbeat", vector)
    assert control.encode_heartbeat(heartbeat) == raw
    assert control.decode_heartbeat(raw) == heartbeat
    assert key == PREFIX + heartbeat.executor_id.encode()
    check_partitions(vector["partition"], key)


@pytest.mark.parametrize("vector", vectors("schedule"))
def test_schedule(vector: dict[str, Any]) -> None:
    raw, key = bytes.fromhex(vector["bytes"]), bytes.fromhex(vector["key"])
    schedule = Schedule(**in_model(vector["value"]))
    check_oracle("Schedule", vector)
    assert control.encode_schedule(schedule) == raw
    assert control.decode_schedule(raw) == schedule
    assert key == schedule.name.encode()
    check_partitions(vector["partition"], key, ("1",))


@pytest.mark.parametrize("vector", vectors("schedule_state"))
def test_schedule_state(vector: dict[str, Any]) -> None:
    raw, key = bytes.fromhex(vector["bytes"]), bytes.fromhex(vector["key"])
    state = ScheduleState(**in_model(vector["value"]))
    check_oracle("ScheduleState", vector)
    assert control.encode_schedule_state(state) == raw
    assert control.decode_schedule_state(raw) == state
    assert key.startswith(STATE)
    check_partitions(vector["partition"], key, ("1",))


@pytest.mark.parametrize("kind", golden_vectors.KINDS)
def test_cut_off_at_any_byte_or_with_any_byte_more_it_is_refused(kind: str) -> None:
    for vector in vectors(kind):
        raw = bytes.fromhex(vector.values[0]["bytes"])
        cut_off = [raw[:size] for size in range(len(raw))]
        longer = [raw + bytes((byte,)) for byte in range(256)]
        for bad in cut_off + longer:
            for read in READERS[kind]:
                with pytest.raises(EnvelopeError):
                    read(bad)


@pytest.mark.parametrize("kind", golden_vectors.KINDS)
def test_no_reader_takes_the_record_of_another_schema(kind: str) -> None:
    raw = bytes.fromhex(vectors(kind)[0].values[0]["bytes"])
    for read in (read for other in READERS.keys() - {kind} for read in READERS[other]):
        with pytest.raises(EnvelopeError, match="fingerprint"):
            read(raw)


@pytest.mark.parametrize("vector", vectors("refused"))
def test_what_is_no_task_is_refused(vector: dict[str, str]) -> None:
    raw = bytes.fromhex(vector["bytes"])
    for read in (CODEC.decode_task, CODEC.peek_task):
        with pytest.raises(EnvelopeError):
            read(raw)


def values(kind: str) -> list[dict[str, Any]]:
    return [vector.values[0]["value"] for vector in vectors(kind)]


def test_every_status_and_every_field_has_a_vector() -> None:
    assert {value["status"] for value in values("result")} == {status.value for status in Status}
    assert {value["overlap"] for value in values("schedule")} == set(Overlap)
    assert {value["catch_up"] for value in values("schedule")} == set(CatchUp)
    for kind in golden_vectors.KINDS:
        for name in values(kind)[0]:
            assert len({json.dumps(value[name]) for value in values(kind)}) > 1, f"{kind}.{name} is always the same"


@pytest.mark.parametrize("vector", vectors("signature"))
def test_signatures_are_what_the_oracle_makes(vector: dict[str, Any]) -> None:
    task, key = TaskEnvelope(**in_model(vector["value"])), unhex(vector["key"])
    headers = tuple((header["name"], unhex(header["value"])) for header in vector["headers"])
    found = read_header(vector["signature"].encode())
    assert found is not None and found.key_id == "2026-01"
    raw = HmacKey(found.key_id, bytes.fromhex(vector["secret"])).sign(
        signed_bytes(found.claim, vector["namespace"], task, key, headers)
    )
    assert header_of(found.claim, raw) == (SIGNATURE, vector["signature"].encode())
