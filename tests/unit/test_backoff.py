"""Pauses between tries."""

from __future__ import annotations

from kantoku_kafka.backoff import Backoff


def test_pauses_double_up_to_a_limit_and_begin_again() -> None:
    pauses = Backoff(0.1, 1.0)
    for _ in range(2):
        assert [pauses.next_seconds() for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
        pauses.reset()


def test_there_are_pauses_without_end() -> None:
    pauses = Backoff(0.1, 10.0)
    assert [pauses.next_seconds() for _ in range(100_000)][-1] == 10.0
