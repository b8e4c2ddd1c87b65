"""Priorities on a real Kafka: what is urgent overtakes a backlog, and the backlog goes on."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from accounting import Account
from executors import ExecutorUnderTest
from test_cli import cli

from kantoku_kafka import Kantoku, Task, delay, priority
from kantoku_kafka.errors import UsageError
from kantoku_kafka.kafka import topics
from kantoku_kafka.model import Result

PRIORITIES = ("high", "normal", "low")


@pytest.fixture
def kan(kan: Kantoku, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kantoku:
    monkeypatch.setenv("HOOKS", str(tmp_path / "hooks"))
    inputs = [kan.topics.of_type("lanes", name) for name in PRIORITIES]
    topics.create(kan.clients, topics.plan(kan.topics, [], inputs=inputs))
    return kan


def executor(kan: Kantoku, bootstrap: str, log: Path) -> ExecutorUnderTest:
    return ExecutorUnderTest(bootstrap, kan.namespace, "--types", "lanes", log=log, app="hygiene_app:kan")


def started(results: list[Result]) -> list[float]:
    return [(result.started_at_us or 0) / 1e6 for result in results]


def test_urgent_tasks_overtake_a_backlog_that_goes_on(kan: Kantoku, bootstrap: str, tmp_path: Path) -> None:
    low = kan.spawn_many([Task("lanes", b"0.01").with_(priority("low"))] * 8_000)
    with executor(kan, bootstrap, tmp_path / "log"):
        kan.gather(low[:1], timeout_seconds=30)
        single, waits = [], []
        for _ in range(10):
            before = time.monotonic()
            single.append(kan.spawn(Task("lanes", b"0.01").with_(priority("high"))))
            kan.gather(single[-1:], timeout_seconds=30)
            waits.append(time.monotonic() - before)
            time.sleep(0.1)
        assert len(kan.find_results([task.id for task in low])) < 6_000, "the backlog was never in the way"
        assert sorted(waits)[5] < 1.0, waits

        high = kan.spawn_many([Task("lanes", b"0.01").with_(priority("high"))] * 800)
        normal = kan.spawn_many([Task("lanes", b"0.01")] * 200)
        urgent, usual = (kan.gather(tasks, timeout_seconds=60) for tasks in (high, normal))
        meanwhile = started(kan.gather(low, timeout_seconds=60))
    until = min(max(started(urgent)), max(started(usual)))
    since = max(min(started(urgent)), min(started(usual)))
    shares = [sum(since <= at <= until for at in ats) for ats in (started(urgent), started(usual), meanwhile)]
    total = sum(shares)
    assert total > 300
    assert [round(share / total, 1) for share in shares] == pytest.approx([8 / 11, 2 / 11, 1 / 11], abs=0.11), shares
    Account.of(bootstrap, kan.namespace).check({task.id for task in (*low, *single, *high, *normal)})


def test_the_priority_of_a_task_is_that_of_its_topic(kan: Kantoku, bootstrap: str, tmp_path: Path) -> None:
    common = ("-b", bootstrap, "-n", kan.namespace)
    spawned = cli(*common, "spawn", "lanes", "0", "--priority", "high").stdout.decode().split()
    later = kan.spawn(Task("lanes", b"0").with_(priority("high"), delay(seconds=1)))
    rows = [json.loads(line) for line in cli(*common, "lag", "--sample", "0", "-o", "jsonl").stdout.splitlines()]
    waiting = [(row["priority"], row["not_done"]) for row in rows if row["type"] == "lanes" and row["not_done"]]
    assert (sum(count for _, count in waiting), {name for name, _ in waiting}) == (2, {"high"})
    assert b"lanes/high" in cli(*common, "lag", "--sample", "0").stdout
    with executor(kan, bootstrap, tmp_path / "log"):
        kan.gather([*spawned, later.id], timeout_seconds=30)


def test_a_priority_that_the_type_has_not(kan: Kantoku) -> None:
    kan.task("sorted", priorities={"high": 2})(lambda data: data)
    with pytest.raises(UsageError, match="has no priority 'urgent', but: normal, high"):
        kan.spawn(Task("sorted").with_(priority("urgent")))
    for wrong in ({"High": 1}, {"high": 0}, {"high": True}, {"high": 1.5}, {"x.y": 1}):
        with pytest.raises(UsageError, match="priority"):
            kan.task("other", priorities=wrong)(lambda data: data)  # type: ignore[arg-type]  # wrong on purpose
