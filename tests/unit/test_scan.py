"""Topics read to their ends, and single records of them, over a Kafka of lists."""

from __future__ import annotations

from typing import Any

import pytest
from fake_kafka import FakeKafka, made_for

from kantoku_kafka.errors import WaitTimeout
from kantoku_kafka.job import Message
from kantoku_kafka.kafka.scan import Scan, pick


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> FakeKafka:
    """Of two partitions: a record and a marker in each."""
    made = made_for(monkeypatch, topic=2)
    for partition in range(2):
        made.put(Message("topic", None, b"x", (), partition))
        made.mark("topic", partition)
    return made


def clients(kafka: FakeKafka) -> Any:
    return kafka


@pytest.mark.parametrize("partitions", [1, 2])
def test_who_takes_long_for_a_batch_is_not_told_that_the_reading_stood_still(kafka: FakeKafka, partitions: int) -> None:
    ends = dict.fromkeys(range(partitions), 2)
    read = 0
    for batch in Scan(clients(kafka), "topic", dict.fromkeys(ends, 0), ends).batches():
        read += len(batch)
        kafka.now += 1_000.0
    assert read == partitions


def test_an_end_that_a_transaction_holds_back_is_waited_for_within_the_patience(kafka: FakeKafka) -> None:
    kafka.stable["topic", 1] = 1
    reading = Scan(clients(kafka), "topic", {0: 0, 1: 0}, {0: 2, 1: 2}, patience_seconds=5.0).batches()
    assert len(next(iter(reading))) == 1
    with pytest.raises(WaitTimeout, match=r"topic\[1\] does not go on from offset 1 to 2 within 5 s"):
        list(reading)
    assert 5.0 <= kafka.now < 6.0


def test_records_that_are_not_there_are_left_out_where_the_partition_ends(kafka: FakeKafka) -> None:
    found = pick(clients(kafka), "topic", {0: [0, 1], 1: [1]}, insist=True)
    assert [(record.partition(), record.offset()) for record in found] == [(0, 0)]


def test_records_that_do_not_come_are_an_error_for_who_insists(kafka: FakeKafka) -> None:
    kafka.silent = True
    assert list(pick(clients(kafka), "topic", {0: [0]}, 5.0)) == []
    with pytest.raises(WaitTimeout, match=r"topic\[0\] has not told what stands at offset 0 within 5 s"):
        list(pick(clients(kafka), "topic", {0: [0], 1: []}, 5.0, insist=True))


def test_who_takes_long_for_a_record_gets_the_next_one(kafka: FakeKafka) -> None:
    found = []
    for record in pick(clients(kafka), "topic", {0: [0], 1: [0]}, insist=True):
        found.append(record.partition())
        kafka.now += 1_000.0
    assert sorted(p or 0 for p in found) == [0, 1]
