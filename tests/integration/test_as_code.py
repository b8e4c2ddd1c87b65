"""What is emitted for Kafka's tools does what was planned; what is asked of a cluster is what it has."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import rights_app
from administration import alter_topic, delete_topic
from confluent_kafka.admin import (
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from executors import ExecutorUnderTest, until
from granting import GrantingBroker, binding, granting_broker
from test_cli import cli

from kantoku_kafka import Kantoku
from kantoku_kafka.dev import EmbeddedBroker
from kantoku_kafka.kafka.drift import compare
from kantoku_kafka.kafka.rights import Role, rights_of
from kantoku_kafka.kafka.topics import plan
from kantoku_kafka.names import Topics

APP = "rights_app:kan"
TOPICS = Topics(namespace="rights")


@pytest.fixture(scope="module")
def broker() -> Iterator[GrantingBroker]:
    with granting_broker(["spawner", "worker"]) as running:
        yield running


def run_script(broker: GrantingBroker, script: bytes, directory: Path) -> None:
    """By a shell, with Kafka's own tools in PATH."""
    for name, main_class in {
        "kafka-topics.sh": "org.apache.kafka.tools.TopicCommand",
        "kafka-acls.sh": "org.apache.kafka.tools.AclCommand",
    }.items():
        java, classpath = shlex.quote(str(broker.embedded.java)), shlex.quote(broker.embedded.tools_classpath)
        tool = directory / name
        tool.write_text(f'#!/bin/sh\nexec {java} -XX:TieredStopAtLevel=1 -cp {classpath} {main_class} "$@"\n')
        tool.chmod(0o755)
    environment = {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-s"], input=script, env=environment, capture_output=True, timeout=120)
    assert done.returncode == 0, (done.stdout, done.stderr)


def test_topics_are_made_by_kafkas_own_tool(broker: GrantingBroker, tmp_path: Path) -> None:
    """Some of them: each is a start of Java. That the others are alike a unit test says."""
    connection = ["-b", broker.admin_servers]
    planned = cli("topics", "plan", APP, "-p", "2", "-r", "1", "--emit", "kafka-topics", *connection)
    assert planned.returncode == 0, planned.stderr
    some = {"rights.events", "rights.results", "rights.timers"}
    kan = Kantoku("rights", bootstrap_servers=broker.admin_servers)
    wanted = [one for one in plan(kan.topics, [], partitions=2, replication_factor=1) if one.name in some]
    assert all(difference.missing for difference in compare(kan.clients, wanted))
    script = [line for line in planned.stdout.splitlines(True) if b"--topic" not in line or _topic(line) in some]
    run_script(broker, b"".join(script), tmp_path)
    assert [(difference.missing, difference.deviations) for difference in compare(kan.clients, wanted)] == [
        (False, ())
    ] * 3


def _topic(command: bytes) -> str:
    words = shlex.split(command.decode())
    return words[words.index("--topic") + 1]


def test_a_difference_that_loses_data_is_told_and_left(broker: GrantingBroker, tmp_path: Path) -> None:
    """``create`` makes what is missing beside it, and changes nothing; an executor says it at its start."""
    connection = ["-b", broker.admin_servers]
    cli("topics", "create", APP, "--yes", "-p", "2", *connection)
    alter_topic(broker.admin_servers, "rights.timers", cleanup_policy="delete")
    alter_topic(broker.admin_servers, "rights.results", retention_ms="-1")
    delete_topic(broker.admin_servers, "rights.tasks.flaky")
    planned = cli("topics", "plan", APP, "-p", "2", "-o", "json", *connection)
    states = {row["topic"]: row["state"] for row in json.loads(planned.stdout)}
    assert planned.returncode == 7
    assert {states.pop(f"rights.{name}") for name in ("timers", "results", "tasks.flaky")} == {
        "wrong",
        "differs",
        "missing",
    }
    assert set(states.values()) == {"ok"}
    created = cli("topics", "create", APP, "--yes", "-p", "2", *connection)
    assert created.returncode == 0
    assert b"delayed and retried tasks that are older" in created.stderr
    assert b"--add-config cleanup.policy=compact" in created.stderr
    checked = cli("topics", "check", APP, "-o", "json", *connection)
    assert checked.returncode == 7
    assert [row["topic"] for row in json.loads(checked.stdout)] == ["rights.timers"]
    with ExecutorUnderTest(broker.admin_servers, "rights", log=tmp_path / "log", app=APP) as executor:
        until(lambda: "assigned" in executor.log(), 60, "its start")
        (warning,) = [line for line in executor.log().splitlines() if "WARNING" in line]
        assert "topic rights.timers: cleanup.policy is delete" in warning and "kafka-configs.sh" in warning
    alter_topic(broker.admin_servers, "rights.timers", cleanup_policy="compact")
    assert cli("topics", "check", APP, *connection).returncode == 0


@pytest.mark.parametrize("replicas", ["1", "3"])
def test_what_create_makes_is_as_check_wants_it(replicas: str) -> None:
    """Whatever the brokers' own defaults are."""
    defaults = {"default.replication.factor": replicas, "min.insync.replicas": "1"}
    with EmbeddedBroker(nodes=3, short_lived=True, settings=defaults) as cluster:
        connection = ["-b", cluster.bootstrap_servers]
        created = cli("topics", "create", APP, "--yes", *connection)
        assert created.returncode == 0, created.stderr
        checked = cli("topics", "check", APP, *connection)
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_rights_are_granted_by_kafkas_own_tool(broker: GrantingBroker, tmp_path: Path) -> None:
    cli("topics", "create", APP, "--yes", "-b", broker.admin_servers)
    worker = ["-b", broker.servers, "-F", broker.config_file("worker", tmp_path)]
    lacking = cli("acls", "check", APP, "-o", "json", *worker)
    rights = rights_of(Role.EXECUTOR, TOPICS, rights_app.kan.inputs, reads=["orders"], writes=["audit.log"])
    assert lacking.returncode == 4
    assert sum(len(row["operations"].split(",")) for row in json.loads(lacking.stdout)) == len(rights) - 2
    more = ["--reads", "orders", "--writes", "executor=audit.log", "--writes", "spawner=elsewhere"]
    principal = ["--principal", "executor=User:worker"]
    script = cli("acls", "plan", APP, *principal, *more, "--emit", "kafka-acls", "-b", broker.admin_servers)
    assert script.returncode == 0, script.stderr
    run_script(broker, script.stdout, tmp_path)
    anything = AclBindingFilter(
        ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
    )
    admin = AdminClient({"bootstrap.servers": broker.admin_servers})
    assert set(admin.describe_acls(anything).result(10)) == {binding("worker", right) for right in rights}
    enough = cli("acls", "check", APP, *more, *worker)
    assert (enough.returncode, enough.stdout) == (0, b""), enough.stderr
    spawner = cli("acls", "check", APP, "--role", "spawner", *worker)
    assert spawner.returncode == 4 and b"rights.spawners." in spawner.stdout
