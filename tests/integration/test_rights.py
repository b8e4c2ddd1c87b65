"""Each role does its whole work with exactly its rights, and what is missing ends in a sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import rights_app
from executors import ExecutorUnderTest, until
from granting import GrantingBroker, granting_broker
from test_cli import cli

from kantoku_kafka import Kantoku, Task, delay, priority
from kantoku_kafka.kafka.rights import Role, rights_of
from kantoku_kafka.names import Topics

NAMESPACE = "rights"
INPUTS = rights_app.kan.inputs
TOPICS = Topics(namespace=NAMESPACE)
SIDE = "audit.log"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GrantingBroker]:
    """With a user for each role, and the topics that its admin has made."""
    with granting_broker(Role) as running:
        for role in Role:
            writes = [SIDE] if role is Role.EXECUTOR else []
            running.grant(role, rights_of(role, TOPICS, INPUTS, writes=writes))
        cli_as(running, Role.ADMIN, tmp_path_factory.mktemp("admin"), "topics", "create", APP, "--yes")
        yield running


APP = "rights_app:kan"


def cli_as(broker: GrantingBroker, role: Role, directory: Path, *arguments: str, code: int = 0) -> str:
    """What a command prints, run by the user of a role."""
    connection = ["-b", broker.servers, "-F", broker.config_file(role, directory), "-n", NAMESPACE]
    done = cli(*arguments, *connection, timeout=60)
    assert done.returncode == code, (arguments, done.stderr.decode())
    assert b"Traceback" not in done.stderr
    assert code == 4 or b"forbid" not in done.stderr, done.stderr.decode()
    return str(done.stdout.decode() if code == 0 else done.stderr.decode())


def executor(broker: GrantingBroker, directory: Path, *options: str) -> ExecutorUnderTest:
    file = broker.config_file(Role.EXECUTOR, directory)
    return ExecutorUnderTest(broker.servers, NAMESPACE, "-F", file, *options, log=directory / "executor.log", app=APP)


@pytest.fixture
def spawner(broker: GrantingBroker) -> Iterator[Kantoku]:
    with closing(broker.kantoku(Role.SPAWNER, NAMESPACE)) as kan:
        yield kan


def test_every_role_at_its_work(broker: GrantingBroker, spawner: Kantoku, tmp_path: Path) -> None:
    """Tasks of every kind, looked at by the observer and steered by the admin; nobody is told that he may not."""
    with executor(broker, tmp_path) as running:
        with spawner.transaction():
            high = spawner.spawn(Task("echo", b"1").with_(priority("high")))
        parent = spawner.spawn(Task("parent", b"2"))
        flaky = spawner.spawn(Task("flaky", b"2"))
        later = spawner.spawn(Task("echo", b"3").with_(delay(seconds=0.5)))
        dead = spawner.spawn(Task("flaky", b"9"))
        results = spawner.gather([high, parent, flaky, later, dead], timeout_seconds=60)
        assert [result.data for result in results[:4]] == [b"1", results[1].data, b"2", b"3"]
        assert spawner.wait(results[1].data.decode(), timeout_seconds=60).data == b"2"
        assert not results[4].ok

        schedule = ["schedules", "add", "often", "echo", "x", "--every", "1s", "--overlap", "cancel"]
        cli_as(broker, Role.ADMIN, tmp_path, *schedule)
        states = ["tasks", "list", "--label", "schedule=often", "--status", "OK", "-o", "json"]
        until(lambda: len(json.loads(cli_as(broker, Role.OBSERVER, tmp_path, *states) or "[]")) > 1, 60, "occurrences")
        cli_as(broker, Role.ADMIN, tmp_path, "schedules", "remove", "often")

        for command in (
            ["topics", "check", APP],
            ["executors"],
            ["lag"],
            ["events", "replay"],
            ["tasks", "show", dead.id],
            ["result", high.id],
            ["dlq", "list"],
            ["schedules", "list"],
            ["verify"],
        ):
            cli_as(broker, Role.OBSERVER, tmp_path, *command)

        cli_as(broker, Role.ADMIN, tmp_path, "tasks", "restart", high.id)
        cli_as(broker, Role.ADMIN, tmp_path, "dlq", "redrive", "--all")
        long = spawner.spawn(Task("echo").with_(delay(seconds=3600)))
        cli_as(broker, Role.ADMIN, tmp_path, "tasks", "cancel", long.id, "--wait", "30")
        cli_as(broker, Role.ADMIN, tmp_path, "executors", "stop", "--all")
        assert running.wait(60) == 0
        assert "forbid" not in running.log(), running.log()
        warnings = [line for line in running.log().splitlines() if "WARNING" in line and "FAILED" not in line]
        assert not warnings
    cli_as(broker, Role.ADMIN, tmp_path, "events", "prune", "--older-than", "0s")
    cli_as(broker, Role.ADMIN, tmp_path, "dlq", "purge", "--all", "--yes")
