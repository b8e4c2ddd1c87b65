"""Cancellation on a real Kafka: waiting, delayed, between attempts, running; each within a second."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest
from access import super_user
from accounting import Account, read_all
from confluent_kafka.admin import AdminClient
from executors import ExecutorUnderTest, until
from test_cli import cli

from kantoku_kafka import Kantoku, Spawned, Status, Task, delay, headers, key, labels
from kantoku_kafka.errors import UsageError
from kantoku_kafka.kafka import topics
from kantoku_kafka.kafka.heartbeats import heartbeats
from kantoku_kafka.kafka.topics import existing_topics

USUAL_SECONDS, LIMIT_SECONDS = 1.0, 5.0  # a busy machine may have one of them wait longer; the tasks take 30 s
TYPES = ("loop", "waits", "sleeps", "fails")


@pytest.fixture
def kan(kan: Kantoku) -> Kantoku:
    topics.create(kan.clients, topics.plan(kan.topics, TYPES))
    return kan


@pytest.fixture
def executor(kan: Kantoku, bootstrap: str, tmp_path: Path) -> Iterator[ExecutorUnderTest]:
    options = ("--types", ",".join(TYPES), "-c", "1")
    with ExecutorUnderTest(bootstrap, kan.namespace, *options, log=tmp_path / "log", app="rogue_app:kan") as running:
        assert kan.wait(kan.spawn(Task("waits", b"0")).id, timeout_seconds=60).ok
        yield running


def cancelled_within(kan: Kantoku, task: Spawned) -> float:
    started = time.monotonic()
    kan.cancel(task.id, reason="no longer wanted")
    result = kan.wait(task.id, timeout_seconds=20)
    took = time.monotonic() - started
    assert (result.status, result.error and result.error.message) == (Status.CANCELLED, "no longer wanted")
    return took


def test_each_is_cancelled_within_a_second(kan: Kantoku, executor: ExecutorUnderTest, bootstrap: str) -> None:
    running = kan.spawn_many([Task("waits", b"30"), Task("loop"), Task("sleeps", b"30")])
    time.sleep(2)
    behind = kan.spawn_many([Task("waits", b"0"), Task("loop"), Task("sleeps", b"0")])
    delayed = kan.spawn(Task("waits", b"0").with_(delay(seconds=60)))
    failing = kan.spawn(Task("fails"))
    time.sleep(1.5)
    took = [cancelled_within(kan, task) for task in (*behind, delayed, failing, *running)]
    assert (median(took) < USUAL_SECONDS, max(took) < LIMIT_SECONDS) == (True, True), took
    assert kan.wait(kan.spawn(Task("waits", b"0")).id, timeout_seconds=20).ok, "it goes on"
    account = Account.of(bootstrap, kan.namespace)
    assert not account.impossible()
    names = {event.name for event in account.events if event.task_id == delayed.id}
    assert names == {"spawned", "delayed", "cancelled", "sent_outputs"}
    assert "executed_task" not in {event.name for event in account.events if event.task_id == behind[0].id}


def test_a_task_that_was_cancelled_before_any_executor_came_never_runs(
    kan: Kantoku, bootstrap: str, tmp_path: Path
) -> None:
    first, second = kan.spawn_many([Task("waits", b"0")] * 2)
    kan.cancel(first.id)
    with ExecutorUnderTest(bootstrap, kan.namespace, "--types", "waits", log=tmp_path / "log", app="rogue_app:kan"):
        one, other = kan.gather([first, second], timeout_seconds=60)
    assert (one.status, one.started_at_us, other.status) == (Status.CANCELLED, None, Status.OK)


def test_a_delayed_task_that_was_cancelled_can_be_restarted(
    kan: Kantoku, executor: ExecutorUnderTest, bootstrap: str
) -> None:
    task = kan.spawn(Task("waits", b"0").with_(delay(seconds=60), key("k"), headers(trace="7")))
    time.sleep(1)
    assert cancelled_within(kan, task) < LIMIT_SECONDS
    done = cli("-b", bootstrap, "-n", kan.namespace, "tasks", "restart", task.id, "-o", "jsonl")
    (row,) = map(json.loads, done.stdout.splitlines())
    result = kan.wait(row["id"], timeout_seconds=20)
    assert (result.ok, result.headers) == (True, (("trace", b"7"),)), done.stderr
    put = [kan.codec.decode_task(m.value() or b"") for m in read_all(bootstrap, task.topic) if m.key() == b"k"]
    assert [(one.id, one.restarted_from) for one in put][-1] == (row["id"], task.id)


def test_the_command_line_cancels_by_id_by_type_and_by_label(
    kan: Kantoku, executor: ExecutorUnderTest, bootstrap: str
) -> None:
    common = ("-b", bootstrap, "-n", kan.namespace)
    ended = kan.spawn(Task("waits", b"0"))
    assert kan.wait(ended.id, timeout_seconds=20).ok
    blocking = kan.spawn(Task("waits", b"30"))
    time.sleep(1)
    marked, plain = kan.spawn_many([Task("waits", b"0").with_(labels(customer="7")), Task("waits", b"0")])
    done = cli(*common, "tasks", "cancel", "--label", "customer=7")
    assert done.returncode == 0, done.stderr
    assert kan.wait(marked.id, timeout_seconds=10).status is Status.CANCELLED
    done = cli(*common, "tasks", "cancel", blocking.id, "-o", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["status"] == "CANCELLED"
    assert kan.wait(plain.id, timeout_seconds=20).ok, "the label is another one"
    done = cli(*common, "tasks", "cancel", ended.id)
    assert (done.returncode, b"had ended: OK" in done.stderr) == (1, True), done.stderr
    done = cli(*common, "tasks", "cancel", "0194f1c2-7c1e-7aaa-8bbb-123456789abc", "--timeout", "0.5")
    assert (done.returncode, b"Nobody knows" in done.stderr) == (5, True), done.stderr
    later = kan.spawn(Task("waits", b"30"))
    time.sleep(0.5)
    assert cli(*common, "tasks", "cancel", "--type", "waits").returncode == 0
    assert kan.wait(later.id, timeout_seconds=10).status is Status.CANCELLED
    assert kan.wait(kan.spawn(Task("waits", b"0")).id, timeout_seconds=20).ok, "what is spawned later is not meant"


def test_what_is_not_a_choice_is_refused(kan: Kantoku) -> None:
    for wrong in ({}, {"labels": {}}):
        with pytest.raises(UsageError):
            kan.cancel(**wrong)  # type: ignore[arg-type]  # what this is about
    with pytest.raises(UsageError):
        kan.cancel("id", type="waits")


def test_a_quiet_executor_ends_what_it_runs_and_leaves_and_a_stopped_one_ends(
    kan: Kantoku, executor: ExecutorUnderTest, bootstrap: str
) -> None:
    common = ("-b", bootstrap, "-n", kan.namespace)
    until(lambda: heartbeats(kan.clients, kan.topics.control), 20, "it has said that it lives")
    (beat,) = heartbeats(kan.clients, kan.topics.control)
    running = kan.spawn(Task("waits", b"4"))
    time.sleep(1)
    assert cli(*common, "executors", "quiet", "nobody").returncode == 5
    assert cli(*common, "executors", "stop").returncode == 2
    done = cli(*common, "executors", "quiet", beat.slot)
    assert done.returncode == 0 and beat.executor_id in done.stderr.decode(), done.stderr
    until(lambda: "told to quiet" in executor.log(), 10, "it has heard of it")
    later = kan.spawn(Task("waits", b"0"))
    assert kan.wait(running.id, timeout_seconds=20).ok
    until(lambda: "quiet: nothing runs" in executor.log(), 20, "it has left the group")
    assert kan.find_results([later.id]) == {}, "for others"
    assert executor.returncode is None

    def told() -> list[tuple[str, str]]:
        rows = json.loads(cli(*common, "executors", "--sample", "0", "-o", "json").stdout)
        return [(row["executor"], row["state"]) for row in rows]

    until(lambda: told() == [(beat.executor_id, "quiet")], 30, "who is to be stopped is still named")
    assert cli(*common, "executors", "stop", beat.executor_id).returncode == 0
    assert executor.wait(40) == 0
    executor.start()
    assert kan.wait(later.id, timeout_seconds=40).ok, "a later start is not meant by the stop"


def test_commands_are_heard_when_their_topic_is_there_again(
    kan: Kantoku, executor: ExecutorUnderTest, bootstrap: str
) -> None:
    """Somebody has deleted it, and creates it anew while an executor runs."""
    executor.kill()
    admin = AdminClient(super_user(bootstrap))
    admin.delete_topics([kan.topics.control])[kan.topics.control].result(20)
    until(lambda: kan.topics.control not in existing_topics(kan.clients), 20, "it is gone")
    executor.start()
    until(lambda: "no commands are heard" in executor.log(), 60, "it says so")
    topics.create(kan.clients, topics.plan(kan.topics, TYPES))
    running = kan.spawn(Task("waits", b"300"))

    def cancelled() -> bool:
        kan.cancel(running.id)
        return running.id in kan.find_results([running.id], timeout_seconds=2)

    until(cancelled, 60, "it hears")
