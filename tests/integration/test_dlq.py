"""Dead letters on a real Kafka: seen, redriven once however it is interrupted, purged.

``KANTOKU_DEAD_LETTERS`` sets the scale.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from access import super_user
from accounting import Account, read_all
from confluent_kafka import Producer
from executors import HERE, ExecutorUnderTest, until
from test_cli import cli

from kantoku_kafka import Kantoku, Status, Task, labels
from kantoku_kafka.avro.codec import AvroCodec
from kantoku_kafka.ids import new_task_id
from kantoku_kafka.kafka import topics
from kantoku_kafka.model import TaskEnvelope, now_us

LETTERS = int(os.environ.get("KANTOKU_DEAD_LETTERS", "10000"))
CODEC = AvroCodec()


@pytest.fixture
def mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "mended"
    monkeypatch.setenv("MENDED", str(path))
    return path


@pytest.fixture
def kan(kan: Kantoku) -> Kantoku:
    topics.create(kan.clients, topics.plan(kan.topics, ["fragile"]))
    return kan


@pytest.mark.timeout(300)
def test_a_redrive_that_is_killed_and_repeated_redrives_each_letter_once(
    kan: Kantoku, bootstrap: str, tmp_path: Path, mended: Path
) -> None:
    common = ("-b", bootstrap, "-n", kan.namespace)
    options = ("--types", "fragile")
    with ExecutorUnderTest(*common[1::2], *options, log=tmp_path / "log", app="retry_app:kan", cwd=HERE):
        failed = kan.spawn_many(Task("fragile", b"%d" % n).with_(labels(n=str(n % 2))) for n in range(LETTERS))
        assert {r.status for r in kan.gather(failed, timeout_seconds=120)} == {Status.FAILED}
        mended.touch()
        redrive = [sys.executable, "-m", "kantoku_kafka", *common, "dlq", "redrive", "--all", "-o", "jsonl"]
        killed = 0
        for _ in range(3):
            with (tmp_path / "redriven").open("wb") as shown:
                process = subprocess.Popen(redrive, stdout=shown, stderr=subprocess.DEVNULL)
                while process.poll() is None and (tmp_path / "redriven").stat().st_size < 60 * LETTERS // 5:
                    time.sleep(0.01)
                killed += process.poll() is None
                process.kill()
                process.wait()
        assert killed, "none was killed in the middle"
        done = cli(*common, "dlq", "redrive", "--all", timeout=120)
        assert done.returncode == 0, done.stderr
        again = cli(*common, "dlq", "redrive", "--all", timeout=120)
        assert f"0 letters redriven, {LETTERS} were before" in again.stderr.decode()
        until(lambda: len(read_all(bootstrap, kan.topics.results)) == 2 * LETTERS, 120, "all have run again")
    account = Account.of(bootstrap, kan.namespace)
    counts = Counter(result.task_id for result in account.results)
    assert len(counts) == 2 * LETTERS and set(counts.values()) == {1}
    origins = Counter(e.attributes["restarted_from"] for e in account.events if e.attributes.get("restarted_from"))
    assert origins == dict.fromkeys((task.id for task in failed), 1)
    assert sum(result.ok for result in account.results) == LETTERS


def test_letters_are_listed_shown_filtered_and_purged(
    kan: Kantoku, bootstrap: str, tmp_path: Path, mended: Path
) -> None:
    common = ("-b", bootstrap, "-n", kan.namespace)
    producer = Producer(super_user(bootstrap))
    topic = kan.topics.of_type("fragile")
    producer.produce(topic, b"\xff\x00 no task", b"k\xff", headers=[("a", b"1"), ("b", None), ("a", b"2")])
    assert producer.flush(10) == 0
    with ExecutorUnderTest(*common[1::2], "--types", "fragile", log=tmp_path / "log", app="retry_app:kan", cwd=HERE):
        task = kan.spawn(Task("fragile", b"data"))
        assert kan.wait(task.id, timeout_seconds=60).status is Status.FAILED
        until(lambda: len(read_all(bootstrap, kan.topics.dlq)) == 2, 20, "both are dead letters")
    (poison,) = [m for m in read_all(bootstrap, kan.topics.dlq) if m.key() == b"k\xff"]
    assert poison.value() == b"\xff\x00 no task"
    assert poison.headers()[:3] == [("a", b"1"), ("b", None), ("a", b"2")]
    listed = json.loads(cli(*common, "dlq", "list", "-o", "json").stdout)
    assert {row["id"] for row in listed} == {task.id, None}
    listed = json.loads(cli(*common, "dlq", "list", "--error", "ConnectionError", "-o", "json").stdout)
    assert [row["id"] for row in listed] == [task.id]
    page = json.loads(cli(*common, "dlq", "show", task.id, "-o", "json").stdout)[0]
    assert (page["data"], page["error_type"], page["source_topic"]) == ("data", "ConnectionError", topic)
    assert cli(*common, "dlq", "show", listed[0]["letter"]).returncode == 0
    assert cli(*common, "dlq", "show", "0:999999").returncode == 5
    assert cli(*common, "dlq", "redrive").returncode == 2
    dry = cli(*common, "dlq", "redrive", "--all", "--dry-run")
    assert b"1 letters would be redriven, 0 were before, 1 cannot be" in dry.stderr
    assert len(read_all(bootstrap, topic)) == 2, "a dry run writes nothing"
    assert cli(*common, "dlq", "purge", "--all", "--yes").returncode == 0
    assert json.loads(cli(*common, "dlq", "list", "-o", "json").stdout) == []


def test_a_record_that_never_had_a_result_goes_back_as_it_was_once(kan: Kantoku, bootstrap: str) -> None:
    common = ("-b", bootstrap, "-n", kan.namespace)
    envelope = TaskEnvelope(new_task_id(), "fragile", b"was poison", now_us())
    topic = kan.topics.of_type("fragile")
    source = {"topic": topic, "partition": "2", "offset": "7"}
    cause = [("mine", b"1"), ("kantoku-error-type", b"EnvelopeError")]
    cause += [(f"kantoku-source-{name}", value.encode()) for name, value in source.items()]
    producer = Producer(super_user(bootstrap))
    producer.produce(kan.topics.dlq, CODEC.encode_task(envelope), b"customer-7", headers=cause)
    assert producer.flush(10) == 0
    for _ in range(2):
        assert cli(*common, "dlq", "redrive", "--all").returncode == 0
    (back,) = read_all(bootstrap, kan.topics.of_type("fragile"))
    assert back.key() == b"customer-7"
    assert back.headers() == [("mine", b"1"), ("kantoku-redriven", f"{topic}/2/7".encode())]
    assert CODEC.decode_task(back.value()) == envelope


@pytest.mark.parametrize("options", [(), ("--events", "off")])
def test_no_task_gets_a_second_result_by_redrives_that_the_log_has_forgotten(
    kan: Kantoku, bootstrap: str, tmp_path: Path, mended: Path, options: tuple[str, ...]
) -> None:
    common, log = ("-b", bootstrap, "-n", kan.namespace), tmp_path / "log"
    with ExecutorUnderTest(*common[1::2], "--types", "fragile", *options, log=log, app="retry_app:kan", cwd=HERE):
        task = kan.spawn(Task("fragile", b"data"))
        assert kan.wait(task.id, timeout_seconds=60).status is Status.FAILED
        mended.touch()
        assert b"1 letters redriven" in cli(*common, "dlq", "redrive", "--all").stderr
        until(lambda: len(read_all(bootstrap, kan.topics.results)) == 2, 60, "it has run again")
        assert cli(*common, "events", "prune", "--older-than", "0s").returncode == 0
        assert b"0 letters redriven, 1 were before" in cli(*common, "dlq", "redrive", "--all").stderr
        producer = Producer(super_user(bootstrap))
        for record in read_all(bootstrap, kan.topics.events):
            producer.produce(kan.topics.events, None, record.key(), partition=record.partition())
        assert producer.flush(10) == 0
        assert b"0 letters redriven, 1 were before" in cli(*common, "dlq", "redrive", "--all").stderr
    results = [CODEC.decode_result(record.value() or b"") for record in read_all(bootstrap, kan.topics.results)]
    assert [result.status for result in results if result.task_id == task.id] == [Status.FAILED]
    assert len({result.task_id for result in results}) == len(results) == 2


def test_a_task_that_was_refused_is_redriven_under_another_id(kan: Kantoku, bootstrap: str, tmp_path: Path) -> None:
    """It has a result, though its letter says EnvelopeError as that of a record that could not be read."""
    common, log, topic = ("-b", bootstrap, "-n", kan.namespace), tmp_path / "log", kan.topics.of_type("fragile")
    refused = TaskEnvelope(new_task_id(), "fragile", b"", now_us(), timeout_ms=0)
    producer = Producer(super_user(bootstrap))
    producer.produce(topic, CODEC.encode_task(refused), refused.id.encode())
    assert producer.flush(10) == 0
    options = ("--types", "fragile", "--events", "off")
    with ExecutorUnderTest(*common[1::2], *options, log=log, app="retry_app:kan", cwd=HERE):
        assert kan.wait(refused.id, timeout_seconds=60).status is Status.REJECTED
        for _ in range(2):
            assert cli(*common, "dlq", "redrive", refused.id).returncode == 0
        until(lambda: len(read_all(bootstrap, kan.topics.results)) == 2, 60, "it was refused again")
    assert len({CODEC.decode_task(record.value() or b"").id for record in read_all(bootstrap, topic)}) == 2


def test_a_letter_whose_type_is_gone_is_an_error_that_says_so(kan: Kantoku, bootstrap: str) -> None:
    envelope = TaskEnvelope(new_task_id(), "vanished", b"", now_us())
    producer = Producer(super_user(bootstrap))
    producer.produce(kan.topics.dlq, CODEC.encode_task(envelope), b"k")
    assert producer.flush(10) == 0
    done = cli("-b", bootstrap, "-n", kan.namespace, "dlq", "redrive", "--all")
    assert (done.returncode, b"is gone" in done.stderr) == (7, True), done.stderr
