"""What the doctor finds on a cluster that has one thing wrong, with the rights of an executor and no more."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import rights_app
from administration import alter_topic
from confluent_kafka import Consumer
from granting import GrantingBroker, granting_broker
from test_cli import cli

from kantoku_kafka import Kantoku
from kantoku_kafka.errors import TopicMismatch, UsageError
from kantoku_kafka.kafka.diagnosis import Finding, diagnose
from kantoku_kafka.kafka.rights import Operation, Resource, Right, Role, rights_of
from kantoku_kafka.kafka.topics import create, plan
from kantoku_kafka.names import Topics

USER = "worker"
TOPICS = Topics(namespace="rights")
INPUTS = rights_app.kan.inputs
RIGHTS = rights_of(Role.EXECUTOR, TOPICS, INPUTS)
OF_KAFKA = ["broker", "topics", "policies", "rights", "transactions", "group", "clock", "timers"]


@pytest.fixture(scope="module")
def broker() -> Iterator[GrantingBroker]:
    with granting_broker([USER]) as running:
        kan = Kantoku("rights", bootstrap_servers=running.admin_servers)
        create(kan.clients, plan(TOPICS, [], inputs=INPUTS, partitions=1))
        running.grant(USER, RIGHTS)
        yield running


def diagnosed(broker: GrantingBroker, *, timers: bool = True, shift_ms: int = 0) -> dict[str, Finding]:
    """What is found with the user's credentials, by its check; the checks are in order."""
    with closing(broker.kantoku(USER, "rights")) as kan:
        rights = rights_of(Role.EXECUTOR, TOPICS, INPUTS, timers=timers)
        found = list(
            diagnose(
                kan.clients, TOPICS, INPUTS, rights, timers=timers, now_ms=lambda: time.time_ns() // 10**6 + shift_ms
            )
        )
    asked = [finding.check for finding in found if finding.check in OF_KAFKA]
    assert asked == [check for check in OF_KAFKA if check in asked]
    return {finding.check: finding for finding in found}


def failures(broker: GrantingBroker, **options: bool) -> tuple[int, dict[str, str]]:
    """The exit code, and what has failed with what is said of it."""
    errors = {check: finding.error for check, finding in diagnosed(broker, **options).items() if finding.error}
    return next((error.exit_code for error in errors.values()), 0), {
        check: str(error) for check, error in errors.items()
    }


def test_the_rights_of_an_executor_are_enough_for_its_doctor(broker: GrantingBroker, tmp_path: Path) -> None:
    connection = ["-b", broker.servers, "-F", broker.config_file(USER, tmp_path), "-n", "rights"]
    done = cli("doctor", "rights_app:kan", "-o", "json", *connection)
    assert {finding["state"] for finding in json.loads(done.stdout)} == {"ok"}
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("right", "checks"),
    [
        (Right(Resource.TOPIC, "rights.control", Operation.READ), {"rights"}),
        (Right(Resource.GROUP, "rights.executors", Operation.READ), {"rights", "group"}),
        (Right(Resource.TRANSACTIONAL_ID, "rights.executors.", Operation.WRITE, True), {"transactions"}),
        (Right(Resource.TRANSACTIONAL_ID, "rights.timers.", Operation.WRITE, True), {"timers"}),
    ],
    ids=lambda value: value.name if isinstance(value, Right) else "",
)
def test_a_right_that_is_missing(broker: GrantingBroker, right: Right, checks: set[str]) -> None:
    with broker.without(USER, right):
        code, failed = failures(broker)
    assert (code, set(failed)) == (4, checks)
    assert all(right.name in detail for detail in failed.values())


def test_a_topic_that_may_not_be_looked_at(broker: GrantingBroker) -> None:
    of_timers = [right for right in RIGHTS if right.name == "rights.schedules"]
    broker.revoke(USER, of_timers)
    try:
        code, failed = failures(broker)
        without = failures(broker, timers=False)
    finally:
        broker.grant(USER, of_timers)
    assert (code, set(failed)) == (4, {"topics", "rights"})
    assert "rights.schedules" in failed["topics"] and "Write on topic rights.schedules" in failed["rights"]
    assert without == (0, {}), "who fires no timers needs it not"


