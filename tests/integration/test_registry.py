"""Confluent's own serializers before and behind us, on a real Kafka and a real registry, which goes away at times."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import registry_app
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.schema_registry import (
    SchemaRegistryClient,
    header_schema_id_serializer,
    prefix_schema_id_serializer,
)
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from executors import ExecutorUnderTest
from registries import Apicurio, Gateway, running_registry

from kantoku_kafka import Kantoku, Status
from kantoku_kafka.avro import schemas
from kantoku_kafka.kafka import topics
from kantoku_kafka.registry import Registry

TYPES = ("echo", "pay", "pay-async", "pay-child")
TOPIC = {"auto.register.schemas": False, "subject.name.strategy.type": "TOPIC"}
FORMS = {"wire": prefix_schema_id_serializer, "header": header_schema_id_serializer}


@pytest.fixture(scope="module")
def apicurio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apicurio]:
    with running_registry(tmp_path_factory.mktemp("apicurio") / "log") as registry:
        yield registry


@pytest.fixture
def gateway(apicurio: Apicurio) -> Iterator[Gateway]:
    made = Gateway(apicurio.url)
    yield made
    made.close()


class World:
    """A namespace of its own on the broker, and confluent-kafka's clients."""

    def __init__(self, bootstrap: str, url: str) -> None:
        self.namespace = f"r-{uuid.uuid4().hex[:8]}"
        self.bootstrap, self.url = bootstrap, url
        self.registry = SchemaRegistryClient({"url": url})
        self.kan = Kantoku(self.namespace, bootstrap_servers=bootstrap, registry=Registry(url))
        self.topics = self.kan.topics
        topics.create(self.kan.clients, topics.plan(self.topics, TYPES))

    def register(self) -> None:
        """All that ``registry_app`` reads and writes; in this order, for ids to be the same in an empty registry."""
        registry, task = Registry(self.url), schemas.text("Task.avsc")
        registry.register(f"{self.topics.results}-value", schemas.text("Result.avsc"))
        registry.register(f"{self.topics.events}-value", schemas.text("Event.avsc"))
        for task_type in TYPES:
            registry.register(f"{self.topics.of_type(task_type)}-value", task)
        registry.register("orders-value", json.dumps(registry_app.ORDER))
        registry.register("receipts-value", json.dumps(registry_app.RECEIPT))

    def produce_task(self, form: str, task_type: str, data: bytes, schema: str | None = None) -> str:
        """By confluent-kafka's AvroSerializer."""
        text, topic, task_id = schema or schemas.text("Task.avsc"), self.topics.of_type(task_type), str(uuid.uuid4())
        conf = {**TOPIC, "auto.register.schemas": schema is not None, "schema.id.serializer": FORMS[form]}
        headers: list[tuple[str, bytes]] = [("tenant", b"a")]
        value = AvroSerializer(self.registry, text, conf=conf)(
            {"id": task_id, "type": task_type, "data": data, "created_at": time.time_ns() // 1000},
            SerializationContext(topic, MessageField.VALUE, headers),
        )
        producer = Producer({"bootstrap.servers": self.bootstrap})
        producer.produce(topic, value, task_id, headers=headers)
        assert producer.flush(30) == 0
        return task_id

    def records(self, topic: str) -> list[Any]:
        """All that stands in a topic, as another program sees it."""
        settings = {"bootstrap.servers": self.bootstrap, "group.id": "x", "enable.partition.eof": True}
        consumer = Consumer({**settings, "isolation.level": "read_committed"})
        unread = set(consumer.list_topics(topic, timeout=30).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, partition, 0) for partition in unread])
        found, deadline = [], time.monotonic() + 60
        while unread:
            assert time.monotonic() < deadline
            message = consumer.poll(1.0)
            error = message and message.error()
            if error:
                assert error.code() == KafkaError._PARTITION_EOF
                unread.discard(message.partition())
            elif message:
                found.append(message)
        consumer.close()
        return found

    def deserialized(self, topic: str) -> list[dict[str, Any]]:
        """By confluent-kafka's AvroDeserializer."""
        deserialize = AvroDeserializer(self.registry, conf={"subject.name.strategy.type": "TOPIC"})
        return [
            deserialize(record.value(), SerializationContext(topic, MessageField.VALUE, record.headers() or []))
            for record in self.records(topic)
        ]

    def result(self, task_id: str, timeout_seconds: float = 60.0) -> Any:
        return self.kan.wait(task_id, timeout_seconds=timeout_seconds)


@pytest.fixture
def world(bootstrap: str, gateway: Gateway) -> Iterator[World]:
    made = World(bootstrap, gateway.url)
    made.register()
    yield made
    made.kan.close()


Executing = Callable[..., ExecutorUnderTest]


@pytest.fixture
def executing(tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Executing]:
    """Starts an executor of ``registry_app``, a process."""
    started: list[ExecutorUnderTest] = []

    def start(form: str = "wire") -> ExecutorUnderTest:
        monkeypatch.setenv("KANTOKU_TEST_REGISTRY", world.url)
        monkeypatch.setenv("KANTOKU_TEST_FORM", form)
        log = tmp_path / "executor.log"
        started.append(ExecutorUnderTest(world.bootstrap, world.namespace, log=log, app="registry_app:kan"))
        return started[-1]

    yield start
    for one in started:
        if one.returncode is None:
            one.kill(signal.SIGTERM)
            one.wait(60)


def cli(world: World, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kantoku_kafka", *arguments, "-b", world.bootstrap, "-n", world.namespace]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=Path(__file__).parent)


@pytest.mark.parametrize("form", ["wire", "header"])
def test_avro_serializer_in_avro_deserializer_out(world: World, executing: Executing, form: str) -> None:
    executing(form)
    order = AvroSerializer(world.registry, json.dumps(registry_app.ORDER), conf=TOPIC)
    data = order({"id": "o-1", "amount": 21}, SerializationContext("orders", MessageField.VALUE))
    assert data is not None
    ids = {world.produce_task(form, "echo", b"hello")}
    ids |= {world.produce_task(form, task_type, data) for task_type in ("pay", "pay-async", "pay-child")}
    ours = {task_id: world.result(task_id) for task_id in ids}
    assert {r.status for r in ours.values()} == {Status.OK}
    assert all(r.headers == (("tenant", b"a"),) for r in ours.values())

    found = world.deserialized(world.topics.results)
    assert {result["task_id"] for result in found} == ids
    deserialize = AvroDeserializer(world.registry)
    for result in found:
        data = result["data"]
        assert data == b"hello" if result["type"] == "echo" else deserialize(data) == {"order": "o-1", "total": 42}
    steps = [event["name"] for event in world.deserialized(world.topics.events)]
    assert sorted(steps) == sorted(4 * ["received_task", "executed_task", "sent_outputs"])
    values = [record.value()[:1] for record in world.records(world.topics.events)]
    assert set(values) == ({b"\0"} if form == "wire" else {b"H"})  # of a bare body: the length of the id
