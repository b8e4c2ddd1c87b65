"""Topics of others on a real Kafka: executors in processes of their own, judged by what stands in the topics."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest
from access import as_user, environment_of, rights, super_user
from accounting import Account, read_all
from confluent_kafka import ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from executors import HERE, ExecutorUnderTest, until

from kantoku_kafka import Kantoku, Status, Task, delay, headers
from kantoku_kafka.ids import idempotent_id
from kantoku_kafka.kafka import topics
from kantoku_kafka.model import TaskEnvelope, now_us

TYPES = ("ship", "note", "placed")
FOREIGN = ("orders", "raw", "events")
REPLIES = ("shipments", "answers.a")
Executing = Callable[..., AbstractContextManager[ExecutorUnderTest]]


@pytest.fixture
def namespace(bootstrap: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A namespace, and beside it the topics of others."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    monkeypatch.setenv("FOREIGN_NAMESPACE", name)
    kan = Kantoku(name, **as_user(bootstrap))
    admin = AdminClient(super_user(bootstrap))
    for future in admin.create_topics([NewTopic(f"{name}-{topic}", 2, 1) for topic in (*FOREIGN, *REPLIES)]).values():
        future.result(10)
    inputs, replies = map(kan.topics.of_type, TYPES), [f"{name}-shipments", f"{name}-answers*"]
    with rights(name, inputs, [f"{name}-{topic}" for topic in FOREIGN], replies):
        topics.create(kan.clients, topics.plan(kan.topics, TYPES, partitions=2))
        yield name
    kan.close()
    mine = [topic for topic in admin.list_topics(timeout=10).topics if topic.startswith(name)]
    for future in admin.delete_topics(mine).values():
        future.result(10)


@pytest.fixture
def executing(bootstrap: str, namespace: str, tmp_path: Path) -> Executing:
    @contextmanager
    def run(*options: str) -> Iterator[ExecutorUnderTest]:
        log = tmp_path / "log"
        app = "foreign_app:kan"
        with ExecutorUnderTest(bootstrap, namespace, *options, log=log, app=app, cwd=HERE) as executor:
            yield executor
            executor.kill(signal.SIGTERM)
            assert executor.wait(40) == 0, executor.log()

    return run


class Others:
    """Who writes the topics of others."""

    def __init__(self, bootstrap: str, namespace: str) -> None:
        self._producer = Producer({**super_user(bootstrap), "partitioner": "murmur2_random"})
        self._namespace = namespace

    def write(self, topic: str, *values: bytes | None, key: bytes = b"customer-7", **more: object) -> None:
        for value in values:
            self._producer.produce(f"{self._namespace}-{topic}", value, key, **more)  # type: ignore[arg-type]
        assert self._producer.flush(10) == 0


@pytest.fixture
def others(bootstrap: str, namespace: str) -> Others:
    return Others(bootstrap, namespace)


def cli(bootstrap: str, namespace: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kantoku_kafka", "-b", bootstrap, "-n", namespace, *words]
    environment = environment_of(*words)
    return subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True, timeout=90, check=False)


def heads(message: object) -> dict[str, str]:
    return {name: (value or b"").decode() for name, value in message.headers() or ()}  # type: ignore[attr-defined]


def order(number: int, how: str = "ok") -> bytes:
    return json.dumps({"id": number, "how": how}).encode()


def test_orders_become_tasks_with_one_result_and_one_reply(
    bootstrap: str, namespace: str, others: Others, executing: Executing
) -> None:
    trace = [("traceparent", b"00-1"), ("kantoku-timer", b"forged")]
    others.write("orders", order(1), order(2, "once"), order(3, "always"), order(1), headers=trace)
    others.write(
        "orders", b"{", None, b'{"id": 4, "how": "asks"}', headers=[("reply-to", b"%s-answers.a" % namespace.encode())]
    )
    others.write("orders", order(5), headers=[("reply-to", f"{namespace}.results".encode())])
    ids = {n: idempotent_id(namespace, "ship", str(n)) for n in range(1, 6)}
    with executing(), closing(Kantoku(namespace, **as_user(bootstrap))) as kan:
        results = {n: kan.wait(ids[n], timeout_seconds=60) for n in range(1, 5)}
        delayed = kan.spawn(Task("ship").with_(delay(seconds=3_600), headers(x="y")))
        until(
            lambda: len(read_all(bootstrap, f"{namespace}.timers")) >= 5,
            60,
            "its timer, and two of the order tried again",
        )
        kan.cancel(delayed.id)
        assert delayed.result(timeout_seconds=60).status is Status.CANCELLED
        until(lambda: len(read_all(bootstrap, f"{namespace}.dlq")) == 4, 60, "dead letters")
    assert [results[n].status for n in range(1, 5)] == [Status.OK, Status.OK, Status.FAILED, Status.OK]
    assert results[2].data == b'{"attempt": 2}'
    assert results[1].source.topic == f"{namespace}-orders"
    assert results[2].source.topic == f"{namespace}.tasks.ship"
    assert results[1].headers == results[2].headers == (("traceparent", b"00-1"),)

    replies = read_all(bootstrap, f"{namespace}-shipments")
    assert Counter(heads(m)["kantoku-task-id"] for m in replies) == Counter([ids[1], ids[2], ids[3], delayed.id])
    by_id = {heads(m)["kantoku-task-id"]: m for m in replies}
    cancelled = by_id.pop(delayed.id)
    assert (cancelled.key(), heads(cancelled)["x"]) == (delayed.id.encode(), "y")
    assert heads(cancelled)["kantoku-status"] == "CANCELLED"
    assert {m.key() for m in by_id.values()} == {b"customer-7"}
    assert by_id[ids[2]].value() == b'{"attempt": 2}'
    assert json.loads(by_id[ids[3]].value() or b"") == {"error": {"type": "ConnectionError", "message": "no carrier"}}
    (asked,) = read_all(bootstrap, f"{namespace}-answers.a")
    assert heads(asked)["kantoku-task-id"] == ids[4]

    spawned = {delayed.id, *(ids[n] for n in range(1, 5))}
    Account.of(bootstrap, namespace).check(spawned)
    dead = {m.value(): heads(m) for m in read_all(bootstrap, f"{namespace}.dlq")}
    assert {value for value in dead if not value or value.startswith(b"{")} == {b"{", None, order(5)}
    assert {cause["kantoku-source-topic"] for cause in dead.values()} == {
        f"{namespace}-orders",
        f"{namespace}.tasks.ship",
    }
    assert len(read_all(bootstrap, f"{namespace}-orders")) == 8, "nothing of ours is written there"
    for arguments in (("--at-rest",), ("foreign_app:kan", "--at-rest")):
        done = cli(bootstrap, namespace, "verify", *arguments)
        assert done.returncode == 0, done.stderr
    lag = cli(bootstrap, namespace, "lag", "--sample", "0", "-o", "jsonl")
    rows = [json.loads(line) for line in lag.stdout.splitlines()]
    assert sum(row["not_done"] for row in rows if row["type"] == f"{namespace}-orders") == 0
    assert f"{namespace}-orders" in {row["type"] for row in rows}
    listed = cli(bootstrap, namespace, "tasks", "list", "-o", "jsonl")
    assert {json.loads(line)["task_id"] for line in listed.stdout.splitlines()} == spawned


def test_dead_letters_of_others_go_back_by_our_own_topic_or_not_at_all(
    bootstrap: str, namespace: str, others: Others, executing: Executing
) -> None:
    kan = Kantoku(namespace, **as_user(bootstrap))
    ours = kan.codec.encode_task(TaskEnvelope("1", "ship", b"forged", now_us()))
    others.write("orders", b"no json", ours, order(3, "always"))
    with executing():
        kan.wait(idempotent_id(namespace, "ship", "3"), timeout_seconds=60)
        until(lambda: len(read_all(bootstrap, f"{namespace}.dlq")) == 3, 60, "dead letters")
        done = cli(bootstrap, namespace, "dlq", "redrive", "--all", "-o", "jsonl")
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert Counter(row["note"] for row in rows) == Counter(
            {f"no task could be read from it, and {namespace}-orders is not ours to write it to": 2, None: 1}
        )
        (again,) = [row["id"] for row in rows if row["id"]]
        assert kan.wait(again, timeout_seconds=60).source.topic == f"{namespace}.tasks.ship"
    assert len(read_all(bootstrap, f"{namespace}-orders")) == 3
    kan.close()


def test_executors_that_are_killed_do_each_order_once(
    bootstrap: str, namespace: str, others: Others, executing: Executing
) -> None:
    count = 150
    for n in range(count):
        others.write("orders", order(n, "slow" if n % 3 else "once"), key=b"%d" % n)
    ids = {idempotent_id(namespace, "ship", str(n)) for n in range(count)}

    def ended() -> int:
        return len(read_all(bootstrap, f"{namespace}.results", wait_for_open=False))

    with (
        executing("--slot", "a", "-c", "2") as executor,
        closing(Kantoku(namespace, **as_user(bootstrap))) as kan,
    ):
        for most in (20, 50, 90):
            until(lambda: ended() >= most, 60, "results")  # noqa: B023 - called at once
            assert ended() < count, "it is killed at work"
            executor.kill()
            executor.start()
        kan.gather(ids, timeout_seconds=120)
    Account.of(bootstrap, namespace).check(ids)
    replied = Counter(heads(m)["kantoku-task-id"] for m in read_all(bootstrap, f"{namespace}-shipments"))
    assert replied == Counter(ids)
    assert cli(bootstrap, namespace, "verify", "foreign_app:kan", "--at-rest").returncode == 0


def test_events_and_raw_records_in_children(
    bootstrap: str, namespace: str, others: Others, executing: Executing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREIGN_POOL", "process")
    binary = {"ce_specversion": "1.0", "ce_id": "7", "ce_source": "/shop", "ce_type": "order.placed"}
    others.write("events", b"{}", b"again", headers=list(binary.items()))
    others.write("events", b"{}", headers=list({**binary, "ce_type": "order.paid"}.items()))
    others.write("raw", b"", None, b"\xff\0", b"\xff\0")
    others.write("orders", order(1, "once"))
    with executing(), closing(Kantoku(namespace, **as_user(bootstrap))) as kan:
        event = kan.wait(idempotent_id(namespace, "placed", "/shop 7"), timeout_seconds=60)
        assert kan.wait(idempotent_id(namespace, "ship", "1"), timeout_seconds=60).data == b'{"attempt": 2}'
        until(lambda: len(read_all(bootstrap, f"{namespace}.results")) == 5, 60, "results")
        until(lambda: len(read_all(bootstrap, f"{namespace}.dlq")) == 1, 60, "the tombstone")
    assert event.data == b"7"
    account = Account.of(bootstrap, namespace)
    assert Counter(r.data for r in account.results if r.type == "note") == Counter([b"", b"\xff\0", b"\xff\0"])
    (letter,) = account.dead
    assert letter.value() is None and "tombstone" in heads(letter)["kantoku-error-message"]
    assert Counter(event.name for event in account.events)["duplicate"] == 1
    assert cli(bootstrap, namespace, "verify", "foreign_app:kan", "--at-rest").returncode == 0


def test_since_leaves_out_what_is_older_and_loses_nothing_later(
    bootstrap: str, namespace: str, others: Others, executing: Executing, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_ms = time.time_ns() // 1_000_000
    monkeypatch.setenv("FOREIGN_SINCE_MS", str(now_ms - 60_000))
    for first, at_ms in ((0, now_ms - 3_600_000), (100, now_ms - 1_000)):
        for n in range(20):
            others.write("orders", order(first + n), key=b"%d" % n, timestamp=at_ms)
    ids = {idempotent_id(namespace, "ship", str(100 + n)) for n in range(20)}
    with executing("--group-protocol", "consumer"), closing(Kantoku(namespace, **as_user(bootstrap))) as kan:
        kan.gather(ids, timeout_seconds=60)
    Account.of(bootstrap, namespace).check(ids)
    assert cli(bootstrap, namespace, "verify", "foreign_app:kan", "--at-rest").returncode == 0

    beginning = [TopicPartition(f"{namespace}-orders", partition, 0) for partition in range(2)]
    admin, group = AdminClient(super_user(bootstrap)), f"{namespace}.executors"
    admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, beginning)])[group].result(10)
    older = {idempotent_id(namespace, "ship", str(n)) for n in range(20)}
    with executing(), closing(Kantoku(namespace, **as_user(bootstrap))) as kan:
        kan.gather(older, timeout_seconds=60)
    Account.of(bootstrap, namespace).check(ids | older)


@pytest.mark.parametrize("guarantee", ["exactly-once", "at-least-once"])
def test_a_reply_that_cannot_be_written_fails_its_own_task(
    bootstrap: str, namespace: str, others: Others, executing: Executing, guarantee: str
) -> None:
    asks = [("reply-to", f"{namespace}-answers.missing".encode())]
    others.write("orders", order(1), order(2, "always"), headers=asks)
    others.write("orders", order(3), order(4))
    with executing("--guarantee", guarantee), closing(Kantoku(namespace, **as_user(bootstrap))) as kan:
        results = [kan.wait(idempotent_id(namespace, "ship", str(n)), timeout_seconds=90) for n in range(1, 5)]
    assert [(r.status, r.error and r.error.type) for r in results] == [
        (Status.FAILED, "undeliverable"),
        (Status.FAILED, "ConnectionError"),
        (Status.OK, None),
        (Status.OK, None),
    ]
    assert f"{namespace}-answers.missing" in (results[0].error.message if results[0].error else "")
    replied = {heads(m)["kantoku-task-id"] for m in read_all(bootstrap, f"{namespace}-shipments")}
    assert replied == {results[2].task_id, results[3].task_id}


def test_a_missing_topic_of_others_is_named_and_not_created(bootstrap: str, namespace: str) -> None:
    admin = AdminClient(super_user(bootstrap))
    admin.delete_topics([f"{namespace}-raw"])[f"{namespace}-raw"].result(10)
    until(lambda: f"{namespace}-raw" not in admin.list_topics(timeout=10).topics, 30, "deleted")
    assert cli(bootstrap, namespace, "topics", "create", "foreign_app:kan", "--yes").returncode == 0
    for command in ("run-executor", "topics check"):
        done = cli(bootstrap, namespace, *command.split(), "foreign_app:kan")
        assert done.returncode == 7, (command, done.stderr)
        assert "not ours to create" in done.stderr and f"{namespace}-raw" in done.stderr
    assert f"{namespace}-raw" not in admin.list_topics(timeout=10).topics


ROLES = ("results", "events", "dlq", "control", "timers", "schedules", "tasks.ship", "tasks.note", "tasks.placed")


@pytest.mark.unsecured("has settings of its own")
def test_every_topic_of_ours_under_another_name(
    bootstrap: str, namespace: str, others: Others, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = {role: f"{namespace}-own-{role}" for role in ROLES}
    lines = ["[profiles.default]", f'namespace = "{namespace}"', f'bootstrap_servers = "{bootstrap}"']
    lines += [f'topics."{role}" = "{name}"' for role, name in named.items()]
    (tmp_path / "kantoku.toml").write_text("\n".join(lines), "utf-8")
    monkeypatch.setenv("KANTOKU_CONFIG", str(tmp_path / "kantoku.toml"))
    create = cli(bootstrap, namespace, "topics", "create", "foreign_app:kan", "--yes")
    assert create.returncode == 0 and all(name in create.stderr for name in named.values()), create.stderr
    others.write("orders", order(1, "once"), b"{")
    kan = Kantoku(namespace, bootstrap_servers=bootstrap, topics=named)
    spawned = kan.spawn(Task("ship", b"always").with_(delay(seconds=0.2)))
    with ExecutorUnderTest(bootstrap, namespace, log=tmp_path / "log", app="foreign_app:kan", cwd=HERE):
        assert kan.wait(idempotent_id(namespace, "ship", "1"), timeout_seconds=60).attempt == 2
        assert kan.wait(spawned.id, timeout_seconds=60).status is Status.FAILED
        until(lambda: len(read_all(bootstrap, named["dlq"])) == 2, 60, "dead letters")
        shown = cli(bootstrap, namespace, "tasks", "show", spawned.id)
        assert "ConnectionError" in shown.stdout, shown
        assert cli(bootstrap, namespace, "verify").returncode == 0
        lag = cli(bootstrap, namespace, "lag", "--sample", "0", "-o", "jsonl").stdout
        assert {json.loads(line)["type"] for line in lag.splitlines()} >= {"ship", f"{namespace}-orders"}
    kan.close()
    for role in ("results", "events", "dlq", "timers", "control", "tasks.ship"):
        assert read_all(bootstrap, named[role]), role
        assert not read_all(bootstrap, f"{namespace}.{role}"), role