def test_who_fires_no_timers_writes_them_all_the_same(broker: GrantingBroker) -> None:
    """Its retries and delays go there."""
    with broker.without(USER, Right(Resource.TOPIC, "rights.timers", Operation.WRITE)):
        code, failed = failures(broker, timers=False)
    assert (code, set(failed)) == (4, {"rights"})
    assert "Write on topic rights.timers" in failed["rights"]


def test_a_topic_of_others_that_is_missing(broker: GrantingBroker) -> None:
    right = Right(Resource.TOPIC, "orders", Operation.READ)
    broker.grant(USER, [right])
    with closing(broker.kantoku(USER, "rights")) as kan:
        found = {one.check: one for one in diagnose(kan.clients, TOPICS, INPUTS, RIGHTS, foreign=["orders"])}
    assert "orders" in found["topics"].detail and isinstance(found["topics"].error, TopicMismatch)
    broker.revoke(USER, [right])


def test_a_policy_that_loses_data_and_the_rest_is_looked_at_all_the_same(broker: GrantingBroker) -> None:
    alter_topic(broker.admin_servers, "rights.timers", cleanup_policy="delete")
    alter_topic(broker.admin_servers, "rights.control", message_timestamp_type="CreateTime")
    try:
        code, failed = failures(broker)
    finally:
        alter_topic(broker.admin_servers, "rights.timers", cleanup_policy="compact")
        alter_topic(broker.admin_servers, "rights.control", message_timestamp_type="LogAppendTime")
    assert (code, set(failed)) == (7, {"policies"})
    assert "rights.timers: cleanup.policy is delete" in failed["policies"]
    assert "--topic rights.control --add-config message.timestamp.type=LogAppendTime" in failed["policies"]


@contextmanager
def stranger(broker: GrantingBroker) -> Iterator[None]:
    """Somebody else's consumer is in the executors' group."""
    consumer = Consumer({"bootstrap.servers": broker.admin_servers, "group.id": TOPICS.group})
    joined, over = threading.Event(), threading.Event()
    consumer.subscribe([TOPICS.results], on_assign=lambda *_: joined.set())

    def poll() -> None:
        while not over.is_set():
            consumer.poll(0.1)

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        assert joined.wait(60)
        yield
    finally:
        over.set()
        thread.join()
        consumer.close()


def test_members_that_are_no_executors(broker: GrantingBroker) -> None:
    with stranger(broker):
        code, failed = failures(broker)
    assert (code, set(failed)) == (2, {"group"})
    assert "share by range" in failed["group"]


def test_several_may_look_at_once(broker: GrantingBroker) -> None:
    """None of them fences another."""
    with ThreadPoolExecutor(3) as threads:
        looks = [threads.submit(failures, broker) for _ in range(3)]
        assert [look.result(120) for look in looks] == [(0, {})] * 3


@pytest.mark.parametrize(("shift_ms", "words"), [(3_600_000, "s ahead of"), (-3_600_000, "s behind"), (0, "within")])
def test_a_clock_that_differs(broker: GrantingBroker, shift_ms: int, words: str) -> None:
    clock = diagnosed(broker, shift_ms=shift_ms)["clock"]
    assert words in clock.detail
    assert isinstance(clock.error, UsageError) == bool(shift_ms)


def test_a_wrong_password_ends_it(broker: GrantingBroker, tmp_path: Path) -> None:
    file = tmp_path / "wrong.properties"
    file.write_text("".join(f"{k}={v}x\n" if "password" in k else f"{k}={v}\n" for k, v in broker.config(USER).items()))
    done = cli("doctor", "-o", "json", "-b", broker.servers, "-F", str(file))
    last = json.loads(done.stdout)[-1]
    assert (done.returncode, last["check"], last["state"]) == (4, "broker", "failed")


def test_a_setting_that_refers_to_nothing() -> None:
    kan = Kantoku("x", bootstrap_servers="127.0.0.1:1", config={"sasl.password": "${file:/nowhere/at/all}"})
    last: Finding = list(diagnose(kan.clients, kan.topics, [], []))[-1]
    assert last.check == "settings" and isinstance(last.error, UsageError)
