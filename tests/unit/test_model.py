"""Ids and names: what other programs rely on."""

from __future__ import annotations

import os
import re
import time
import uuid
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kantoku_kafka import Kantoku, Task, idempotency_key
from kantoku_kafka.errors import UsageError
from kantoku_kafka.ids import TaskIds, idempotent_id, new_task_id, task_id_time_ms
from kantoku_kafka.model import Event, carried_headers
from kantoku_kafka.names import Topics, check_task_type
from kantoku_kafka.spawning import prepare

CANONICAL = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@given(st.integers(0, 2**48 - 1))
def test_a_new_id_is_a_uuid7_of_its_time(time_ms: int) -> None:
    text = new_task_id(time_ms)
    assert CANONICAL.fullmatch(text)
    parsed = uuid.UUID(text)
    assert (str(parsed), parsed.version, parsed.variant) == (text, 7, uuid.RFC_4122)
    assert parsed.int >> 80 == time_ms == task_id_time_ms(text)


@given(st.integers(0, 2**48 - 2), st.integers(1, 10**9))
def test_later_ids_sort_after_earlier_ones(time_ms: int, later_ms: int) -> None:
    assert new_task_id(time_ms) < new_task_id(min(2**48 - 1, time_ms + later_ms))


def test_ids_of_now() -> None:
    before = time.time_ns() // 1_000_000
    made = TaskIds()
    ids = [made.new() for _ in range(20_000)]
    after = time.time_ns() // 1_000_000
    times = [task_id_time_ms(text) for text in ids]
    assert len(set(ids)) == len(ids)
    assert times == sorted(t for t in times if t is not None)
    assert before <= (times[0] or 0) <= (times[-1] or 0) <= after


def test_every_bit_that_may_be_random_is() -> None:
    seen, constant = 0, (1 << 128) - 1
    first = uuid.UUID(new_task_id(0)).int
    for _ in range(200):
        number = uuid.UUID(new_task_id(0)).int
        seen |= number ^ first
        constant &= ~(number ^ first)
    assert seen.bit_count() == 128 - 48 - 4 - 2, "all but time, version and variant"


@pytest.mark.parametrize(
    "text",
    ["", "x", "not-an-id", "c41c9dbd-4808-45e3-90fb-481d0788e744", str(uuid.uuid5(uuid.NAMESPACE_URL, "a"))],
)
def test_other_ids_have_no_time(text: str) -> None:
    assert task_id_time_ms(text) is None


@given(st.text(max_size=36))
def test_any_text_may_be_asked_for_its_time(text: str) -> None:
    assert task_id_time_ms(text) is None or len(text) == 36


def test_a_damaged_uuid7_has_no_time() -> None:
    assert task_id_time_ms("zzzzzzzz-zzzz-7zzz-8zzz-zzzzzzzzzzzz") is None


def test_an_idempotency_key_gives_the_uuid5_of_the_contract() -> None:
    expected = str(uuid.uuid5(uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8"), "shop/resize/order-17"))
    assert idempotent_id("shop", "resize", "order-17") == expected
    spawn, message = prepare(Kantoku("shop"), Task("resize").with_(idempotency_key("order-17")))
    assert spawn.id == expected
    assert message.key == expected.encode()
    assert spawn.envelope is not None
    assert spawn.envelope.idempotency_key == "order-17"


@pytest.mark.parametrize("name", ["a", "7", "resize", "a.b-c_d", "A" * 200])
def test_task_types(name: str) -> None:
    assert check_task_type(name) == name
    assert Task(name).type == name


@pytest.mark.parametrize("name", ["", ".a", "-a", "_a", "a b", "a/b", "ä", "a\n", "A" * 201, None, 7, b"a"])
def test_what_is_no_task_type(name: object) -> None:
    with pytest.raises(UsageError, match="task type"):
        check_task_type(name)  # type: ignore[arg-type]


def test_data_are_bytes() -> None:
    with pytest.raises(UsageError, match="bytes"):
        Task("t", "text")  # type: ignore[arg-type]


def test_names_follow_from_the_namespace_or_are_overridden() -> None:
    topics = Topics(namespace="shop", overrides={"results": "old.results", "tasks.resize": "photos"})
    assert topics.of_type("resize") == "photos"
    assert topics.of_type("other") == "shop.tasks.other"
    assert [topics.told_by(name) for name in ("photos", "shop.tasks.other", "shop.priority.high.other")] == [
        ("resize", "normal"),
        ("other", "normal"),
        ("other", "high"),
    ]
    assert [topics.told_by(name) for name in ("old.results", "shop.events", "tasks.other", "shop.tasks.")] == 4 * [None]
    assert (topics.results, topics.events, topics.dlq) == ("old.results", "shop.events", "shop.dlq")
    assert topics.group == "shop.executors"


@pytest.mark.parametrize("namespace", ["", "a b", "ä", "n" * 242, "a/b"])
def test_a_namespace_must_give_topic_names(namespace: str) -> None:
    with pytest.raises(UsageError, match=r"249|at least one"):
        Topics(namespace=namespace)


def test_namespace_and_type_together_must_fit_a_topic_name() -> None:
    topics = Topics(namespace="n" * 42)
    assert len(topics.of_type("t" * 200)) == 249
    with pytest.raises(UsageError, match="250 characters"):
        Topics(namespace="n" * 43).of_type("t" * 200)
    with pytest.raises(UsageError, match="250 characters"):
        Kantoku("n" * 43).task("t" * 200)(lambda data: data)


def test_an_overridden_name_must_be_a_topic() -> None:
    with pytest.raises(UsageError, match="249"):
        Topics(namespace="shop", overrides={"results": "t" * 250})


def test_headers_of_the_system_are_not_carried_on() -> None:
    assert carried_headers([("a", b"1"), ("kantoku-attempt", b"2"), ("b", None), ("a", b"3")]) == (
        ("a", b"1"),
        ("b", None),
        ("a", b"3"),
    )
    assert carried_headers(None) == carried_headers([]) == ()


@given(st.integers(-(10**15), 10**16))
def test_times_are_exact_to_the_microsecond(at_us: int) -> None:
    at = Event("i", "t", "n", 1, at_us).at
    assert at.tzinfo is UTC
    assert (at - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() == pytest.approx(at_us / 1e6)
    assert at.microsecond == at_us % 1_000_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_ids_made_on_both_sides_of_a_fork_differ() -> None:
    ids = TaskIds()
    ids.new()
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(sending, "".join(ids.new() for _ in range(50)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(receiving, 50 * 36).decode()
    os.close(receiving)
    os.close(sending)
    assert not {ids.new() for _ in range(50)} & {theirs[at : at + 36] for at in range(0, len(theirs), 36)}
