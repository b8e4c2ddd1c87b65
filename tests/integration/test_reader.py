"""The results reader against a topic that is being written to."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import closing
from typing import Any

import pytest
from access import as_user, super_user
from confluent_kafka import Producer

from kantoku_kafka import Kantoku, Result, Status, Task, idempotency_key
from kantoku_kafka.avro.codec import AvroCodec
from kantoku_kafka.ids import idempotent_id, new_task_id
from kantoku_kafka.kafka.reader import ResultReader
from kantoku_kafka.model import Source
from kantoku_kafka.settings import Connection


@pytest.fixture
def producer(bootstrap: str) -> Iterator[Producer]:
    client = Producer({**super_user(bootstrap), "partitioner": "murmur2_random", "linger.ms": 0})
    yield client
    client.flush(10)


def test_a_result_that_is_written_while_the_reader_begins_is_found(kan: Kantoku, producer: Producer) -> None:
    """Each round's result comes a little later after the reader has begun to look where to start."""
    codec, started_ms = AvroCodec(), time.time_ns() // 1_000_000
    for number in range(60):
        at_ms = started_ms + 20_000 * (number + 1)  # no earlier record is that late: the reader begins at the end
        task_id = new_task_id(at_ms)
        result = Result(task_id, "echo", Status.OK, b"", None, 1, "e", None, at_ms * 1000, Source("t", 0, 0))
        reader = ResultReader(kan.clients, kan.topics, codec)
        try:
            future = reader.expect(task_id)
            write_at = time.monotonic() + number * 0.0002
            while time.monotonic() < write_at:
                pass
            producer.produce(kan.topics.results, codec.encode_result(result), task_id, timestamp=at_ms)
            producer.flush(10)
            done, _ = wait([future], timeout=30)
            assert done, f"round {number}: the reader began behind the result"
        finally:
            reader.close()


def test_waits_for_what_was_just_spawned_read_nothing_twice(kan: Kantoku, bootstrap: str, running: Any) -> None:
    """Though the cache holds nothing: what this process spawned comes after what it has read."""
    begun: list[int] = []

    class Counting(ResultReader):
        def _begin(self, consumer: Any, wanted: Any) -> bool:
            begun.extend(wanted)
            return super()._begin(consumer, wanted)

    with running():
        kan._reader = Counting(kan.clients, kan.topics, kan.codec, cache_bytes=1)
        kan.gather(kan.spawn_many([Task("echo", b"x")] * 100), timeout_seconds=30)  # at the end of each partition now
        kan._reader.catch_up([new_task_id() for _ in range(50)])
        before = len(begun)
        for n in range(40):
            assert kan.spawn(Task("echo", b"%d" % n)).result(timeout_seconds=30).data == b"%d" % n
    assert len(begun) == before


def test_looking_for_results_does_not_wait_until_nobody_writes(kan: Kantoku, bootstrap: str, running: Any) -> None:
    """A partition that is always written to is never at its end: what counts is that it was read so far."""
    stop = threading.Event()
    spawned = []

    def load() -> None:
        while not stop.is_set():
            spawned.extend(kan.spawn_many([Task("work", b"x")] * 50))
            time.sleep(0.02)

    with running():
        first = kan.spawn(Task("work", b"x"))
        first.result(30)
        loader = threading.Thread(target=load)
        loader.start()
        try:
            began = time.monotonic()
            for _ in range(8):
                with closing(Kantoku(kan.namespace, **as_user(bootstrap))) as looking:
                    looking.connect_to(Connection(**as_user(bootstrap), timeout_seconds=60.0))
                    assert first.id in looking.find_results([first.id])
            assert time.monotonic() - began < 20
        finally:
            stop.set()
            loader.join()
        kan.gather(spawned, timeout_seconds=60)


def test_the_result_of_a_key_that_was_spawned_before_by_another_is_found(
    kan: Kantoku, bootstrap: str, running: Any
) -> None:
    """Though this client stands at the end of the partition, behind that result, and has it not in its cache."""
    task = Task("echo", b"photo").with_(idempotency_key("photo-7"))
    with running(), closing(Kantoku(kan.namespace, **as_user(bootstrap))) as other:
        first = other.spawn(task).result(timeout_seconds=30)
        kan._reader = ResultReader(kan.clients, kan.topics, kan.codec, cache_bytes=1)
        kan.gather(kan.spawn_many([Task("echo", b"x")] * 50), timeout_seconds=30)
        kan._reader.catch_up([new_task_id() for _ in range(50)])
        assert kan.spawn(task).result(timeout_seconds=30) == first


class NeverAtTheEnd(ResultReader):
    """As in a partition that is always written to."""

    def _take(self, message: Any) -> None:
        if message.error() is None:
            super()._take(message)


def test_an_older_wait_is_begun_though_the_partition_never_ends(kan: Kantoku, running: Any) -> None:
    with running():
        old = kan.spawn(Task("echo", b"old"))
        kan.wait(old.id, timeout_seconds=30)
        kan.close()
        kan._reader = NeverAtTheEnd(kan.clients, kan.topics, kan.codec)
        new = [kan.spawn(Task("echo", b"new")).id for _ in range(20)]
        kan.gather(new, timeout_seconds=30)
        kan._reader._cache.clear()
        assert kan.wait(old.id, timeout_seconds=20).data == b"old"


class Slow(ResultReader):
    """Takes a hundredth of a second for each result."""

    def _take(self, message: Any) -> None:
        if message.error() is None:
            time.sleep(0.01)
        super()._take(message)


def test_what_takes_longer_to_read_than_a_request_may_is_found_all_the_same(
    kan: Kantoku, bootstrap: str, producer: Producer
) -> None:
    codec, count, now_ms = AvroCodec(), 150, time.time_ns() // 1_000_000
    connection = Connection(**as_user(bootstrap), timeout_seconds=0.5)
    ids = [idempotent_id("ns", "echo", str(n)) for n in range(8 * count)]  # nobody knows when they were made
    for task_id in ids:
        result = Result(task_id, "echo", Status.OK, b"", None, 1, "e", None, now_ms * 1000, Source("t", 0, 0))
        producer.produce(kan.topics.results, codec.encode_result(result), task_id)
    producer.flush(10)
    kan.connect_to(connection)
    kan._reader = Slow(kan.clients, kan.topics, codec)
    assert ids[-1] in kan.find_results([ids[-1]])
