"""Retries and timers on a real Kafka, with processes killed meanwhile. Everything is read back from the topics.

``KANTOKU_RETRY_TASKS`` and ``KANTOKU_TIMERS`` set the scale (10000 and 100000 are the full one, see ``make retries``).
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from accounting import Account, read_all
from executors import HERE, ExecutorUnderTest, until

from kantoku_kafka import Kantoku, Status, Task, at
from kantoku_kafka.avro.codec import AvroCodec
from kantoku_kafka.kafka import topics

TASKS = int(os.environ.get("KANTOKU_RETRY_TASKS", "2000"))
TIMERS = int(os.environ.get("KANTOKU_TIMERS", "5000"))
SPREAD_SECONDS = max(15, TIMERS * 60 // 100_000)


@pytest.fixture
def kan(kan: Kantoku) -> Kantoku:
    topics.create(kan.clients, topics.plan(kan.topics, ["flaky", "timed", "noted"]))
    return kan


def executor(kan: Kantoku, bootstrap: str, log: Path, *options: str) -> ExecutorUnderTest:
    return ExecutorUnderTest(bootstrap, kan.namespace, *options, log=log, app="retry_app:kan", cwd=HERE)


def stop(running: list[ExecutorUnderTest]) -> None:
    alive = [process for process in running if process.returncode is None]
    for process in alive:
        process.kill(signal.SIGTERM)
    assert {process.wait(40) for process in alive} == {0}


def test_every_task_has_one_result_though_attempts_fail_and_executors_are_killed(
    kan: Kantoku, bootstrap: str, tmp_path: Path
) -> None:
    """30 % fail at first, 5 % of all always; two of three executors are killed, and come back later."""
    chance = random.Random(11)
    needed = [9 if luck < 0.05 else 2 if luck < 0.35 else 1 for luck in (chance.random() for _ in range(TASKS))]
    running = [executor(kan, bootstrap, tmp_path / f"{n}.log", "--types", "flaky") for n in range(3)]
    try:
        spawned = kan.spawn_many(Task("flaky", b"%d" % attempts) for attempts in needed[: TASKS // 2])
        until(lambda: len(kan.find_results([t.id for t in spawned[:50]])) > 20, 30, "the first results")
        running[0].kill()
        spawned += kan.spawn_many(Task("flaky", b"%d" % attempts) for attempts in needed[TASKS // 2 :])
        time.sleep(1)
        running[1].kill()
        kan.gather(spawned, timeout_seconds=200)
        stop(running)
    finally:
        for process in running:
            process.kill()
    wanted = {task.id: attempts for task, attempts in zip(spawned, needed, strict=True)}
    account = Account.of(bootstrap, kan.namespace)
    account.check(set(wanted))
    outcomes = {result.task_id: (result.status, result.attempt) for result in account.results}
    assert outcomes == {
        task_id: (Status.FAILED, 3) if attempts == 9 else (Status.OK, attempts) for task_id, attempts in wanted.items()
    }
    codec = AvroCodec()
    dead = Counter(codec.decode_task(letter.value()).id for letter in account.dead)
    assert dead == {task_id: 1 for task_id, attempts in wanted.items() if attempts == 9}
    steps: defaultdict[str, set[tuple[int, str]]] = defaultdict(set)
    for event in account.events:
        steps[event.task_id].add((event.attempt, event.name))
    for task_id, attempts in wanted.items():
        tries = min(attempts, 3)
        assert {n for n, name in steps[task_id] if name == "retry_scheduled"} == set(range(1, tries))
        assert {n for n, name in steps[task_id] if name == "received_task"} == set(range(1, tries + 1))


def test_timers_fire_once_and_not_early_though_their_owner_is_killed(
    kan: Kantoku, bootstrap: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(5)
    running = [executor(kan, bootstrap, tmp_path / "log", "--types", "timed", "--slot", "s0")]
    until(lambda: "assigned" in running[0].log(), 60, "it works")
    begin = datetime.now(UTC) + timedelta(seconds=5 + TIMERS / 10_000)
    dues = [begin + timedelta(seconds=chance.uniform(0, SPREAD_SECONDS)) for _ in range(TIMERS)]
    killed: list[float] = []

    def kill() -> None:
        for share in (0.3, 0.6):
            time.sleep(max(0.0, (begin - datetime.now(UTC)).total_seconds() + share * SPREAD_SECONDS))
            running[0].kill()
            killed.append(time.time() * 1e6)
            running[0].start()

    killer = threading.Thread(target=kill)
    try:
        spawned = kan.spawn_many(Task("timed").with_(at(due)) for due in dues)
        assert datetime.now(UTC) < begin, "spawning took longer than planned"
        killer.start()
        results = kan.gather(spawned, timeout_seconds=SPREAD_SECONDS + 90)
        stop(running)
    finally:
        killer.join()
        for process in running:
            process.kill()
    assert len(killed) == 2
    Account.of(bootstrap, kan.namespace).check({task.id for task in spawned})
    lateness_us = [int(r.data) - due.timestamp() * 1e6 for r, due in zip(results, dues, strict=True)]
    assert min(lateness_us) >= 0, "early"
    p50, p99 = (sorted(lateness_us)[int(TIMERS * share)] / 1000 for share in (0.5, 0.99))
    with capsys.disabled():
        sys.stdout.write(f"\n{TIMERS} timers, owner killed twice: lateness p50 {p50:.0f} ms, p99 {p99:.0f} ms\n")
    fired = Counter(m.key() for m in read_all(bootstrap, kan.topics.of_type("timed")) if m.headers() and _is_fired(m))
    events = map(kan.codec.decode_event, (m.value() or b"" for m in read_all(bootstrap, kan.topics.events)))
    delayed = {event.task_id.encode() for event in events if event.name == "delayed"}
    assert fired == Counter(delayed), "fired twice, or not at all"
    assert len(delayed) > TIMERS // 2, "what was due already when an executor first saw it needs no timer"


def _is_fired(message: object) -> bool:
    return any(name == "kantoku-timer" for name, _ in message.headers() or ())  # type: ignore[attr-defined]  # untyped
