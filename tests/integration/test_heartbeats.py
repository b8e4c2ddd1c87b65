"""Heartbeats on the control topic: who lives, what it serves, what runs in it."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest
from access import super_user
from accounting import read_all
from administration import delete_topic
from confluent_kafka import Producer
from conftest import Running
from executors import ExecutorUnderTest, until

from kantoku_kafka import Kantoku, Task
from kantoku_kafka.avro.control import decode_heartbeat
from kantoku_kafka.kafka import topics
from kantoku_kafka.kafka.heartbeats import heartbeats
from kantoku_kafka.model import Heartbeat
from kantoku_kafka.settings import ExecutorSettings


def living(kan: Kantoku) -> list[Heartbeat]:
    return heartbeats(kan.clients, kan.topics.control)


def test_it_tells_what_is_served_and_what_runs_and_says_good_bye(
    kan: Kantoku, running: Running, bootstrap: str
) -> None:
    assert living(kan) == []
    with running(ExecutorSettings(heartbeat_seconds=1), task_types=["nap", "echo"]) as process:
        kan.spawn_many([Task("nap", b"8")] * 2)
        until(lambda: [beat.in_flight for beat in living(kan)] == [{"nap": 2, "echo": 0}], 20, "two naps")
        (beat,) = living(kan)
        assert beat.executor_id == process.executor_id
        assert beat.started_at_us < beat.at_us
        process.stop()
        until(lambda: [beat.draining for beat in living(kan)] == [True], 10, "the drain")
    assert living(kan) == []
    *beats, last = read_all(bootstrap, kan.topics.control)
    assert {record.key() for record in (*beats, last)} == {b"heartbeat/" + process.executor_id.encode()}
    assert last.value() is None
    assert [decode_heartbeat(record.value() or b"").pid for record in beats] == [beat.pid] * len(beats)


def test_one_that_was_killed_is_gone_after_three_that_did_not_come(
    kan: Kantoku, bootstrap: str, namespace: str, tmp_path: Path
) -> None:
    with ExecutorUnderTest(bootstrap, namespace, log=tmp_path / "log") as executor:
        until(lambda: [beat.pid for beat in living(kan)] == [executor.pid], 20, "a heartbeat")
        executor.kill()
        assert [beat.pid for beat in living(kan)] == [executor.pid]
        assert until(lambda: not living(kan), 25, "its end") > 5


def test_what_is_no_heartbeat_is_left_out(kan: Kantoku, running: Running, bootstrap: str) -> None:
    producer = Producer(super_user(bootstrap))
    for key, value in ((b"heartbeat/x", b"\xc3\x01nonsense"), (None, b"x"), (b"other", None), (b"\xff", b"y")):
        producer.produce(kan.topics.control, value, key)
    producer.flush(10)
    assert living(kan) == []
    with running(ExecutorSettings(heartbeat_seconds=1)):
        until(lambda: len(living(kan)) == 1, 20, "a heartbeat")


def test_a_topic_that_goes_and_comes_back(kan: Kantoku, running: Running, bootstrap: str) -> None:
    with running(ExecutorSettings(heartbeat_seconds=0.5)):
        until(lambda: len(living(kan)) == 1, 20, "a heartbeat")
        delete_topic(bootstrap, kan.topics.control)
        time.sleep(3)
        topics.create(kan.clients, topics.plan(kan.topics, []))
        until(lambda: len(living(kan)) == 1, 30, "a heartbeat on the new topic")


def test_without_the_topic_tasks_run_all_the_same(
    kan: Kantoku, running: Running, bootstrap: str, caplog: pytest.LogCaptureFixture
) -> None:
    delete_topic(bootstrap, kan.topics.control)
    with caplog.at_level(logging.WARNING), running():
        assert kan.spawn(Task("echo", b"x")).result(timeout_seconds=30).data == b"x"
    assert [record.getMessage() for record in caplog.records if "no heartbeats" in record.getMessage()] == [
        f"no heartbeats: Topic {kan.topics.control} is missing. Create it (topics create), or name another "
        "namespace (-n)."
    ]
