"""Processes that die at every step of a checkpoint, of tasks and of timers, on a real Kafka: all promises hold."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from accounting import Account, read_all
from executors import ExecutorUnderTest

from kantoku_kafka import Kantoku, Status, Task, delay, idempotency_key
from kantoku_kafka.avro.codec import AvroCodec
from kantoku_kafka.kafka import topics
from tests.chaos.failpoints import STEPS

ROOT = Path(__file__).parents[2]
TASKS = 300
DEATHS = 4


@pytest.mark.timeout(200)
@pytest.mark.parametrize("step", [step for step in STEPS if step != "revoked"])
def test_a_death_at_this_step_breaks_nothing(
    kan: Kantoku, bootstrap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """One executor, started again by its slot: retries, delays, duplicates and tasks that fail for good."""
    chance = random.Random(step)
    topics.create(kan.clients, topics.plan(kan.topics, ["flaky"]))
    needed = [9 if n % 20 == 0 else 2 if n % 3 == 0 else 1 for n in range(TASKS)]
    tasks = [Task("flaky", b"%d" % attempts) for attempts in needed]
    tasks = [task.with_(delay(seconds=chance.uniform(0.1, 3))) if chance.random() < 0.3 else task for task in tasks]
    tasks = [task.with_(idempotency_key(f"k{n}")) for n, task in enumerate(tasks)]
    options = (bootstrap, kan.namespace, "--types", "flaky", "--slot", "s0")
    monkeypatch.setenv("KANTOKU_FAILPOINT", f"{step}:{chance.randint(2, 4)}")
    spawned = kan.spawn_many(tasks[: TASKS // 2])
    with ExecutorUnderTest(*options, log=tmp_path / "log", app="tests.chaos.app:kan", cwd=ROOT) as executor:
        spawned += kan.spawn_many(tasks[TASKS // 2 :])
        kan.spawn_many(tasks)  # each once more
        for death in range(1, DEATHS + 1):
            while executor.returncode is None:  # it dies at its work, so there has to be some
                spawned.append(kan.spawn(Task("flaky", b"1")))
                needed.append(1)
                time.sleep(0.05)
            assert executor.returncode == -signal.SIGKILL, executor.log()[-2_000:]
            monkeypatch.setenv("KANTOKU_FAILPOINT", f"{step}:{chance.randint(1, 8)}" if death < DEATHS else "")
            time.sleep(0.2)
            executor.start()
        kan.gather(spawned, timeout_seconds=90)
        time.sleep(1)
        executor.kill(signal.SIGTERM)
        assert executor.wait(40) == 0, executor.log()[-2_000:]
    wanted = {task.id: attempts for task, attempts in zip(spawned, needed, strict=True)}
    account = Account.of(bootstrap, kan.namespace)
    account.check(set(wanted))
    assert {r.task_id: (r.status, r.attempt) for r in account.results} == {
        task_id: (Status.FAILED, 3) if attempts == 9 else (Status.OK, attempts) for task_id, attempts in wanted.items()
    }
    dead = Counter(AvroCodec().decode_task(letter.value()).id for letter in account.dead)
    assert dead == {task_id: 1 for task_id, attempts in wanted.items() if attempts == 9}
    timers = Counter(m.key() for m in read_all(bootstrap, kan.topics.timers) if m.value() is not None)
    tombstones = Counter(m.key() for m in read_all(bootstrap, kan.topics.timers) if m.value() is None)
    assert timers == tombstones, "each timer was fired once"
