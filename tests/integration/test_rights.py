"""Each role does its whole work with exactly its rights, and what is missing ends in a sentence."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import closing, redirect_stderr, redirect_stdout
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path

import pytest
import rights_app
from executors import ExecutorUnderTest, until
from granting import GrantingBroker, granting_broker
from test_cli import cli

from kantoku_kafka import Kantoku, Task, delay, priority
from kantoku_kafka.cli.main import main
from kantoku_kafka.kafka.rights import Operation, Resource, Right, Role, rights_of
from kantoku_kafka.names import Topics

NAMESPACE = "rights"
INPUTS = rights_app.kan.inputs
TOPICS = Topics(namespace=NAMESPACE)
APP = "rights_app:kan"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GrantingBroker]:
    """With a user for each role, and the topics that its admin has made."""
    with granting_broker(Role) as running:
        for role in Role:
            running.grant(role, rights_of(role, TOPICS, INPUTS))
        As(running, Role.ADMIN, tmp_path_factory.mktemp("admin"))("topics", "create", APP, "--yes")
        yield running


class As:
    """Runs commands as the user of a role, in this process: each start of Python would cost a second."""

    def __init__(self, broker: GrantingBroker, role: Role, directory: Path) -> None:
        self._connection = ["-b", broker.servers, "-F", broker.config_file(role, directory), "-n", NAMESPACE]

    def __call__(self, *arguments: str) -> str:
        """What it prints. Nobody may tell it that it may not."""
        out, err = TextIOWrapper(BytesIO()), StringIO()
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main([*arguments, *self._connection])
        told = err.getvalue()
        assert ended.value.code == 0, (arguments, told)
        assert "forbid" not in told, told
        out.flush()
        return out.buffer.getvalue().decode()  # type: ignore[attr-defined]  # a BytesIO


def executor(broker: GrantingBroker, directory: Path, *options: str) -> ExecutorUnderTest:
    file = broker.config_file(Role.EXECUTOR, directory)
    return ExecutorUnderTest(broker.servers, NAMESPACE, "-F", file, *options, log=directory / "executor.log", app=APP)


@pytest.fixture
def spawner(broker: GrantingBroker) -> Iterator[Kantoku]:
    with closing(broker.kantoku(Role.SPAWNER, NAMESPACE)) as kan:
        yield kan


def test_every_role_at_its_work(broker: GrantingBroker, spawner: Kantoku, tmp_path: Path) -> None:
    """Tasks of every kind, looked at by the observer and steered by the admin; nobody is told that he may not."""
    observer, admin = As(broker, Role.OBSERVER, tmp_path), As(broker, Role.ADMIN, tmp_path)
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
        admin(*schedule)
        states = ["tasks", "list", "--label", "schedule=often", "--status", "OK", "-o", "json"]
        until(lambda: len(json.loads(observer(*states) or "[]")) > 1, 60, "occurrences")
        admin("schedules", "remove", "often")

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
            observer(*command)

        admin("tasks", "restart", high.id)
        admin("dlq", "redrive", "--all")
        long = spawner.spawn(Task("echo").with_(delay(seconds=3600)))
        admin("tasks", "cancel", long.id, "--timeout", "30")
        admin("executors", "stop", "--all")
        assert running.wait(60) == 0
        assert "forbid" not in running.log(), running.log()
        warnings = [line for line in running.log().splitlines() if "WARNING" in line and "FAILED" not in line]
        assert not warnings
    admin("events", "prune", "--older-than", "0s")
    admin("dlq", "purge", "--all", "--yes")


def test_an_executor_without_timers_beside_a_scheduler(
    broker: GrantingBroker, spawner: Kantoku, tmp_path: Path
) -> None:
    """With just the rights of such a one."""
    of_timers = set(rights_of(Role.EXECUTOR, TOPICS, INPUTS)) - set(
        rights_of(Role.EXECUTOR, TOPICS, INPUTS, timers=False)
    )
    broker.revoke(Role.EXECUTOR, of_timers)
    settings, log = broker.config_file(Role.SCHEDULER, tmp_path), tmp_path / "scheduler.log"
    firing = ExecutorUnderTest(broker.servers, NAMESPACE, "-F", settings, log=log, app=APP, command="run-scheduler")
    try:
        with firing, executor(broker, tmp_path, "--no-timers") as running:
            tasks = [Task("flaky", b"2"), Task("echo", b"3").with_(delay(seconds=0.5)), Task("flaky", b"9")]
            results = spawner.gather(spawner.spawn_many(tasks), timeout_seconds=90)
            assert [result.ok for result in results] == [True, True, False]
            running.kill(signal.SIGTERM)
            assert running.wait(60) == 0
    finally:
        broker.grant(Role.EXECUTOR, of_timers)
    assert "forbid" not in running.log() + firing.log(), running.log() + firing.log()


@pytest.mark.parametrize("command", ["lag", "executors", "verify"])
def test_who_may_not_look_at_the_group_is_told_so(broker: GrantingBroker, tmp_path: Path, command: str) -> None:
    """And not that no broker answers."""
    settings = broker.config_file(Role.SPAWNER, tmp_path)
    done = cli(command, "-b", broker.servers, "-F", settings, "-n", NAMESPACE)
    assert done.returncode == 4, done.stderr
    assert b"rights.executors" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "right",
    [
        Right(Resource.GROUP, "rights.executors", Operation.READ),
        Right(Resource.TOPIC, "rights.dlq", Operation.WRITE),
        Right(Resource.TOPIC, "rights.schedules", Operation.READ),
        Right(Resource.TRANSACTIONAL_ID, "rights.timers.", Operation.WRITE, prefixed=True),
    ],
    ids=lambda right: right.name,
)
def test_without_one_of_its_rights_an_executor_ends(broker: GrantingBroker, tmp_path: Path, right: Right) -> None:
    """Some of them, for each is a start: none is superfluous. (What may be done without ends in a warning.)"""
    with broker.without(Role.EXECUTOR, right), executor(broker, tmp_path) as running:
        assert running.wait(60) == 4
    last = running.log().splitlines()[-1]
    assert "ACL" in last and (right.name in last or "transaction" in last), last
