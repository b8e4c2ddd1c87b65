"""The group from outside, over a Kafka of lists."""

from __future__ import annotations

from typing import Any

import pytest
from fake_kafka import FakeKafka, made_for

from kantoku_kafka.errors import WaitTimeout
from kantoku_kafka.job import Message
from kantoku_kafka.kafka.group import InputLag, lag_of
from kantoku_kafka.names import Topics

TOPIC = "shop.tasks.resize"


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> FakeKafka:
    """One input: a record and its marker are done, two markers and four records stand behind."""
    made = made_for(monkeypatch, **{TOPIC: 1})
    made.put(Message(TOPIC, None, b"x"))
    for _ in range(3):
        made.mark(TOPIC)
    for _ in range(4):
        made.put(Message(TOPIC, None, b"x"))
    made.committed[TOPIC, 0] = 2
    return made


def lag(kafka: FakeKafka) -> InputLag:
    clients: Any = kafka
    (found,) = lag_of(clients, Topics(namespace="shop"), [TOPIC])
    return found


def test_markers_before_the_oldest_record_are_no_tasks(kafka: FakeKafka) -> None:
    found = lag(kafka)
    assert (found.lag, found.markers, found.oldest_ms) == (4, 2, 4)


@pytest.mark.parametrize(("stable", "not_done"), [(2, 6), (3, 5), (4, 4)])
def test_what_stands_behind_an_open_transaction_is_not_done(kafka: FakeKafka, stable: int, not_done: int) -> None:
    kafka.stable[TOPIC, 0] = stable
    found = lag(kafka)
    assert (found.lag, found.oldest_ms) == (not_done, None)


def test_where_only_markers_stand_nothing_is_left_to_do(kafka: FakeKafka) -> None:
    kafka.committed[TOPIC, 0] = 8
    kafka.mark(TOPIC)
    assert lag(kafka).lag == 0


def test_a_broker_that_does_not_answer_is_not_taken_for_nothing_left_to_do(kafka: FakeKafka) -> None:
    kafka.silent = True
    with pytest.raises(WaitTimeout):
        lag(kafka)
