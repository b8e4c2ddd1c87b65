"""Heartbeats, commands, timers and schedules: what is written is read, and nothing else is."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kantoku_kafka.avro import control, schemas
from kantoku_kafka.avro.wire import encode_long, encode_string
from kantoku_kafka.engine.cancel import CANCEL, Cancellations
from kantoku_kafka.errors import EnvelopeError
from kantoku_kafka.model import CatchUp, Command, Heartbeat, Overlap, Schedule, ScheduleState, TaskEnvelope, Timer


class Kind(NamedTuple):
    records: st.SearchStrategy[Any]
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
raw = st.binary(max_size=80)
int32, int64 = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)
words = st.dictionaries(text, text, max_size=3)
headers = st.lists(st.tuples(text, st.none() | raw), max_size=3).map(tuple)
heartbeats = st.builds(
    Heartbeat,
    executor_id=text,
    slot=text,
    host=text,
    pid=int32,
    version=text,
    started_at_us=int64,
    at_us=int64,
    interval_ms=int64,
    draining=st.booleans(),
    in_flight=st.dictionaries(text, int32, max_size=3),
    attributes=words,
)
commands = st.builds(
    Command,
    kind=text,
    at_us=int64,
    task_id=st.none() | text,
    type=st.none() | text,
    labels=words,
    executor_id=st.none() | text,
    reason=st.none() | text,
)
timers = st.builds(
    Timer,
    task_id=text,
    type=text,
    attempt=int32,
    due_at_us=int64,
    topic=text,
    key=st.none() | raw,
    task=raw,
    headers=headers,
)
schedules = st.builds(
    Schedule,
    name=text,
    changed_at_us=int64,
    topic=text,
    task=raw,
    cron=st.none() | text,
    every_us=st.none() | int64,
    time_zone=text,
    jitter_us=int64,
    start_at_us=st.none() | int64,
    end_at_us=st.none() | int64,
    overlap=st.sampled_from(Overlap),
    catch_up=st.sampled_from(CatchUp),
    grace_us=int64,
    paused=st.booleans(),
    key=st.none() | raw,
    headers=headers,
)
states = st.builds(ScheduleState, due_at_us=int64, task_id=st.none() | text, spawned=int64, skipped=int64)

KINDS = {
    "Heartbeat": Kind(heartbeats, control.encode_heartbeat, control.decode_heartbeat),
    "Command": Kind(commands, control.encode_command, control.decode_command),
    "Timer": Kind(timers, control.encode_timer, control.decode_timer),
    "Schedule": Kind(schedules, control.encode_schedule, control.decode_schedule),
    "ScheduleState": Kind(states, control.encode_schedule_state, control.decode_schedule_state),
}
HEADERS = {name: schemas.MARKER + schemas.fingerprint_of(schemas.load(f"{name}.avsc")) for name in KINDS}
every_kind = pytest.mark.parametrize("name", KINDS)
edits = st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 4), st.binary(max_size=11)), min_size=1, max_size=4)
TIMER = Timer("id", "t", 1, 1, "topic", None, b"")
END_OF_BLOCKS = b"\0"


def check_answer(name: str, value: bytes) -> None:
    """Any bytes are read or refused; what is read can be written, and says the same then."""
    kind = KINDS[name]
    try:
        record = kind.decode(value)
    except EnvelopeError:
        return
    assert kind.decode(kind.encode(record)) == record


@every_kind
@given(data=st.data())
def test_what_was_written_is_read(name: str, data: st.DataObject) -> None:
    kind = KINDS[name]
    record = data.draw(kind.records)
    value = kind.encode(record)
    assert value.startswith(HEADERS[name])
    assert kind.decode(value) == record


@every_kind
@given(data=st.data())
def test_too_few_and_too_many_bytes_are_refused(name: str, data: st.DataObject) -> None:
    kind = KINDS[name]
    value = kind.encode(data.draw(kind.records))
    for bad in (value[: data.draw(st.integers(0, len(value) - 1))], value + data.draw(st.binary(min_size=1))):
        with pytest.raises(EnvelopeError):
            kind.decode(bad)


@every_kind
@given(body=st.binary(max_size=200))
@example(body=b"\xff" * 9 + b"\1")
@example(body=b"\0" * 200)
def test_random_bytes_raise_one_error_only(name: str, body: bytes) -> None:
    check_answer(name, body)
    check_answer(name, HEADERS[name] + body)


@every_kind
@given(data=st.data(), changes=edits)
def test_damaged_bytes_raise_one_error_only(
    name: str, data: st.DataObject, changes: list[tuple[int, int, bytes]]
) -> None:
    kind = KINDS[name]
    value = kind.encode(data.draw(kind.records))
    for place, taken, put in changes:
        at = place % (len(value) + 1)
        value = value[:at] + put + value[at + taken :]
        check_answer(name, value)


@every_kind
@given(data=st.data(), byte=st.integers(0, 255))
def test_one_wrong_byte_raises_one_error_only(name: str, data: st.DataObject, byte: int) -> None:
    kind = KINDS[name]
    value = bytearray(kind.encode(data.draw(kind.records)))
    value[data.draw(st.integers(0, len(value) - 1))] = byte
    check_answer(name, bytes(value))


@every_kind
def test_what_is_too_long_is_refused_unseen(name: str) -> None:
    with pytest.raises(EnvelopeError, match="at most"):
        KINDS[name].decode(bytes(41 << 20))


@pytest.mark.parametrize("count", [2, 1_000, 2**40, 2**63 - 1, -2, -(2**63)])
def test_more_headers_than_bytes_are_refused(count: int) -> None:
    start = control.encode_timer(TIMER).removesuffix(END_OF_BLOCKS)
    with pytest.raises(EnvelopeError):
        control.decode_timer(start + encode_long(count) + b"\0\0" + END_OF_BLOCKS)


def test_headers_in_blocks_of_both_forms_are_read() -> None:
    start = control.encode_timer(TIMER).removesuffix(END_OF_BLOCKS)
    header = encode_string("a") + b"\0"
    sized = encode_long(-2) + encode_long(2 * len(header)) + 2 * header
    value = start + encode_long(1) + header + sized + END_OF_BLOCKS
    assert control.decode_timer(value) == TIMER._replace(headers=(("a", None),) * 3)


def test_small_headers_take_little_memory() -> None:
    count = 50_000
    start = control.encode_timer(TIMER).removesuffix(END_OF_BLOCKS)
    value = start + encode_long(count) + b"\0\0" * count + END_OF_BLOCKS
    tracemalloc.start()
    try:
        timer = control.decode_timer(value)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert timer.headers == (("", None),) * count
    assert peak_bytes < 60 * len(value)


@pytest.mark.parametrize(("field", "word"), [("overlap", b"allow"), ("catch_up", b"one")])
def test_a_word_of_a_later_version_is_refused(field: str, word: bytes) -> None:
    value = control.encode_schedule(Schedule("nightly", 1, "topic", b""))
    assert value.count(word) == 1, field
    with pytest.raises(EnvelopeError, match="upgrade"):
        control.decode_schedule(value.replace(word, b"x" * len(word)))


def test_of_cancellations_of_one_choice_the_last_is_kept() -> None:
    cancellations, looked = Cancellations(), 0

    def envelope() -> TaskEnvelope:
        nonlocal looked
        looked += 1
        return TaskEnvelope("a", "t", b"", 150)

    for at_us in range(1_000):
        cancellations.add([Command(CANCEL, at_us, type="t")])
    assert cancellations.match("a", "t", envelope) is not None
    assert looked == 1


def test_however_many_choices_there_are_a_task_is_read_once_and_the_last_are_kept() -> None:
    cancellations, looked = Cancellations(), 0

    def envelope() -> TaskEnvelope:
        nonlocal looked
        looked += 1
        return TaskEnvelope("a", "t", b"", 150, labels={"order": "0"})

    for number in range(10_001):
        cancellations.add([Command(CANCEL, 200, labels={"order": str(number)})])
    assert cancellations.match("a", "t", envelope) is None, "the first had to go"
    cancellations.add([Command(CANCEL, 200, labels={"order": "0"})])
    assert cancellations.match("a", "t", envelope) is not None
    assert looked == 2
