"""Schedules on a real Kafka: each time once, whoever is killed; what overlaps, and what was missed."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from access import super_user
from accounting import Account, read_all
from confluent_kafka import Producer
from executors import HERE, ExecutorUnderTest, until
from test_cli import cli

from kantoku_kafka import Kantoku, Result, Status, Task, delay, idempotency_key
from kantoku_kafka.errors import BrokerUnavailable, NotFound, TopicMismatch, UsageError
from kantoku_kafka.ids import occurrence_id, task_id_time_ms
from kantoku_kafka.kafka import topics
from kantoku_kafka.kafka.partitioner import partition_of
from kantoku_kafka.model import Source, TaskEnvelope, now_us
from kantoku_kafka.timing import _Ended

SECOND_US = 1_000_000


@pytest.fixture
def kan(kan: Kantoku) -> Kantoku:
    topics.create(kan.clients, topics.plan(kan.topics, ["timed", "waits"]))
    return kan


def executor(kan: Kantoku, bootstrap: str, log: Path, *options: str) -> ExecutorUnderTest:
    return ExecutorUnderTest(bootstrap, kan.namespace, *options, log=log, app="retry_app:kan", cwd=HERE)


def tasks_of(bootstrap: str, kan: Kantoku) -> dict[str, list[TaskEnvelope]]:
    """The tasks by schedule, each in the order of its times; each has one result."""
    records = [record for name in ("timed", "waits") for record in read_all(bootstrap, kan.topics.of_type(name))]
    tasks = [kan.codec.decode_task(record.value() or b"") for record in records]
    Account.of(bootstrap, kan.namespace).check({task.id for task in tasks})
    found: defaultdict[str, list[TaskEnvelope]] = defaultdict(list)
    for task in sorted(tasks, key=lambda task: task.id):
        found[task.labels["schedule"]].append(task)
    return found


def gaps(tasks: list[TaskEnvelope]) -> list[int]:
    """Seconds between the times of the tasks in turn."""
    times = [task_id_time_ms(task.id) or 0 for task in tasks]
    return [round((after - before) / 1_000) for before, after in itertools.pairwise(times)]


def test_each_time_has_one_task_though_owners_are_killed(kan: Kantoku, bootstrap: str, tmp_path: Path) -> None:
    schedule = kan.schedules.add("tick", Task("timed"), every_seconds=1, catch_up="all")
    running = [executor(kan, bootstrap, tmp_path / f"{n}.log", "--types", "timed", "--slot", f"s{n}") for n in range(2)]
    try:
        until(lambda: kan.schedules.get("tick").state, 30, "the first task")
        for number in (0, 1, 0):
            time.sleep(2)
            running[number].kill()
            running[number].start()
        time.sleep(6)
        kan.schedules.pause("tick")
        state, before = kan.schedules.get("tick").state, None
        while state != before:  # until the executor has heard of it
            time.sleep(3)
            state, before = kan.schedules.get("tick").state, state
        assert state is not None and state.spawned > 8
        dues = range(schedule.changed_at_us + SECOND_US, state.due_at_us + 1, SECOND_US)
        ids = [occurrence_id(kan.namespace, "tick", due_us) for due_us in dues]
        results = kan.gather(ids, timeout_seconds=30)
    finally:
        for process in running:
            process.kill()
    assert all(int(result.data) >= due_us for result, due_us in zip(results, dues, strict=True)), "early"
    records = read_all(bootstrap, kan.topics.of_type("timed"))
    assert sorted(record.key().decode() for record in records) == sorted(ids), "twice, or not at all"
    account = Account.of(bootstrap, kan.namespace)
    account.check(set(ids))
    assert {event.task_id for event in account.events if event.name == "spawned"} == set(ids)


def test_what_was_missed(kan: Kantoku, bootstrap: str, tmp_path: Path) -> None:
    for policy in ("skip", "one", "all"):
        kan.schedules.add(policy, Task("timed"), every_seconds=1, catch_up=policy, grace_seconds=0.5)
    with executor(kan, bootstrap, tmp_path / "log", "--types", "timed", "--slot", "s0") as running:
        until(lambda: all(one.state and one.state.spawned > 1 for one in kan.schedules.all()), 30, "each has run")
        running.kill()
        time.sleep(6)
        running.start()
        until(lambda: all(one.state and one.state.spawned > 4 for one in kan.schedules.all()), 30, "each has gone on")
        time.sleep(2)
        for policy in ("skip", "one", "all"):
            kan.schedules.remove(policy)
        time.sleep(1)
        found = tasks_of(bootstrap, kan)
    assert set(gaps(found["all"])) == {1}
    assert max(gaps(found["one"])) > 4 and max(gaps(found["skip"])) > 4
    lateness_us = {name: max(map(late_us, tasks)) for name, tasks in found.items()}
    assert lateness_us["all"] > 4 * SECOND_US
    assert lateness_us["one"] < 4 * SECOND_US, "of those that were missed the last one"


def late_us(task: TaskEnvelope) -> int:
    """How long after its time it was put onto its input."""
    return task.created_at_us - 1_000 * (task_id_time_ms(task.id) or 0)


def test_overlaps(kan: Kantoku, bootstrap: str, tmp_path: Path) -> None:
    for policy in ("allow", "skip", "cancel"):
        kan.schedules.add(policy, Task("waits", b"2.6"), every_seconds=1, overlap=policy, catch_up="skip")
    with ExecutorUnderTest(
        bootstrap, kan.namespace, "--types", "waits", log=tmp_path / "log", app="rogue_app:kan", cwd=HERE
    ):
        until(lambda: all(one.state and one.state.spawned >= 4 for one in kan.schedules.all()), 40, "each has run")
        left_out = kan.schedules.get("skip").state
        for policy in ("allow", "skip", "cancel"):
            kan.schedules.remove(policy)
        time.sleep(4)
        found = tasks_of(bootstrap, kan)
        results = {result.task_id: result for result in Account.of(bootstrap, kan.namespace).results}
    assert left_out is not None and left_out.skipped >= 6
    by_id = {name: [results[task.id] for task in tasks] for name, tasks in found.items()}
    for before, after in itertools.pairwise(by_id["skip"]):
        assert before.finished_at_us <= (after.started_at_us or 0)
    assert {result.status for name in ("skip", "allow") for result in by_id[name]} == {Status.OK}
    *older, last = by_id["cancel"]
    assert last.ok and {result.status for result in older} == {Status.CANCELLED}
    assert older[0].error is not None and older[1].task_id in older[0].error.message


def test_by_command_line(kan: Kantoku, bootstrap: str, tmp_path: Path) -> None:
    common = ("-b", bootstrap, "-n", kan.namespace)

    def schedules(*arguments: str, code: int = 0) -> str:
        done = cli(*common, "schedules", *arguments)
        assert done.returncode == code, done.stderr
        return (done.stdout if code == 0 and done.stdout else done.stderr).decode()

    assert "has no schedules" in schedules("list")
    said = schedules("add", "nightly", "timed", "x", "--cron", "30 2 * * *", "--tz", "Europe/Berlin", "-l", "a=b")
    assert len(re.findall(r"due \d{4}-\d\d-\d\d 0[01]:30:00\+00:00", said)) == 3
    before = kan.schedules.get("nightly").schedule
    schedules("add", "nightly", "timed", "x", "--cron", "30 2 * * *", "--tz", "Europe/Berlin", "-l", "a=b")
    assert kan.schedules.get("nightly").schedule == before, "what is as it was is not written again"
    schedules("pause", "nightly")
    (row,) = json.loads(schedules("list", "-o", "json"))
    assert (row["name"], row["type"], row["paused"], row["next"], row["spawned"]) == ("nightly", "timed", True, None, 0)
    assert "paused" in schedules("list")
    with executor(kan, bootstrap, tmp_path / "log", "--types", "timed"):
        result = kan.wait(schedules("trigger", "nightly").strip(), timeout_seconds=30)
    assert result.ok
    assert "next 20" in schedules("resume", "nightly")
    schedules("remove", "nightly")
    assert "no schedule 'nightly'" in schedules("trigger", "nightly", code=5)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("n", "timed", "--cron", "0 0 30 2 *"), 2, "day-of-month"),
        (("n", "timed", "--cron", "0 0 * * *", "--tz", "Mars/Olympus"), 2, "time zone"),
        (("n", "timed"), 2, "either"),
        (("n", "timed", "--every", "0.1s"), 2, "one second"),
        (("n", "timed", "--every", "soon"), 2, "duration"),
        (("n", "timed", "--every", "1m", "--jitter", "-5s"), 2, "duration"),
        (("n", "timed", "--every", "1m", "--overlap", "maybe"), 2, "maybe"),
        (("n", "timed", "--every", "1m", "--end", "2020-01-01"), 2, "never comes"),
        (("a/b", "timed", "--every", "1m"), 2, "name of a schedule"),
        (("n", "nowhere", "--every", "1m"), 7, "nowhere"),
    ],
)
def test_what_cannot_be_is_refused(
    kan: Kantoku, bootstrap: str, arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = cli("-b", bootstrap, "-n", kan.namespace, "schedules", "add", *arguments)
    assert (done.returncode, words in done.stderr.decode(), b"Traceback" in done.stderr) == (code, True, False), (
        done.stderr
    )
    assert kan.schedules.all() == []


def test_what_the_library_refuses(kan: Kantoku) -> None:
    every: Mapping[str, float] = {"every_seconds": 60}
    with pytest.raises(UsageError, match="says itself"):
        kan.schedules.add("n", Task("timed").with_(delay(seconds=1)), **every)
    with pytest.raises(UsageError, match="says itself"):
        kan.schedules.add("n", Task("timed").with_(idempotency_key("k")), **every)
    with pytest.raises(UsageError, match="overlap"):
        kan.schedules.add("n", Task("timed"), every_seconds=60, overlap="sometimes")
    with pytest.raises(TopicMismatch):
        kan.schedules.add("n", Task("nowhere"), **every)
    with pytest.raises(NotFound):
        kan.schedules.pause("n")


def test_a_schedule_whose_task_cannot_be_read_does_not_hide_the_others(kan: Kantoku, bootstrap: str) -> None:
    common = ("-b", bootstrap, "-n", kan.namespace)
    for name in ("broken", "nightly"):
        kan.schedules.add(name, Task("timed"), every_seconds=60)
    (schedule,) = [planned.schedule for planned in kan.schedules.all() if planned.schedule.name == "broken"]
    producer = Producer(super_user(bootstrap))
    (record,) = [r for r in read_all(bootstrap, kan.topics.schedules) if schedule.task in (r.value() or b"")]
    damaged = (record.value() or b"").replace(schedule.task, bytes(len(schedule.task)))
    producer.produce(kan.topics.schedules, damaged, record.key(), partition=0)
    assert producer.flush(10) == 0
    done = cli(*common, "schedules", "list", "-o", "json")
    assert {row["name"]: row["type"] for row in json.loads(done.stdout)} == {"broken": None, "nightly": "timed"}
    assert b"schedule broken: its task cannot be read by this version" in done.stderr
    assert cli(*common, "schedules", "list").returncode == 0


def test_whether_a_task_has_ended_is_not_judged_while_a_transaction_hides_it(kan: Kantoku, bootstrap: str) -> None:
    """As an executor leaves it that is killed amid a checkpoint. What is missed now would be skipped for good."""
    task_id, now = occurrence_id(kan.namespace, "nightly", now_us()), now_us()
    number = partition_of(task_id.encode(), 4)
    dying = Producer({**super_user(bootstrap), "transactional.id": f"{kan.namespace}.dying"})
    dying.init_transactions(10)
    dying.begin_transaction()
    dying.produce(kan.topics.results, b"x", b"k", partition=number)
    assert dying.flush(10) == 0
    result = Result(task_id, "timed", Status.OK, b"", None, 1, "e", now, now, Source("t", 0, 0, 1), ())
    producer = Producer(super_user(bootstrap))
    producer.produce(kan.topics.results, kan.codec.encode_result(result), task_id.encode(), partition=number)
    assert producer.flush(10) == 0
    kan.connect_to(replace(kan.connection, timeout_seconds=2.0))
    with closing(_Ended(kan)) as ended:
        with pytest.raises(BrokerUnavailable, match="hides whether"):
            ended.ask(task_id).result(60)
        dying.abort_transaction(10)
        until(lambda: _answer(ended, task_id), 30, "it has ended")


def _answer(ended: _Ended, task_id: str) -> bool:
    with suppress(BrokerUnavailable):
        return ended.ask(task_id).result(60)
    return False
