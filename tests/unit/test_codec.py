"""The envelopes' codec against the generic Avro library as oracle."""

from __future__ import annotations

import io
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kantoku_kafka.avro import schemas
from kantoku_kafka.avro.codec import EVENT_HEADER, RESULT_HEADER, TASK_HEADER, AvroCodec
from kantoku_kafka.avro.readers import read_event, read_usual_event
from kantoku_kafka.errors import EnvelopeError
from kantoku_kafka.model import ErrorInfo, Event, Result, Source, Status, TaskEnvelope, Trail

CODEC = AvroCodec()
HEADERS = {"Task": TASK_HEADER, "Result": RESULT_HEADER, "Event": EVENT_HEADER}


def without_logical_types(schema: Any) -> Any:
    """Times as plain numbers, as our model has them."""
    if isinstance(schema, dict):
        return {k: without_logical_types(v) for k, v in schema.items() if k != "logicalType"}
    return [without_logical_types(item) for item in schema] if isinstance(schema, list) else schema


ORACLES = {name: fastavro.parse_schema(without_logical_types(schemas.load(f"{name}.avsc"))) for name in HEADERS}

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=90)
micros = st.integers(-(2**62), 2**62)
int32 = st.integers(-(2**31), 2**31 - 1)
sources = st.builds(Source, text, int32, st.integers(0, 2**62), int32)
errors = st.builds(ErrorInfo, text, text, st.none() | text, st.booleans())
tasks = st.builds(
    TaskEnvelope,
    id=text.filter(bool),
    type=text,
    data=st.binary(max_size=300),
    created_at_us=micros,
    attempt=int32,
    max_attempts=st.none() | int32,
    timeout_ms=st.none() | micros,
    not_before_us=st.none() | micros,
    expires_at_us=st.none() | micros,
    parent_id=st.none() | text,
    context_id=st.none() | text,
    restarted_from=st.none() | text,
    idempotency_key=st.none() | text,
    labels=st.dictionaries(text, text, max_size=4),
    options=st.dictionaries(text, st.binary(max_size=20), max_size=4),
)
plain_tasks = st.tuples(text.filter(bool), text, st.binary(max_size=300), micros).map(lambda f: TaskEnvelope(*f))
results = st.builds(
    Result,
    text,
    text,
    st.sampled_from(Status),
    st.binary(max_size=300),
    st.none() | errors,
    int32,
    text,
    st.none() | micros,
    micros,
    sources,
    st.just(()),
)
events = st.builds(
    Event,
    text,
    text,
    text,
    int32,
    micros,
    st.none() | text,
    st.none() | sources,
    st.none() | errors,
    st.dictionaries(text, text, max_size=4),
)


times = st.integers(1_500_000_000_000_000, 2_500_000_000_000_000)
names = st.text("abc.-_0", min_size=1, max_size=20)
executed = st.tuples(
    st.just("host-1"), st.builds(Source, names, st.integers(0, 300), st.integers(0, 2**40), st.integers(0, 300))
)
usual_events = st.builds(
    lambda task_id, type_, name, attempt, at_us, origin, attributes: Event(
        task_id, type_, name, attempt, at_us, *origin, None, attributes
    ),
    st.uuids().map(str),
    names,
    names,
    st.integers(1, 63),
    times,
    st.just((None, None)) | executed,
    st.dictionaries(names, names, max_size=2),
)


def oracle_record(envelope: Any) -> dict[str, Any]:
    """The envelope as the generic library wants it."""
    record = {name.removesuffix("_us"): value for name, value in envelope._asdict().items() if name != "headers"}
    for name in ("error", "source"):
        if record.get(name) is not None:
            record[name] = record[name]._asdict()
    if "status" in record:
        record["status"] = record["status"].value
    return record


def oracle_encode(name: str, envelope: Any) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, ORACLES[name], oracle_record(envelope))
    return HEADERS[name] + buffer.getvalue()


def test_headers_are_the_fingerprints_of_the_schemas() -> None:
    for name, header in HEADERS.items():
        assert header == schemas.MARKER + schemas.fingerprint_of(schemas.load(f"{name}.avsc"))


@given(tasks | plain_tasks)
def test_task_is_what_the_oracle_writes_and_reads(task: TaskEnvelope) -> None:
    value = CODEC.encode_task(task)
    assert value == oracle_encode("Task", task)
    assert CODEC.decode_task(value) == task
    assert CODEC.peek_task(value)[:4] == (task.id, task.type, task.data, task.attempt)


