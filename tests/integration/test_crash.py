"""Executors killed with SIGKILL: one result per task, whatever happens. Everything is read back from the topics.

``KANTOKU_CRASH_TASKS`` sets the scale (20000 is the full one, see ``make crash``).
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
from accounting import Account
from executors import ExecutorUnderTest, until

from kantoku_kafka import Kantoku, Task, key
from kantoku_kafka.testing.broker import BOOTSTRAP_VARIABLE

TASKS = int(os.environ.get("KANTOKU_CRASH_TASKS", "3000"))
KILLS = max(4, TASKS * 15 // 20_000)
PROTOCOLS = {
    "classic": (),
    "static": ("--slot",),
    "consumer": ("--group-protocol", "consumer"),
    "inherited": ("--group-protocol", "consumer", "--slot"),
}


@pytest.mark.parametrize("how", PROTOCOLS)
def test_each_task_has_one_result_though_executors_are_killed(
    kan: Kantoku, bootstrap: str, tmp_path: Path, how: str
) -> None:
    options = PROTOCOLS[how]
    executors = [
        ExecutorUnderTest(
            *(bootstrap, kan.namespace, "--types", "work"),
            *([*options, f"s{n}"] if "--slot" in options else options),
            log=tmp_path / f"{n}.log",
        )
        for n in range(3)
    ]
    died: list[int] = []

    def kill() -> None:
        chance = random.Random(7)
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.5, 2.0))
            victim = chance.choice(executors)
            if victim.returncode is not None:
                died.append(victim.returncode)
            victim.kill()
            time.sleep(chance.uniform(0.0, 1.0))
            victim.start()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        spawned = []
        for _ in range(20):
            spawned += kan.spawn_many([Task("work", b"x")] * (TASKS // 20))
            time.sleep(0.5)
        killer.join()
        kan.gather(spawned, timeout_seconds=200)
        for executor in executors:
            until(executor.is_up, 60, "it is up")
            executor.kill(signal.SIGTERM)
        assert [executor.wait(40) for executor in executors] == [0, 0, 0]
    finally:
        killer.join()
        for executor in executors:
            executor.kill()
    assert died == [], "an executor ended by itself"
    account = Account.of(bootstrap, kan.namespace)
    account.check({task.id for task in spawned})
    assert account.dead == []


@pytest.mark.parametrize("how", PROTOCOLS)
def test_a_slow_task_holds_nothing_up_and_is_all_that_runs_again(
    kan: Kantoku, bootstrap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """One slow task in front of many short ones in the same partition, then SIGKILL and a new start."""
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    monkeypatch.setenv("NOTES", str(notes))
    count = min(10_000, TASKS)

    slow = kan.spawn(Task("note", str(gate).encode()).with_(key("k")))
    short = kan.spawn_many([Task("note", b"0").with_(key("k"))] * count)
    options = [*PROTOCOLS[how], *(["s0"] if "--slot" in PROTOCOLS[how] else [])]
    with ExecutorUnderTest(bootstrap, kan.namespace, "--types", "note", *options, log=tmp_path / "log") as executor:
        kan.gather(short, timeout_seconds=60)
        time.sleep(6)  # longer than the interval of Kafka's automatic commits, should somebody switch them on
        assert kan.find_results([slow.id]) == {}
        executor.kill()
        gate.touch()
        executor.start()
        assert kan.wait(slow.id, timeout_seconds=60).ok
        executor.kill(signal.SIGTERM)
        assert executor.wait(40) == 0
    starts = Counter(line.split()[1] for line in notes.read_text().splitlines() if line.startswith("start"))
    assert starts == {slow.id: 2, **dict.fromkeys((task.id for task in short), 1)}
    Account.of(bootstrap, kan.namespace).check({slow.id, *(task.id for task in short)})


@pytest.mark.parametrize(("how", "bound_seconds"), [("static", 8), ("inherited", 8), ("classic", 15), ("consumer", 15)])
def test_work_goes_on_soon_after_a_kill(
    kan: Kantoku, bootstrap: str, tmp_path: Path, how: str, bound_seconds: float
) -> None:
    """With a slot: the same one is started again, and need not wait for its session of 10 s to end. Else: another
    executor takes over. On a slow machine the bound follows from how long a start takes there."""
    if how == "consumer" and BOOTSTRAP_VARIABLE in os.environ:
        bound_seconds = 60  # with KIP-848 it is the broker that sets the session timeout; 45 s is its default
    common = (bootstrap, kan.namespace, "--types", "work")
    stop = threading.Event()
    spawned = []

    def load() -> None:
        while not stop.is_set():
            spawned.extend(kan.spawn_many([Task("work", b"x")] * 50))
            time.sleep(0.05)

    loader, begun = threading.Thread(target=load), time.monotonic()
    slot = ["s0"] if "--slot" in PROTOCOLS[how] else []
    with ExitStack() as running:
        victim = running.enter_context(ExecutorUnderTest(*common, *PROTOCOLS[how], *slot, log=tmp_path / "victim"))
        loader.start()
        running.callback(loader.join)
        running.callback(stop.set)
        until(lambda: spawned and kan.find_results([spawned[0].id]), 60, "the first result")
        bound_seconds = max(bound_seconds, 3 * (time.monotonic() - begun))
        heir = victim
        if not slot:
            heir = running.enter_context(ExecutorUnderTest(*common, *PROTOCOLS[how], log=tmp_path / "survivor"))
            until(lambda: "assigned" in heir.log(), 30, "the second member has partitions")
        time.sleep(1)
        killed = time.monotonic()
        victim.kill()
        if slot:
            victim.start()
        probe = kan.spawn_many([Task("work", b"probe")] * 40)  # in every partition
        kan.gather(probe, timeout_seconds=bound_seconds)
        print(f"{how}: {time.monotonic() - killed:.1f} s")  # noqa: T201 - shown with -s
        stop.set()
        loader.join()
        spawned.extend(probe)
        kan.gather(spawned, timeout_seconds=60)
        heir.kill(signal.SIGTERM)
        assert heir.wait(40) == 0
    Account.of(bootstrap, kan.namespace).check({task.id for task in spawned})


def test_a_zombie_publishes_nothing(kan: Kantoku, bootstrap: str, tmp_path: Path) -> None:
    """Stopped for longer than its session while it has ended tasks to publish; then it wakes up."""
    common = (bootstrap, kan.namespace, "--types", "work,nap")
    spawned = kan.spawn_many([Task("work", b"x")] * 2000)
    with ExecutorUnderTest(*common, log=tmp_path / "zombie") as zombie:
        until(lambda: kan.find_results([s.id for s in spawned[:50]]), 30, "the first results")
        zombie.kill(signal.SIGSTOP)
        with ExecutorUnderTest(*common, log=tmp_path / "heir") as heir:
            kan.gather(spawned, timeout_seconds=60)
            until(lambda: "assigned" in heir.log(), 30, "the heir has partitions")
            spawned += kan.spawn_many([Task("work", b"x")] * 200)
            zombie.kill(signal.SIGCONT)
            kan.gather(spawned, timeout_seconds=60)
            for executor in (zombie, heir):
                executor.kill(signal.SIGTERM)
            assert [zombie.wait(40), heir.wait(40)] == [0, 0]
    Account.of(bootstrap, kan.namespace).check({task.id for task in spawned})


def test_sigterm_under_load_ends_cleanly(
    kan: Kantoku, bootstrap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What had started is finished and published; nothing runs twice; the exit code is 0."""
    notes = tmp_path / "notes"
    monkeypatch.setenv("NOTES", str(notes))
    spawned = kan.spawn_many([Task("note", b"0.05")] * 3000)
    command = (bootstrap, kan.namespace, "--types", "note", "-c", "32")
    with ExecutorUnderTest(*command, log=tmp_path / "log") as executor:
        until(lambda: kan.find_results([s.id for s in spawned[:200]]), 30, "the first results")
        executor.kill(signal.SIGTERM)
        assert executor.wait(30) == 0
        lines = notes.read_text().splitlines()
        assert sum(line.startswith("start") for line in lines) == sum(line.startswith("end") for line in lines)
        executor.start()
        kan.gather(spawned, timeout_seconds=60)
        executor.kill(signal.SIGTERM)
        assert executor.wait(30) == 0
    runs = Counter(line.split()[1] for line in notes.read_text().splitlines() if line.startswith("end"))
    assert runs == dict.fromkeys((task.id for task in spawned), 1)
    Account.of(bootstrap, kan.namespace).check({task.id for task in spawned})


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_at_a_commit(
    kan: Kantoku, bootstrap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Results and offsets are one: whichever were made durable without the other, a task would be lost or run twice."""
    tasks = kan.spawn_many([Task("echo", b"x")] * 5000)
    monkeypatch.setenv("DIE", moment)
    dying = ExecutorUnderTest(bootstrap, kan.namespace, "--slot", "s", log=tmp_path / "log", app="dying_app:kan")
    until(lambda: dying.returncode is not None, 30, "the executor's end")
    assert dying.returncode == -signal.SIGKILL
    monkeypatch.delenv("DIE")
    with ExecutorUnderTest(bootstrap, kan.namespace, "--slot", "s", log=tmp_path / "log", app="dying_app:kan"):
        kan.gather(tasks, timeout_seconds=60)
    Account.of(bootstrap, kan.namespace).check({task.id for task in tasks})
