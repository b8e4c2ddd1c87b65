"""How an executor comes and goes: hooks, bursts, a number of tasks; and the rate of a group."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from executors import ExecutorUnderTest, until
from test_cli import cli

from kantoku_kafka import Kantoku, Task
from kantoku_kafka.kafka import topics

TYPES = ["limited", "warm", "warm-process"]


@pytest.fixture
def kan(kan: Kantoku, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kantoku:
    monkeypatch.setenv("HOOKS", str(tmp_path / "hooks"))
    topics.create(kan.clients, topics.plan(kan.topics, TYPES))
    return kan


def test_a_burst_ends_when_the_inputs_are_done_and_hooks_run(kan: Kantoku, bootstrap: str, tmp_path: Path) -> None:
    spawned = kan.spawn_many([Task("warm", b"x")] * 200 + [Task("warm-process", b"x")] * 5)
    common = (
        "-b",
        bootstrap,
        "-n",
        kan.namespace,
        "run-executor",
        "hygiene_app:kan",
        "--burst",
        "--types",
        "warm,warm-process",
    )
    done = cli(*common, timeout=60)
    assert done.returncode == 0, done.stderr
    assert len(kan.find_results([task.id for task in spawned])) == 205
    assert {r.data for r in kan.find_results([t.id for t in spawned]).values()} == {b"warm"}
    hooks = (tmp_path / "hooks").read_text().split()
    assert hooks.count("up") >= 2 and hooks.count("down") >= 2, "in the executor and in a child"
    assert cli(*common, timeout=60).returncode == 0, "nothing to do is done at once"


def test_an_executor_ends_after_so_many_tasks(kan: Kantoku, bootstrap: str) -> None:
    spawned = kan.spawn_many([Task("warm", b"x")] * 50)
    common = ("-b", bootstrap, "-n", kan.namespace, "run-executor", "hygiene_app:kan", "--types", "warm")
    done = cli(*common, "--max-tasks", "30", timeout=60)
    assert done.returncode == 0, done.stderr
    assert len(kan.find_results([task.id for task in spawned])) == 30


def test_a_group_keeps_to_a_rate(kan: Kantoku, bootstrap: str, tmp_path: Path) -> None:
    with ExitStack() as running:
        for name in ("one", "other"):
            options = (bootstrap, kan.namespace, "--types", "limited")
            running.enter_context(ExecutorUnderTest(*options, log=tmp_path / name, app="hygiene_app:kan"))
        kan.gather(kan.spawn_many([Task("limited")] * 4), timeout_seconds=60)
        time.sleep(5)  # both are members by now
        results = kan.gather(kan.spawn_many([Task("limited")] * 400), timeout_seconds=60)
    starts = sorted(result.started_at_us or 0 for result in results)
    seconds = (starts[-1] - starts[0]) / 1e6
    assert 400 / seconds < 110, "100 a second, and a burst of a tenth of a second for each"
    assert len({result.executor_id for result in results}) >= 1


APP = """
import sys
import time
from pathlib import Path

from kantoku_kafka import Kantoku

kan = Kantoku("reloaded")


@kan.task("version")
def version(data: bytes) -> bytes:
    return b"{version}"


@kan.task("slow")
def slow(data: bytes) -> bytes:
    print("slow begins", file=sys.stderr, flush=True)
    while not Path(data.decode()).exists():
        time.sleep(0.1)
    return data
