"""The command line as a user meets it: what it prints, and the exit codes that it promises."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from access import environment_of, rights
from accounting import Account, read_all
from executors import ExecutorUnderTest, until

from kantoku_kafka import Kantoku, Status, Task
from kantoku_kafka.ids import task_id_time_ms
from kantoku_kafka.settings import GroupProtocol

HERE = Path(__file__).parent
APP = """
from kantoku_kafka import Kantoku

kan = Kantoku("{namespace}", bootstrap_servers="{bootstrap}")


@kan.task("double")
def double(data: bytes) -> bytes:
    return data * 2
"""


def cli(
    *arguments: str | bytes, cwd: Path = HERE, stdin: bytes = b"", timeout: float = 60
) -> subprocess.CompletedProcess[Any]:
    command = [sys.executable, "-m", "kantoku_kafka", *arguments]
    environment = environment_of(*arguments)
    return subprocess.run(command, cwd=cwd, input=stdin, capture_output=True, timeout=timeout, env=environment)


@pytest.fixture
def unprepared(namespace: str) -> Iterator[str]:
    """A namespace without topics."""
    name = f"{namespace}-cli"
    with rights(name, [f"{name}.tasks.double"]):
        yield name


def test_from_nothing_to_a_result(bootstrap: str, unprepared: str, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP.format(namespace=unprepared, bootstrap=bootstrap))
    checked = cli("topics", "check", "app:kan", cwd=tmp_path)
    assert checked.returncode == 7 and b"kantoku-kafka topics plan app:kan" in checked.stderr
    looked = cli("doctor", "app:kan", "-o", "json", cwd=tmp_path)
    assert looked.returncode == 7 and b"kantoku-kafka topics create app:kan" in looked.stdout
    created = cli("topics", "create", "app:kan", "--yes", cwd=tmp_path)
    assert created.returncode == 0, created.stderr
    assert cli("topics", "check", "app:kan", cwd=tmp_path).returncode == 0
    plan = json.loads(cli("topics", "plan", "app:kan", "-o", "json", cwd=tmp_path).stdout)
    assert {row["state"] for row in plan} == {"ok"}
    common = ["-b", bootstrap, "-n", unprepared]
    with ExecutorUnderTest(bootstrap, unprepared, log=tmp_path / "log", app="app:kan", cwd=tmp_path) as executor:
        ids = cli(*common, "spawn", "double", "ab", "--count", "1000").stdout.decode().split()
        assert len(set(ids)) == 1000
        found = cli(*common, "result", "-", "-t", "30", "-o", "jsonl", stdin="\n".join(ids).encode())
        assert found.returncode == 0, found.stderr
        assert {json.loads(line)["data"] for line in found.stdout.splitlines()} == {"abab"}
        (tmp_path / "payload").write_bytes(b"\x00\xff")
        waited = cli(*common, "spawn", "double", f"@{tmp_path / 'payload'}", "--wait")
        assert (waited.returncode, waited.stdout) == (0, b"\x00\xff\x00\xff")
        piped = cli(*common, "spawn", "double", "-", "--lines", "--wait", "-o", "jsonl", stdin=b"1\n2\n3\n")
        assert sorted(json.loads(line)["data"] for line in piped.stdout.splitlines()) == ["11", "22", "33"]
        executor.kill(signal.SIGTERM)
        assert executor.wait(30) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["run-executor", "no_such_module:kan"], 2, "no module"),
        (["run-executor", "task_app:nothing"], 2, "missing"),
        (["run-executor", "task_app"], 2, "MODULE:ATTRIBUTE"),
        (["run-executor", "task_app:kan", "--types", "nonsense"], 2, "not registered"),
        (["run-executor", "task_app:kan", "--pool", "asyncio", "--types", "work"], 2, "asyncio"),
        (["run-executor", "task_app:kan", "--no-such-option"], 2, "No such option"),
        (["run-executor", "task_app:kan", "-c", "0"], 2, "concurrency"),
        (["spawn", "-n", "x", "bad/type", "-b", "127.0.0.1:9"], 2, "task type"),
        (["spawn", "-n", "x", "t", "-b", "nonsense"], 2, "HOST:PORT"),
        (["spawn", "-n", "x", "t", "-b", "127.0.0.1:9"], 3, "dev broker"),
        (["run-executor", "task_app:kan", "-b", "127.0.0.1:9"], 3, "dev broker"),
        (["run-executor", "task_app:kan", "-b", "127.0.0.1:9", "--processes", "2"], 3, "dev broker"),
        (["run-executor", "exiting_app:kan"], 2, "ends the program"),
        (["run-executor", "task_app:kan", "--types", ""], 2, "no task type"),
        (["run-executor", "task_app:kan", "--slot", "a/b"], 2, "--slot"),
        (["run-executor", "task_app:kan", "--drain-seconds", "nan"], 2, "drain"),
        (["spawn", "-n", "x", "t", "-k", b"\xff"], 2, "UTF-8"),
        (["spawn", "-n", "x", "t", "-X", "stats_cb=1"], 2, "refuses"),
        (["spawn", "-n", "x", "t", "--priority", "URGENT"], 2, "no priority"),
        (["spawn", "-n", "x", "t", "--at", "tomorrow"], 2, "--at"),
        (["spawn", "-n", "x", "t", "--expires", "-5s"], 2, "--expires"),
        (["dev", "broker", "--port", "70000"], 2, "port"),
        (["dev", "broker", "--data", "/proc/x"], 3, "/proc/x"),
        (["spawn", "-n", "x", "t", "@/no/such/file"], 2, "cannot be read"),
        (["spawn", "t", "-X", "nonsense"], 2, "KEY=VALUE"),
        (["spawn", "-n", "x", "t", "-X", "no.such.setting=1"], 2, "no.such.setting"),
        (["spawn", "-n", "x", "t", "-F", "/no/such/file"], 2, "cannot be read"),
        (["spawn", "-n", "x", "t", "-o", "xml"], 2, "jsonl"),
    ],
)
def test_wrong_use_is_one_sentence(arguments: list[str | bytes], code: int, words: str) -> None:
    done = cli(*arguments)
    text = done.stderr.decode()
    assert done.returncode == code, text
    assert words in text
    assert "Traceback" not in text
    assert done.stdout == b""


def test_what_is_not_there_and_what_failed(kan: Kantoku, bootstrap: str, running: Any) -> None:
    common = ["-b", bootstrap, "-n", kan.namespace]
    assert cli(*common, "result", "0194f1c2-7c1e-7aaa-8bbb-123456789abc").returncode == 5
    assert cli(*common, "spawn", "no-such-type").returncode == 7
    assert cli(*common, "run-executor", "task_app:kan", "-n", "no-such-namespace").returncode == 7
    timed_out = cli(*common, "spawn", "side", "--wait", "--timeout", "0.5")
    assert timed_out.returncode == 6, timed_out.stderr
    with running():
        failed = cli(*common, "spawn", "outcome", "raise:no luck", "--wait")
    assert failed.returncode == 1
    assert b"no luck" in failed.stderr


def test_when_a_task_may_start(kan: Kantoku, bootstrap: str, running: Any) -> None:
    common = ["-b", bootstrap, "-n", kan.namespace]
    stale = cli(*common, "spawn", "echo", "--expires", "0.2s").stdout.decode().strip()
    later = cli(*common, "spawn", "echo", "--at", "3s").stdout.decode().strip()
    time.sleep(0.2)
    with running():
        expired, delayed = kan.gather([stale, later], timeout_seconds=30)
    assert expired.status is Status.EXPIRED
    assert (delayed.started_at_us or 0) >= (task_id_time_ms(later) or 0) * 1_000 + 2_500_000


def test_several_processes_in_one_command(kan: Kantoku, bootstrap: str, tmp_path: Path) -> None:
    options = ("--types", "work", "--processes", "3", "-c", "2")
    with ExecutorUnderTest(bootstrap, kan.namespace, *options, log=tmp_path / "log") as supervisor:
        until(lambda: supervisor.log().count("assigned") >= 3, 40, "all three have partitions")
        children = _children(supervisor.pid)
        assert len(children) == 3
        os.kill(children[0], signal.SIGKILL)
        spawned = kan.spawn_many([Task("work", b"x")] * 500)
        kan.gather(spawned, timeout_seconds=60)
        until(lambda: len(_children(supervisor.pid)) == 3, 20, "the killed one is started again")
        children = _children(supervisor.pid)
        supervisor.kill(signal.SIGTERM)
        assert supervisor.wait(40) == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in children)
    Account.of(bootstrap, kan.namespace).check({task.id for task in spawned})


def test_no_executor_outlives_its_supervisor(kan: Kantoku, bootstrap: str, tmp_path: Path) -> None:
    options = ("--types", "work", "--processes", "2")
    with ExecutorUnderTest(bootstrap, kan.namespace, *options, log=tmp_path / "log") as supervisor:
        until(lambda: supervisor.log().count("assigned") >= 2, 40, "both have partitions")
        children = _children(supervisor.pid)
        supervisor.kill()
        until(lambda: not any(_runs(pid) for pid in children), 40, "the children are gone")


def _started(bootstrap: str, kan: Kantoku) -> int:
    return sum((record.key() or b"").endswith(b"/received_task") for record in read_all(bootstrap, kan.topics.events))


def test_the_second_signal_ends_at_once(kan: Kantoku, bootstrap: str, tmp_path: Path) -> None:
    options = ("--types", "nap", "--processes", "2")
    kan.spawn_many([Task("nap", b"600")] * 4)
    with ExecutorUnderTest(bootstrap, kan.namespace, *options, log=tmp_path / "log") as supervisor:
        until(lambda: _started(bootstrap, kan) == 4, 40, "all of them run")
        children = _children(supervisor.pid)
        supervisor.kill(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            supervisor.wait(2)  # it drains
        supervisor.kill(signal.SIGINT)
        supervisor.wait(10)
        assert not any(_runs(pid) for pid in children)


@pytest.mark.parametrize("protocol", GroupProtocol)
def test_two_processes_with_one_slot(kan: Kantoku, bootstrap: str, tmp_path: Path, protocol: GroupProtocol) -> None:
    """One goes on, the other one ends with a sentence; they do not fence each other for ever."""
    options = ("--types", "work", "--slot", "same", "--group-protocol", protocol.value)
    with (
        ExecutorUnderTest(bootstrap, kan.namespace, *options, log=tmp_path / "a") as a,
        ExecutorUnderTest(bootstrap, kan.namespace, *options, log=tmp_path / "b") as b,
    ):
        spawned = []

        def one_has_ended() -> bool:
            spawned.extend(kan.spawn_many([Task("work", b"x")] * 50))
            return (a.returncode is None) != (b.returncode is None)

        until(one_has_ended, 60, "one of the two has ended")
        loser, winner = (a, b) if a.returncode is not None else (b, a)
        assert loser.returncode == 2, loser.log()
        assert "--slot" in loser.log() and "Traceback" not in loser.log()
        spawned += kan.spawn_many([Task("work", b"x")] * 100)
        kan.gather(spawned, timeout_seconds=60)
        winner.kill(signal.SIGTERM)
        assert winner.wait(40) == 0
    Account.of(bootstrap, kan.namespace).check({task.id for task in spawned})


def test_a_closed_pipe_ends_quietly(kan: Kantoku, bootstrap: str) -> None:
    spawning = f"{sys.executable} -m kantoku_kafka -b {bootstrap} -n {kan.namespace} spawn echo x --count 20000"
    command = f"set -o pipefail; {spawning} | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_every_line_becomes_a_task(kan: Kantoku, bootstrap: str, tmp_path: Path) -> None:
    lines = [b"%d" % n for n in range(4321)]
    (tmp_path / "lines").write_bytes(b"\n".join(lines))
    common = ("-b", bootstrap, "-n", kan.namespace, "spawn", "echo")
    for data, stdin in ((f"@{tmp_path / 'lines'}", b""), ("-", b"\n".join(lines))):
        done = cli(*common, data, "--lines", "-o", "json", stdin=stdin)
        assert done.returncode == 0, done.stderr
        assert len(json.loads(done.stdout)) == len(lines)
    values = [kan.codec.decode_task(m.value() or b"").data for m in read_all(bootstrap, kan.topics.of_type("echo"))]
    assert Counter(values) == dict.fromkeys(lines, 2)


def test_lines_of_a_pipe_are_spawned_as_they_come(kan: Kantoku, bootstrap: str) -> None:
    command = [sys.executable, "-m", "kantoku_kafka", "-b", bootstrap, "-n", kan.namespace, "spawn", "echo", "-"]
    with subprocess.Popen([*command, "--lines"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        for line in (b"first\n", b"second\n"):
            process.stdin.write(line)
            process.stdin.flush()
            assert len(process.stdout.readline().strip()) == 36
        process.stdin.close()
        assert process.wait(30) == 0


def _children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.unsecured("says what is looked at on an open broker")
def test_the_doctor_names_the_first_thing_that_is_wrong(kan: Kantoku, bootstrap: str) -> None:
    healthy = cli("-b", bootstrap, "-n", kan.namespace, "doctor", "-o", "json")
    assert healthy.returncode == 0, healthy.stderr
    checks = ["versions", "DNS", "TCP", "Kafka", "broker", "topics", "policies", "rights", "transactions", "group"]
    found = [(f["check"], f["state"]) for f in json.loads(healthy.stdout)]
    assert found == [(check, "ok") for check in [*checks, "clock", "timers"]]
    for arguments, code, first in (
        (["-b", "127.0.0.1:9", "-n", "x"], 3, "TCP"),
        (["-b", bootstrap, "-n", "no-such-namespace"], 7, "topics"),
    ):
        ill = cli(*arguments, "doctor", "-o", "json")
        assert ill.returncode == code
        failed = next(finding for finding in json.loads(ill.stdout) if finding["state"] == "failed")
        assert failed["check"] == first
        assert "kantoku-kafka" in failed["detail"]  # the remedy
