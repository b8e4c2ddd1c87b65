"""``verify`` on a real Kafka: silent where the promises were kept, and naming the records where they were not."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from access import environment_of, super_user
from accounting import Account, read_all
from administration import alter_topic
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from conftest import Running
from executors import ExecutorUnderTest, until

from kantoku_kafka import Kantoku, Task, delay
from kantoku_kafka.ids import new_task_id
from kantoku_kafka.kafka import topics
from kantoku_kafka.kafka.channel import arguments
from kantoku_kafka.kafka.group import describe, input_topics
from kantoku_kafka.kafka.outputs import EventWriter
from kantoku_kafka.kafka.scan import beginnings, ends
from kantoku_kafka.model import TaskEnvelope, now_us
from kantoku_kafka.names import Topics
from kantoku_kafka.verify import collect, judge

ROOT = Path(__file__).parents[2]
Verify = Callable[..., tuple[int, dict[str, list[dict[str, Any]]]]]


@pytest.fixture
def verify(bootstrap: str, namespace: str) -> Verify:
    """Its exit code, and of each promise that is broken what breaks it."""

    def run(*options: str) -> tuple[int, dict[str, list[dict[str, Any]]]]:
        command = (sys.executable, "-m", "kantoku_kafka", "-b", bootstrap, "-n", namespace, "verify", "-o", "jsonl")
        environment = environment_of(*command)
        done = subprocess.run((*command, *options), capture_output=True, text=True, timeout=90, env=environment)
        assert done.returncode in (0, 1), done.stderr
        findings = [json.loads(line) for line in done.stdout.splitlines()]
        assert [finding["name"] for finding in findings] == [f"I{n}" for n in range(1, 9)]
        return done.returncode, {f["name"]: f["violations"] for f in findings if f["violations"]}

    return run


@pytest.fixture
def ended(kan: Kantoku, running: Running) -> list[str]:
    """Ids of tasks that have ended, of whom some failed."""
    with running():
        specs = [Task("echo", b"%d" % n) for n in range(300)] + [Task("outcome", b"raise:no luck")] * 5
        spawned = kan.spawn_many([*specs, Task("echo", b"later").with_(delay(seconds=0.3))])
        kan.gather(spawned, timeout_seconds=60)
    return [task.id for task in spawned]


def commit(bootstrap: str, kan: Kantoku, offsets: Sequence[TopicPartition]) -> None:
    """As somebody who may do more than any role needs."""
    client = Consumer({**super_user(bootstrap), "group.id": kan.topics.group})
    client.commit(offsets=list(offsets), asynchronous=False)
    client.close()


def test_nothing_is_found_where_all_is_well(
    kan: Kantoku, app: Kantoku, bootstrap: str, ended: list[str], verify: Verify, running: Running
) -> None:
    assert verify("--at-rest") == (0, {})
    waiting = kan.spawn(Task("echo", b"nobody runs it"))
    assert verify() == (0, {}), "who waits is no violation"
    code, broken = verify("--at-rest")
    assert code == 1 and {v["task_id"] for v in broken["I2"]} == {waiting.id}
    before = len(read_all(bootstrap, kan.topics.results))
    with running():
        kan.spawn_many([Task("work", b"5")] * 200)
        assert verify() == (0, {}), "it may run beside executors"
        waiting.result(timeout_seconds=30)
    assert before == len(ended), "it writes nothing"


def test_a_transaction_that_is_half_written_when_it_is_read_is_well(
    kan: Kantoku, bootstrap: str, ended: list[str]
) -> None:
    """Its result stands below the end that the results had then; its events come later."""
    task = kan.spawn(Task("echo", b"0"))
    source = (task.topic, task.partition, task.offset, 0)
    results = [kan.codec.decode_result(r.value() or b"") for r in read_all(bootstrap, kan.topics.results)]
    result = next(r for r in results if r.task_id == ended[0])._replace(task_id=task.id, source=source)
    events = [kan.codec.decode_event(r.value() or b"") for r in read_all(bootstrap, kan.topics.events)]
    writer = EventWriter.connect(kan.clients, kan.topics.events, kan.codec)
    producer: Any = Producer({**super_user(bootstrap), "transactional.id": f"{kan.namespace}.half"})
    producer.init_transactions(10)
    producer.begin_transaction()
    producer.produce(kan.topics.results, kan.codec.encode_result(result), task.id.encode())
    assert producer.flush(10) == 0
    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(
            collect, kan.clients, kan.topics, kan.codec, list(input_topics(kan.clients, kan.topics))
        )
        time.sleep(5)  # it has come to the result by now, and waits
        assert not reading.done()
        for event in events:
            if event.task_id == ended[0] and event.name != "spawned":
                producer.produce(*arguments(*writer.message(event._replace(task_id=task.id, source=source))))
        group = Consumer({**super_user(bootstrap), "group.id": kan.topics.group})
        behind = TopicPartition(task.topic, task.partition, task.offset + 1)
        producer.send_offsets_to_transaction([behind], group.consumer_group_metadata(), 10)
        producer.commit_transaction(10)
        report = judge(reading.result(60))
    group.close()
    assert [f.violations for f in report.findings if f.violations] == []


def test_a_second_result_and_one_from_nowhere_are_found(
    kan: Kantoku, bootstrap: str, ended: list[str], verify: Verify
) -> None:
    first = next(record for record in read_all(bootstrap, kan.topics.results) if record.key() == ended[0].encode())
    result = kan.codec.decode_result(first.value() or b"")
    producer = Producer(super_user(bootstrap))
    producer.produce(kan.topics.results, first.value(), first.key())
    producer.produce(kan.topics.results, kan.codec.encode_result(result._replace(task_id=new_task_id())), b"other")
    producer.produce(kan.topics.results, b"not an envelope", b"junk")
    assert producer.flush(10) == 0
    code, broken = verify()
    assert code == 1
    (doubled,) = broken["I2"]
    assert doubled["task_id"] == ended[0]
    assert f"{kan.topics.results}[{first.partition()}]@{first.offset()}" in doubled["records"]
    assert len(doubled["records"]) == 2 and len(broken["I3"]) == 2
    code, broken = verify("--since", "1s")
    assert code == 1 and next(v["records"] for v in broken.pop("I3"))[0].startswith(kan.topics.results)
    assert not broken, "tasks that were spawned before are not judged"


def test_inputs_with_names_of_their_own_are_judged(
    kan: Kantoku, app: Kantoku, bootstrap: str, running: Running, verify: Verify
) -> None:
    for side in (kan, app):
        side.topics = Topics(namespace=kan.namespace, overrides={"tasks.echo": f"{kan.namespace}.shared"})
    topics.create(kan.clients, topics.plan(kan.topics, ["echo"]))
    with running():
        task = kan.spawn(Task("echo", b"x"))
        task.result(timeout_seconds=30)
    assert verify("--at-rest", "--events", "full") == (0, {})
    (result,) = read_all(bootstrap, kan.topics.results)
    producer = Producer(super_user(bootstrap))
    producer.produce(kan.topics.results, result.value(), result.key())
    assert producer.flush(10) == 0
    for options in ((), ("--since", "1h")):
        code, broken = verify(*options)
        assert code == 1 and [violation["task_id"] for violation in broken["I2"]] == [task.id]


def test_what_was_deleted_since_is_no_violation(
    kan: Kantoku, bootstrap: str, ended: list[str], running: Running, verify: Verify
) -> None:
    with running():
        junk = Producer(super_user(bootstrap))
        junk.produce(kan.topics.of_type("echo"), b"no envelope", partition=0)
        assert junk.flush(10) == 0
        until(lambda: read_all(bootstrap, kan.topics.dlq), 30, "the dead letter")
    assert verify() == (0, {})
    _delete_all(bootstrap, kan, kan.topics.dlq)
    assert verify() == (0, {}), "nobody can tell what that junk was"
    commit(
        bootstrap,
        kan,
        [TopicPartition(lost.topic, lost.partition, lost.offset + 1) for lost in [kan.spawn(Task("echo"))]],
    )
    assert verify()[0] == 1, "the rest is judged as before"
    _delete_all(bootstrap, kan, kan.topics.results)
    alter_topic(bootstrap, kan.topics.results, retention_ms="1")
    assert verify() == (0, {}), "nor what had become of all these tasks"


def _delete_all(bootstrap: str, kan: Kantoku, topic: str) -> None:
    admin = AdminClient(super_user(bootstrap))
    places = [TopicPartition(topic, p, end) for p, end in ends(kan.clients, topic).items()]
    for deleted in admin.delete_records(places).values():
        deleted.result(20)


def test_what_was_passed_over_is_found(kan: Kantoku, bootstrap: str, ended: list[str], verify: Verify) -> None:
    lost = [kan.spawn(Task("echo", b"lost")) for _ in range(3)]
    commit(bootstrap, kan, [TopicPartition(task.topic, task.partition, task.offset + 1) for task in lost])
    code, broken = verify()
    ids = {task.id for task in lost}
    assert code == 1 and {v["task_id"] for v in broken["I2"]} == ids == {v["task_id"] for v in broken["I6"]}


def test_a_result_whose_record_is_not_done_is_found(
    kan: Kantoku, bootstrap: str, ended: list[str], verify: Verify
) -> None:
    topic = kan.topics.of_type("echo")
    commit(bootstrap, kan, [TopicPartition(topic, p, first) for p, first in beginnings(kan.clients, topic).items()])
    code, broken = verify()
    assert code == 1 and len(broken["I4"]) == 301


def test_junk_that_has_a_dead_letter_is_well(kan: Kantoku, running: Running, verify: Verify) -> None:
    producer = kan.clients.producer()
    task = kan.codec.encode_task(TaskEnvelope(new_task_id(), "echo", b"x", now_us()))
    for junk in (b"", b"junk", task[:20], task + b"x"):
        producer.produce(kan.topics.of_type("echo"), junk)
    assert producer.flush(10) == 0
    assert verify() == (0, {})
    with running():
        kan.spawn(Task("echo")).result(timeout_seconds=30)
        deadline = time.monotonic() + 30
        while verify("--at-rest")[0] != 0 and time.monotonic() < deadline:
            pass
    assert verify("--at-rest") == (0, {})


def test_a_group_that_was_set_back_gives_no_second_result(kan: Kantoku, bootstrap: str, tmp_path: Path) -> None:
    """Where deduplication is on. Done, retried, delayed and waiting tasks; the second time with kills meanwhile."""
    kinds = ("quick", "flaky")
    topics.create(kan.clients, topics.plan(kan.topics, kinds))
    options = (bootstrap, kan.namespace, "--types", ",".join(kinds))
    with ExecutorUnderTest(*options, log=tmp_path / "log", app="tests.chaos.app:kan", cwd=ROOT) as executor:
        specs = [Task("quick", b"%d" % n) for n in range(500)] + [Task("flaky", b"%d" % (n % 4)) for n in range(100)]
        specs += [Task("quick", b"late").with_(delay(seconds=n / 10)) for n in range(30)]
        ids = [task.id for task in kan.spawn_many(specs)]
        soon = ids[:500]
        for kills in (0, 2):
            kan.gather(soon, timeout_seconds=60)
            executor.kill()
            soon = [task.id for task in kan.spawn_many([Task("quick", b"waiting")] * 20)]
            ids += soon
            until(lambda: not describe(kan.clients, kan.topics.group).members, 30, "the group is empty")
            starts = [(t, beginnings(kan.clients, t)) for t in map(kan.topics.of_type, kinds)]
            commit(
                bootstrap, kan, [TopicPartition(t, p, first) for t, offsets in starts for p, first in offsets.items()]
            )
            executor.start()
            for _ in range(kills):
                time.sleep(1.5)
                executor.kill()
                executor.start()
        kan.gather(ids, timeout_seconds=60)
        ids += [task.id for task in kan.spawn_many([Task("quick", b"last")] * 50)]
        kan.gather(ids, timeout_seconds=60)
    assert (tmp_path / "log").read_text().count("set back") >= 2
    account = Account.of(bootstrap, kan.namespace)
    assert Counter(result.task_id for result in account.results) == Counter(ids)
    assert not account.impossible()
