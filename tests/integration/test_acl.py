"""A broker that forbids something: exit code 4 and a sentence, at once and not by a time-out without words."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from accounting import read_all
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from executors import ExecutorUnderTest, until
from test_cli import cli

from kantoku_kafka import Kantoku, Task
from kantoku_kafka.dev import EmbeddedBroker
from kantoku_kafka.errors import AccessDenied
from kantoku_kafka.kafka import topics

NAMESPACE = "secured"


@pytest.fixture(scope="module")
def secured() -> Iterator[str]:
    """A broker with an authorizer that allows what nobody forbade."""
    settings = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
    }
    with EmbeddedBroker(short_lived=True, settings=settings) as broker:
        kan = Kantoku(NAMESPACE, bootstrap_servers=broker.bootstrap_servers)
        topics.create(kan.clients, topics.plan(kan.topics, ["work", "echo"]))
        yield broker.bootstrap_servers


DENIED = {
    "inputs": (ResourceType.TOPIC, f"{NAMESPACE}.tasks.work", AclOperation.READ),
    "results": (ResourceType.TOPIC, f"{NAMESPACE}.results", AclOperation.WRITE),
    "group": (ResourceType.GROUP, f"{NAMESPACE}.executors", AclOperation.READ),
    "timers": (ResourceType.GROUP, f"{NAMESPACE}.timers", AclOperation.READ),
    "timers' transactions": (ResourceType.TRANSACTIONAL_ID, f"{NAMESPACE}.timers.s", AclOperation.WRITE),
    "transactions": (ResourceType.TRANSACTIONAL_ID, f"{NAMESPACE}.executors.s", AclOperation.WRITE),
}


@contextmanager
def denied(servers: str, kind: ResourceType, name: str, operation: AclOperation) -> Iterator[None]:
    """Within the block nobody may do that."""
    admin = AdminClient({"bootstrap.servers": servers})
    binding = AclBinding(
        kind, name, ResourcePatternType.LITERAL, "User:ANONYMOUS", "*", operation, AclPermissionType.DENY
    )
    for future in admin.create_acls([binding]).values():
        future.result(10)
    time.sleep(0.5)  # the authorizer learns of it from the controller's log
    try:
        yield
    finally:
        anything = AclBindingFilter(
            ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
        )
        for gone in admin.delete_acls([anything]).values():
            gone.result(10)


@pytest.mark.parametrize("what", DENIED)
def test_an_executor_that_may_not_says_so_and_ends(secured: str, what: str) -> None:
    kan = Kantoku(NAMESPACE, bootstrap_servers=secured)
    kan.spawn(Task("work", b"x"))
    kan.close()
    with denied(secured, *DENIED[what]):
        options = ["-b", secured, "-n", NAMESPACE, "--slot", "s"]
        done = cli("run-executor", "task_app:kan", "--types", "work", *options, timeout=60)
    text = done.stderr.decode()
    assert done.returncode == 4, text
    assert "Traceback" not in text
    assert "ACL" in text.splitlines()[-1]


def test_a_right_that_is_taken_away_meanwhile(secured: str, tmp_path: Path) -> None:
    """The executor ends with words; the next one, when the right is back, does what is left, and nothing twice."""
    kan = Kantoku(NAMESPACE, bootstrap_servers=secured)
    arguments = (secured, NAMESPACE, "--types", "echo")
    spawned = kan.spawn_many(Task("echo", b"%d" % n) for n in range(200))
    with ExecutorUnderTest(*arguments, log=tmp_path / "log") as executor:
        spawned[0].result(timeout_seconds=30)
        with denied(secured, ResourceType.TOPIC, f"{NAMESPACE}.results", AclOperation.WRITE):
            spawned += kan.spawn_many(Task("echo", b"%d" % n) for n in range(200, 400))
            assert executor.wait(60) == 4
            assert "ACL" in executor.log().splitlines()[-1]
    with ExecutorUnderTest(*arguments, log=tmp_path / "log"):
        results = [one.result(timeout_seconds=60) for one in spawned]
    assert [result.data for result in results] == [b"%d" % n for n in range(400)]
    checked = cli("verify", "-b", secured, "-n", NAMESPACE, timeout=60)
    assert checked.returncode == 0, checked.stdout
    kan.close()


def test_an_executor_that_may_not_send_heartbeats_works_all_the_same(secured: str, tmp_path: Path) -> None:
    kan = Kantoku(NAMESPACE, bootstrap_servers=secured)
    with (
        denied(secured, ResourceType.TOPIC, f"{NAMESPACE}.control", AclOperation.WRITE),
        ExecutorUnderTest(secured, NAMESPACE, "--types", "echo", log=tmp_path / "log") as executor,
    ):
        assert kan.spawn(Task("echo", b"x")).result(timeout_seconds=30).data == b"x"
        until(lambda: "no heartbeats: The broker forbids" in executor.log(), 10, "the warning")
        executor.kill(signal.SIGTERM)
        assert executor.wait(30) == 0
    kan.close()


@contextmanager
def readable_only(servers: str, topic: str) -> Iterator[None]:
    """Within the block the topic may be read, and not written to."""
    admin = AdminClient({"bootstrap.servers": servers})
    binding = AclBinding(
        ResourceType.TOPIC,
        topic,
        ResourcePatternType.LITERAL,
        "User:ANONYMOUS",
        "*",
        AclOperation.READ,
        AclPermissionType.ALLOW,
    )
    for future in admin.create_acls([binding]).values():
        future.result(10)
    time.sleep(0.5)
    try:
        yield
    finally:
        named = AclBindingFilter(
            ResourceType.TOPIC,
            topic,
            ResourcePatternType.LITERAL,
            None,
            None,
            AclOperation.ANY,
            AclPermissionType.ANY,
        )
        for gone in admin.delete_acls([named]).values():
            gone.result(10)


@pytest.mark.parametrize("guarantee", ["exactly-once", "at-least-once"])
def test_side_outputs_into_a_forbidden_topic_fail_their_own_tasks_only(
    secured: str, tmp_path: Path, guarantee: str
) -> None:
    """Also among so many that the broker answers before all are staged."""
    kan = Kantoku(NAMESPACE, bootstrap_servers=secured)
    topics.create(kan.clients, topics.plan(kan.topics, ["produces"]))
    options = (secured, NAMESPACE, "--types", "produces", "--guarantee", guarantee)
    with ExecutorUnderTest(*options, log=tmp_path / "log", app="producing_app:kan") as executor:
        kan.spawn(Task("produces", f"{NAMESPACE}.tasks.work".encode())).result(timeout_seconds=30)
        with readable_only(secured, f"{NAMESPACE}.tasks.echo"):
            wanted = [
                Task("produces", f"{NAMESPACE}.tasks.{'echo' if n % 50 == 7 else 'work'}".encode()) for n in range(1500)
            ]
            results = kan.gather(kan.spawn_many(wanted), timeout_seconds=60)
        assert executor.returncode is None, executor.log()
    assert [result.ok for result in results] == [b"echo" not in task.data for task in wanted]
    assert {result.error.type for result in results if result.error} == {"undeliverable"}
    kan.close()


def test_a_retry_whose_input_may_not_be_written_ends_its_own_task_only(secured: str, tmp_path: Path) -> None:
    kan = Kantoku(NAMESPACE, bootstrap_servers=secured)
    topics.create(kan.clients, topics.plan(kan.topics, ["flaky", "timed"]))
    flaky = kan.spawn(Task("flaky", b"2"))
    with readable_only(secured, f"{NAMESPACE}.tasks.flaky"):
        options = (secured, NAMESPACE, "--types", "flaky,timed")
        with ExecutorUnderTest(*options, log=tmp_path / "log", app="retry_app:kan") as executor:
            result = kan.wait(flaky.id, timeout_seconds=60)
            assert result.error is not None and result.error.type == "undeliverable"
            assert kan.spawn(Task("timed", b"x")).result(timeout_seconds=30).ok
            assert executor.returncode is None
    kan.close()


def test_a_spawn_that_is_forbidden(secured: str) -> None:
    topic = f"{NAMESPACE}.tasks.echo"
    kan = Kantoku(NAMESPACE, bootstrap_servers=secured)
    with denied(secured, ResourceType.TOPIC, topic, AclOperation.WRITE), pytest.raises(AccessDenied, match=topic):
        kan.spawn(Task("echo"))
    kan.close()


def test_a_transaction_whose_events_are_forbidden_is_none(secured: str) -> None:
    """Within a transaction the event belongs to its task: neither is there, and that is what is said."""
    kan = Kantoku(NAMESPACE, bootstrap_servers=secured)
    kan.spawn(Task("work", b"the right is there at first"))
    with denied(secured, ResourceType.TOPIC, f"{NAMESPACE}.events", AclOperation.WRITE):
        with pytest.raises(AccessDenied), kan.transaction():
            gone = kan.spawn(Task("work", b"x"))
        kept = kan.spawn(Task("work", b"alone it is accepted"))
    there = {record.key() for record in read_all(secured, kan.topics.of_type("work"))}
    assert kept.id.encode() in there and gone.id.encode() not in there
    kan.close()
