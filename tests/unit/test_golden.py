"""The golden vectors, which every language must reproduce: by our codec, and by fastavro and librdkafka.

``python tests/unit/golden_vectors.py`` writes them again, by fastavro: review the difference, a released vector
never changes.
"""

from __future__ import annotations

import io
import json
from typing import Any

import fastavro
import golden_vectors
import pytest

from kantoku_kafka.avro.codec import AvroCodec
from kantoku_kafka.errors import EnvelopeError
from kantoku_kafka.job import Message
from kantoku_kafka.kafka.outputs import EventWriter
from kantoku_kafka.kafka.partitioner import partition_of, python_partition_of
from kantoku_kafka.model import ErrorInfo, Event, Result, Source, Status, TaskEnvelope, Trail

CODEC = AvroCodec()
FOLDER = golden_vectors.SCHEMAS / "golden"
BYTES_OF_TASK = ("data", "options")


def vectors(kind: str) -> list[Any]:
    return [
        pytest.param(vector, id=vector["name"])
        for vector in json.loads((FOLDER / f"{kind}.json").read_text(encoding="utf-8"))
    ]


def in_model(value: dict[str, Any]) -> dict[str, Any]:
    """The JSON value in the names and types of our model."""
    times = {"created_at", "not_before", "expires_at", "started_at", "finished_at", "at"}
    fields = {f"{name}_us" if name in times else name: part for name, part in value.items()}
    if "data" in fields:
        fields["data"] = bytes.fromhex(fields["data"])
    if "options" in fields:
        fields["options"] = {name: bytes.fromhex(option) for name, option in fields["options"].items()}
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


def check_partitions(partitions: dict[str, int], key: bytes) -> None:
    assert list(partitions) == ["1", "3", "12"]
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


@pytest.mark.parametrize("vector", vectors("refused"))
def test_what_is_no_task_is_refused(vector: dict[str, str]) -> None:
    raw = bytes.fromhex(vector["bytes"])
    for read in (CODEC.decode_task, CODEC.peek_task):
        with pytest.raises(EnvelopeError):
            read(raw)


def test_every_status_and_every_field_has_a_vector() -> None:
    results = [vector.values[0]["value"] for vector in vectors("result")]
    assert {value["status"] for value in results} == {status.value for status in Status}
    for kind in ("task", "result", "event"):
        values = [vector.values[0]["value"] for vector in vectors(kind)]
        for name in values[0]:
            assert len({json.dumps(value[name]) for value in values}) > 1, f"{kind}.{name} is always the same"
