"""``kantoku-kafka demo`` as a person runs it: its account is right, and nothing of it is left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from kantoku_kafka.testing.broker import BrokerHandle

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")

MARK = "KANTOKU_DEMO_TEST"
COMMAND = (sys.executable, "-m", "kantoku_kafka", "demo")


def marked(mark: str) -> list[int]:
    """Every process that inherited the mark, in whatever session: a zombie's environment is empty."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{MARK}={mark}".encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


@contextmanager
def demo(tmp_path: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, with a temporary directory of its own; in the end nothing may be left."""
    mark = uuid.uuid4().hex
    environment = {**os.environ, MARK: mark, "TMPDIR": str(tmp_path)}
    environment.pop("KANTOKU_BOOTSTRAP_SERVERS", None)
    command = [*COMMAND, *options]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process, mark
        deadline = time.monotonic() + 10
        while (left := marked(mark)) and time.monotonic() < deadline:  # the watchers need a moment
            time.sleep(0.05)
        assert not left, "processes are left"
        assert list(tmp_path.iterdir()) == []
    finally:
        for pid in {*marked(mark), process.pid}:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.communicate()


def test_every_task_is_accounted_for_and_nothing_is_left(kantoku_broker: BrokerHandle, tmp_path: Path) -> None:
    servers = kantoku_broker.bootstrap_servers
    with demo(tmp_path, "--tasks", "1200", "-o", "json", "-b", servers) as (process, _):
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    account = json.loads(output)
    assert (account["lost"], account["duplicated"], account["uneventful"]) == (0, 0, 0)
    assert account["status"].keys() == {"OK", "FAILED"}
    assert sum(account["status"].values()) == account["spawned"] > 1200 + account["children"] > 1200 + 1200 // 30 - 1
    assert account["runs"] >= account["spawned"], "every result comes of a run"
    assert account["runs"] - account["spawned"] >= account["run_again"]
    assert account["killed"].startswith("executor 0, process ")
    admin = AdminClient({"bootstrap.servers": servers})
    deadline = time.monotonic() + 10
    namespace = re.search(r"topics (demo-\w+)\.", errors)
    assert namespace is not None, errors
    assert "WARNING" not in errors
    groups = admin.list_consumer_groups().result(10)
    assert [group.group_id for group in groups.valid if group.group_id.startswith(namespace[1])] == []
    while left := [name for name in admin.list_topics(timeout=10).topics if name.startswith(namespace[1])]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("number", "line", "code"),
    [(signal.SIGINT, "starting Kafka", 130), (signal.SIGINT, "killed", 130), (signal.SIGTERM, "executors", 143)],
)
def test_a_signal_at_any_moment_leaves_nothing(
    number: signal.Signals, line: str, code: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("kantoku_broker")  # skips where no Kafka can be had
    with demo(tmp_path) as (process, mark):
        assert process.stderr is not None
        for told in process.stderr:
            if line in told:
                break
        else:
            pytest.fail(f"it ended with {process.wait()} before it told {line!r}")
        assert len(marked(mark)) >= 1
        time.sleep(0.3)
        process.send_signal(number)
        _, rest = process.communicate(timeout=30)
        assert process.returncode == code, rest


def test_what_is_wrong_is_said_in_one_sentence() -> None:
    done = subprocess.run([*COMMAND, "-o", "xml"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: -o takes table, json, jsonl, not 'xml'.\n"
    refused = [*COMMAND, "-b", "127.0.0.1:1"]
    done = subprocess.run(refused, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3, done.stderr
    assert "No broker answers at 127.0.0.1:1" in done.stderr
