"""Pool process on a real Kafka, with tasks that crash, hang, hoard memory and leave processes behind.

``KANTOKU_ROGUE_TASKS`` sets the scale.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from accounting import Account
from executors import ExecutorUnderTest, until

from kantoku_kafka import Kantoku, Status, Task
from kantoku_kafka.kafka import topics

TASKS = int(os.environ.get("KANTOKU_ROGUE_TASKS", "1000"))
ROGUES = (b"segfault", b"exit", b"hang", b"memory", b"grandchildren")
ENDS = {b"hang": Status.TIMED_OUT}
MEMORY_GROWTH_BYTES = 30 << 20


@pytest.mark.timeout(300)
def test_rogues_end_and_take_nothing_with_them(kan: Kantoku, bootstrap: str, tmp_path: Path) -> None:
    topics.create(kan.clients, topics.plan(kan.topics, ["rogue"]))
    options = ("--types", "rogue", "-c", "4", "--max-memory-per-child", "300")
    data = [ROGUES[n // 20 % len(ROGUES)] if n % 20 == 7 else b"fine" for n in range(TASKS)]
    with ExecutorUnderTest(bootstrap, kan.namespace, *options, log=tmp_path / "log", app="rogue_app:kan") as executor:
        kan.gather(kan.spawn_many([Task("rogue", b"fine")] * 100), timeout_seconds=60)
        before = resident_bytes(executor.pid)
        spawned = kan.spawn_many(Task("rogue", what) for what in data)
        results = kan.gather(spawned, timeout_seconds=250)
        grown = resident_bytes(executor.pid) - before
        executor.kill(signal.SIGTERM)
        assert executor.wait(40) == 0
        until(lambda: session_of(executor.pid) == [], 5, "no process of the executor is left")
    wrong = [
        (what, result.status, result.error and result.error.message)
        for what, result in zip(data, results, strict=True)
        if result.status is not (Status.OK if what == b"fine" else ENDS.get(what, Status.CRASHED))
    ]
    assert not wrong
    assert {result.attempt for what, result in zip(data, results, strict=True) if what != b"fine"} == {2}
    assert grown < MEMORY_GROWTH_BYTES
    account = Account.of(bootstrap, kan.namespace)
    assert len(account.dead) == sum(what != b"fine" for what in data)
    assert not account.impossible()
    assert Counter(r.task_id for r in account.results).most_common(1)[0][1] == 1
    assert subprocess.run(["pgrep", "-f", "kantoku-grandchild"], check=False, capture_output=True).stdout == b""


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def session_of(pid: int) -> list[int]:
    """What descends from an executor: its pool's children begin sessions of their own, in its cgroup or not."""
    marked = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                status = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(status[1]) == pid:
                marked.append(int(entry.name))
    return marked


def test_time_is_kept_by_the_executor_not_by_the_task(kan: Kantoku, bootstrap: str, tmp_path: Path) -> None:
    """A hang in C is over in the time that its type allows, and a little."""
    topics.create(kan.clients, topics.plan(kan.topics, ["rogue"]))
    with ExecutorUnderTest(bootstrap, kan.namespace, "--types", "rogue", log=tmp_path / "log", app="rogue_app:kan"):
        kan.wait(kan.spawn(Task("rogue", b"fine")).id, timeout_seconds=60)
        started = time.monotonic()
        result = kan.wait(kan.spawn(Task("rogue", b"hang")).id, timeout_seconds=60)
        took = time.monotonic() - started
    assert (result.status, result.attempt) == (Status.TIMED_OUT, 2)
    assert 4 <= took < 15, "two attempts of 2 s"