@given(results)
def test_result_is_what_the_oracle_writes_and_reads(result: Result) -> None:
    value = CODEC.encode_result(result)
    assert value == oracle_encode("Result", result)
    assert CODEC.decode_result(value) == result


@given(st.lists(st.tuples(events, st.lists(events, max_size=4)), max_size=4))
def test_events_are_what_the_oracle_writes_and_reads(drawn: list[tuple[Event, list[Event]]]) -> None:
    trails = [Trail.of(first)._replace(steps=[Trail.of(e).steps[0] for e in (first, *rest)]) for first, rest in drawn]
    batch = [event for trail in trails for event in trail.events()]
    values = CODEC.encode_trails(trails)
    assert values == [oracle_encode("Event", event) for event in batch]
    assert [CODEC.decode_event(value) for value in values] == batch


@given(usual_events)
def test_usual_events_take_the_short_way_and_say_the_same(event: Event) -> None:
    assert read_usual_event(oracle_encode("Event", event)) == event


@settings(max_examples=20)
@given(usual_events)
def test_the_short_way_reads_damaged_events_as_the_long_one(event: Event) -> None:
    value = oracle_encode("Event", event)
    for at in range(len(EVENT_HEADER), len(value)):
        for byte in (0, 1, 2, 4, 0x7F, 0x80, 0xFF):
            damaged = value[:at] + bytes((byte,)) + value[at + 1 :]
            quick = read_usual_event(damaged)
            if quick is not None:
                assert (quick, len(damaged)) == read_event(damaged, len(EVENT_HEADER))


@given(tasks | plain_tasks, st.data())
def test_truncated_and_trailing_bytes_are_refused(task: TaskEnvelope, data: st.DataObject) -> None:
    value = CODEC.encode_task(task)
    cut = data.draw(st.integers(0, len(value) - 1))
    for bad in (value[:cut], value + b"\0"):
        with pytest.raises(EnvelopeError):
            CODEC.decode_task(bad)
        with pytest.raises(EnvelopeError):
            CODEC.peek_task(bad)


@given(st.binary(max_size=200) | st.binary(max_size=200).map(TASK_HEADER.__add__))
def test_random_bytes_raise_one_error_only(value: bytes) -> None:
    for decode in (CODEC.peek_task, CODEC.decode_task, CODEC.decode_result, CODEC.decode_event):
        try:
            decode(value)
        except EnvelopeError:
            continue


def test_oversized_and_unknown_are_refused() -> None:
    value = CODEC.encode_task(TaskEnvelope("id", "t", b"x" * 100, 1_800_000_000_000_000))
    for decode in (AvroCodec(max_envelope_bytes=50).decode_task, AvroCodec(max_envelope_bytes=50).peek_task):
        with pytest.raises(EnvelopeError, match="at most"):
            decode(value)
    with pytest.raises(EnvelopeError, match="fingerprint"):
        CODEC.decode_task(schemas.MARKER + b"12345678" + value[10:])


@pytest.mark.parametrize("name", ["Task", "Result", "Event"])
def test_older_versions_are_read(name: str) -> None:
    schema = schemas.load(f"history/{name}.0.avsc")
    record = {
        "Task": {"id": "a", "type": "t", "data": b"d", "created_at": 7, "attempt": 2},
        "Result": {
            "task_id": "a",
            "type": "t",
            "status": "FAILED",
            "data": b"",
            "attempt": 1,
            "executor_id": "e",
            "error": {"type": "E", "message": "m"},
            "finished_at": 9,
            "source": {"topic": "x", "partition": 1, "offset": 2},
        },
        "Event": {"task_id": "a", "type": "t", "name": "n", "attempt": 1, "at": 3, "executor_id": None},
    }[name]
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(without_logical_types(schema)), record)
    value = schemas.MARKER + schemas.fingerprint_of(schema) + buffer.getvalue()
    if name == "Task":
        assert CODEC.decode_task(value) == TaskEnvelope("a", "t", b"d", 7, 2)
        assert CODEC.peek_task(value)[:4] == ("a", "t", b"d", 2)
    elif name == "Result":
        expected = Result("a", "t", Status.FAILED, b"", ErrorInfo("E", "m"), 1, "e", None, 9, Source("x", 1, 2))
        assert CODEC.decode_result(value) == expected
    else:
        assert CODEC.decode_event(value) == Event("a", "t", "n", 1, 3)