"""


@pytest.fixture
def code(kan: Kantoku, tmp_path: Path) -> Path:
    topics.create(kan.clients, topics.plan(kan.topics, ["version", "slow"]))
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "reloaded_app.py").write_text(APP.format(version=1))
    return folder


def versions(kan: Kantoku) -> set[bytes]:
    return {result.data for result in kan.gather(kan.spawn_many([Task("version")] * 20), timeout_seconds=30)}


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_hangup_brings_the_new_code(kan: Kantoku, bootstrap: str, tmp_path: Path, code: Path, processes: str) -> None:
    options = (bootstrap, kan.namespace, "--processes", processes)
    with ExecutorUnderTest(*options, log=tmp_path / "log", app="reloaded_app:kan", cwd=code) as running:
        assert versions(kan) == {b"1"}
        pid = running.pid
        (code / "reloaded_app.py").write_text(APP.format(version=22))
        for _ in range(3):  # more of them meet a process that drains, or has just begun
            running.kill(signal.SIGHUP)
            time.sleep(0.3)
        until(lambda: versions(kan) == {b"22"}, 60, "all run the new code")
        assert (running.pid, running.returncode) == (pid, None)
        running.kill(signal.SIGTERM)
        assert running.wait(40) == 0, running.log()


def test_who_is_told_to_end_while_it_reloads_ends(kan: Kantoku, bootstrap: str, tmp_path: Path, code: Path) -> None:
    with ExecutorUnderTest(bootstrap, kan.namespace, log=tmp_path / "log", app="reloaded_app:kan", cwd=code) as running:
        slow = kan.spawn(Task("slow", str(tmp_path / "enough").encode()))
        until(lambda: "slow begins" in running.log(), 40, "the task runs")
        running.kill(signal.SIGHUP)
        until(lambda: "draining" in running.log(), 20, "it drains")
        running.kill(signal.SIGTERM)
        (tmp_path / "enough").touch()
        assert running.wait(40) == 0, running.log()
        assert kan.wait(slow.id, timeout_seconds=10).ok


def test_children_that_cannot_start_end_the_command_with_a_sentence(
    kan: Kantoku, bootstrap: str, tmp_path: Path, code: Path
) -> None:
    options = (bootstrap, kan.namespace, "--processes", "2", "--pool", "process", "--max-memory-per-child", "8")
    with ExecutorUnderTest(*options, log=tmp_path / "log", app="reloaded_app:kan", cwd=code) as running:
        assert running.wait(60) == 2
        assert "is too little" in running.log()


def test_an_executor_says_where_its_threads_are(kan: Kantoku, bootstrap: str, tmp_path: Path) -> None:
    options = (bootstrap, kan.namespace, "--types", "warm")
    with ExecutorUnderTest(*options, log=tmp_path / "log", app="hygiene_app:kan") as running:
        assert kan.wait(kan.spawn(Task("warm", b"x")).id, timeout_seconds=60).ok
        running.kill(signal.SIGUSR1)
        until(lambda: "in _turn" in running.log(), 10, "the loop is among them")
        assert kan.wait(kan.spawn(Task("warm", b"x")).id, timeout_seconds=60).ok, "it goes on"


def test_code_that_does_not_import_stops_a_reload(kan: Kantoku, bootstrap: str, tmp_path: Path, code: Path) -> None:
    options = (bootstrap, kan.namespace, "--processes", "2")
    with ExecutorUnderTest(*options, log=tmp_path / "log", app="reloaded_app:kan", cwd=code) as running:
        assert versions(kan) == {b"1"}
        (code / "reloaded_app.py").write_text("nonsense")
        running.kill(signal.SIGHUP)
        until(lambda: "reload given up" in running.log(), 40, "the first one does not start")
        assert versions(kan) == {b"1"}, "the other one goes on"


def test_changed_files_are_taken_up_and_broken_ones_waited_for(
    kan: Kantoku, bootstrap: str, tmp_path: Path, code: Path
) -> None:
    options = (bootstrap, kan.namespace, "--reload")
    with ExecutorUnderTest(*options, log=tmp_path / "log", app="reloaded_app:kan", cwd=code) as running:
        assert versions(kan) == {b"1"}
        (code / "reloaded_app.py").write_text("nonsense")
        until(lambda: "does not import" in running.log(), 40, "it says what is wrong")
        (code / "reloaded_app.py").write_text(APP.format(version=333))
        assert versions(kan) == {b"333"}
