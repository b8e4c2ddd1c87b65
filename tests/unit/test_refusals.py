"""For how long brokers have been refusing us, and how that is said."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from kantoku_kafka.kafka.codes import kantoku_error
from kantoku_kafka.kafka.refusals import Refusals

DENIED = KafkaError(KafkaError._AUTHENTICATION)


class Clock:
    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_refusals_that_go_on_are_lasting() -> None:
    clock = Clock()
    refusals = Refusals(clock)
    assert refusals.latest is None and not refusals.lasting
    for _ in range(4):
        refusals.note(DENIED)
        assert refusals.latest is DENIED and not refusals.lasting
        clock.seconds += 10
    refusals.note(DENIED)
    assert refusals.lasting
    refusals.forget()
    assert refusals.latest is None and not refusals.lasting


def test_one_now_and_then_is_a_hiccup() -> None:
    clock = Clock()
    refusals = Refusals(clock)
    for _ in range(5):
        refusals.note(DENIED)
        clock.seconds += 31
        assert refusals.latest is None and not refusals.lasting


@pytest.mark.parametrize(
    "code",
    [KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, KafkaError._UNKNOWN_TOPIC, KafkaError._FAIL],
)
def test_what_librdkafka_says_stands_within_a_sentence(code: int) -> None:
    said = str(kantoku_error(KafkaError(code, "It is so."), "looking"))
    assert "It is so" in said and ".." not in said
