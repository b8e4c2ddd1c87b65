"""Confluent's own serializers before and behind us, on a real Kafka and a real registry, which goes away at times."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import pytest
import registry_app
from access import as_user, environment_of, rights, super_user
from accounting import read_all
from confluent_kafka import Message as KafkaMessage
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from confluent_kafka.schema_registry import (
    SchemaRegistryClient,
    header_schema_id_serializer,
    prefix_schema_id_serializer,
)
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from executors import ExecutorUnderTest
from registries import Apicurio, Gateway

from kantoku_kafka import Kantoku, Status, Task
from kantoku_kafka.avro import schemas
from kantoku_kafka.job import Message
from kantoku_kafka.kafka import topics
from kantoku_kafka.registry import Registry
from kantoku_kafka.registry.envelopes import RegistryCodec
from kantoku_kafka.replay import EventFilter

ROOT = Path(__file__).parents[2]
TYPES = ("echo", "pay", "pay-async", "pay-child")
TOPIC = {"auto.register.schemas": False, "subject.name.strategy.type": "TOPIC"}
FORMS = {"wire": prefix_schema_id_serializer, "header": header_schema_id_serializer}


@pytest.fixture
def gateway(apicurio: Apicurio) -> Iterator[Gateway]:
    made = Gateway(apicurio.url)
    yield made
    made.close()


class World:
    """A namespace of its own on the broker, and confluent-kafka's clients; for the block."""

    gateway: Gateway

    def __init__(self, bootstrap: str, url: str) -> None:
        self.namespace = f"r-{uuid.uuid4().hex[:8]}"
        self.bootstrap, self.url = bootstrap, url
        self.registry = SchemaRegistryClient({"url": url})
        self.kan = Kantoku(self.namespace, **as_user(bootstrap), registry=Registry(url))
        self.topics = self.kan.topics
        self.orders = f"{self.namespace}-orders"
        self._rights = rights(self.namespace, map(self.topics.of_type, TYPES), [self.orders])

    def __enter__(self) -> Self:
        self._rights.__enter__()
        topics.create(self.kan.clients, topics.plan(self.topics, TYPES))
        admin = AdminClient(super_user(self.bootstrap))
        admin.create_topics([NewTopic(self.orders, 1)])[self.orders].result(30)
        return self

    def __exit__(self, *error: Any) -> None:
        self.kan.close()
        self.registry.close()
        self._rights.__exit__(*error)

    def register(self) -> None:
        """All that ``registry_app`` reads and writes; in this order, for ids to be the same in an empty registry."""
        assert isinstance(self.kan.codec, RegistryCodec)
        registry, task = self.kan.codec.registry, schemas.text("Task.avsc")
        registry.register(f"{self.topics.results}-value", schemas.text("Result.avsc"))
        registry.register(f"{self.topics.events}-value", schemas.text("Event.avsc"))
        for task_type in TYPES:
            registry.register(f"{self.topics.of_type(task_type)}-value", task)
        registry.register("orders-value", json.dumps(registry_app.ORDER))
        registry.register("receipts-value", json.dumps(registry_app.RECEIPT))

    def produce_task(self, form: str, task_type: str, data: bytes) -> str:
        """A task by confluent-kafka's AvroSerializer; answers its id."""
        record = self.task_record(form, task_type, data)
        self.produce(record)
        return record.key.decode()

    def task_record(self, form: str, task_type: str, data: bytes, schema: str | None = None) -> Message:
        """With a schema, that one is registered for it."""
        text, topic, task_id = schema or schemas.text("Task.avsc"), self.topics.of_type(task_type), str(uuid.uuid4())
        conf = {**TOPIC, "auto.register.schemas": schema is not None, "schema.id.serializer": FORMS[form]}
        headers: list[tuple[str, bytes]] = [("tenant", b"a")]
        value = AvroSerializer(self.registry, text, conf=conf)(
            {"id": task_id, "type": task_type, "data": data, "created_at": time.time_ns() // 1000},
            SerializationContext(topic, MessageField.VALUE, headers),
        )
        return Message(topic, task_id.encode(), value, tuple(headers))

    def produce(self, record: Message) -> None:
        producer = Producer(super_user(self.bootstrap))
        producer.produce(record.topic, record.value, record.key, headers=list(record.headers))
        assert producer.flush(30) == 0

    def await_event(self, task_id: str, name: str) -> None:
        deadline = time.monotonic() + 60
        while not any(event.name == name for event in self.kan.events.replay(wanted=EventFilter(task_id=task_id))):
            assert time.monotonic() < deadline, name

    def records(self, topic: str) -> list[KafkaMessage]:
        """All that stands in a topic, as another program sees it."""
        return read_all(self.bootstrap, topic)

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
    with World(bootstrap, gateway.url) as made:
        made.gateway = gateway
        made.register()
        yield made


Executing = Callable[..., ExecutorUnderTest]


@pytest.fixture
def executing_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[World], Executing]]:
    """Starts executors of ``registry_app``, processes."""
    started: list[ExecutorUnderTest] = []

    def at(world: World) -> Executing:
        def start(form: str = "wire") -> ExecutorUnderTest:
            monkeypatch.setenv("KANTOKU_TEST_REGISTRY", world.url)
            monkeypatch.setenv("KANTOKU_TEST_FORM", form)
            monkeypatch.setenv("KANTOKU_TEST_ORDERS", world.orders)
            log = tmp_path / "executor.log"
            started.append(ExecutorUnderTest(world.bootstrap, world.namespace, log=log, app="registry_app:kan"))
            return started[-1]

        return start

    yield at
    for one in started:
        if one.returncode is None:
            one.kill(signal.SIGTERM)
            one.wait(60)


@pytest.fixture
def executing(world: World, executing_at: Callable[[World], Executing]) -> Executing:
    return executing_at(world)


def cli(world: World, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command that knows the registry, and no app."""
    command = [sys.executable, "-m", "kantoku_kafka", *arguments, "-b", world.bootstrap, "-n", world.namespace]
    command += ["-X", f"schema.registry.url={world.url}"]
    environment, folder = environment_of(*command), Path(__file__).parent
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder, env=environment)


@pytest.mark.parametrize("form", ["wire", "header"])
def test_avro_serializer_in_avro_deserializer_out(world: World, executing: Executing, form: str) -> None:
    executing(form)
    order = AvroSerializer(world.registry, json.dumps(registry_app.ORDER), conf=TOPIC)
    data = order({"id": "o-1", "amount": 21}, SerializationContext("orders", MessageField.VALUE))
    assert data is not None
    conf, headers = {**TOPIC, "schema.id.serializer": FORMS[form]}, []
    foreign = AvroSerializer(world.registry, json.dumps(registry_app.ORDER), conf=conf)
    value = foreign({"id": "o-1", "amount": 21}, SerializationContext("orders", MessageField.VALUE, headers))
    world.produce(Message(world.orders, b"o-1", value, tuple(headers)))
    ids = {world.produce_task(form, "echo", b"hello"), str(uuid.uuid5(uuid.NAMESPACE_URL, f"{world.orders}/0/0"))}
    ids |= {world.produce_task(form, task_type, data) for task_type in ("pay", "pay-async", "pay-child")}
    ours = {task_id: world.result(task_id) for task_id in ids}
    assert {r.status for r in ours.values()} == {Status.OK}
    assert {r.headers for r in ours.values()} == {(), (("tenant", b"a"),)}

    found = world.deserialized(world.topics.results)
    assert {result["task_id"] for result in found} == ids
    deserialize = AvroDeserializer(world.registry)
    for result in found:
        data = result["data"]
        assert data == b"hello" if result["type"] == "echo" else deserialize(data) == {"order": "o-1", "total": 42}
    steps = [event["name"] for event in world.deserialized(world.topics.events)]
    assert sorted(steps) == sorted(5 * ["received_task", "executed_task", "sent_outputs"])
    values = [record.value()[:1] for record in world.records(world.topics.events)]
    assert set(values) == ({b"\0"} if form == "wire" else {b"H"})  # of a bare body: the length of the id

    if form == "header":
        return
    one = min(ids)
    assert [row["status"] for row in json.loads(cli(world, "result", one, "-o", "json").stdout)] == ["OK"]
    replayed = cli(world, "events", "replay", "-o", "jsonl").stdout.splitlines()
    assert len([line for line in replayed if json.loads(line)["task_id"] == one]) == 3
    verified = cli(world, "verify", "--at-rest")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_a_registry_that_is_down_at_the_start_ends_an_executor_with_a_sentence(
    world: World, executing: Executing, tmp_path: Path
) -> None:
    world.url = "http://127.0.0.1:1"
    assert executing().wait(30) == 3
    said = (tmp_path / "executor.log").read_text().splitlines()[-1]
    assert said.startswith(
        "error: The schema registry at http://127.0.0.1:1 gave no answer about the schema of subject"
    )


def test_a_registry_that_settings_alone_name_is_asked_when_a_record_names_a_schema(
    world: World, tmp_path: Path
) -> None:
    """A file for all of a platform's clients may name one that the app never needs."""
    log, options = tmp_path / "executor.log", ("--types", "echo", "-X", "schema.registry.url=http://127.0.0.1:1")
    executor = ExecutorUnderTest(world.bootstrap, world.namespace, *options, log=log)
    try:
        assert world.kan.spawn(Task("echo", b"x")).result(timeout_seconds=60).data == b"x"
        world.produce_task("wire", "echo", b"y")
        assert executor.wait(30) == 3
    finally:
        executor.kill()
    assert "error: The schema registry at http://127.0.0.1:1 gave no answer about schema" in log.read_text()


def test_a_schema_that_is_not_registered_is_said_at_the_start(
    bootstrap: str, gateway: Gateway, executing_at: Callable[[World], Executing], tmp_path: Path
) -> None:
    with World(bootstrap, gateway.url) as world:
        assert executing_at(world)().wait(30) == 7
    said = (tmp_path / "executor.log").read_text().splitlines()[-1]
    assert said == (
        f"error: Topic {world.topics.results} is to be written in form 'wire', and its schema Result is not registered "
        f"under subject {world.topics.results}-value: kantoku-kafka schemas register."
    )


@pytest.mark.unsecured("its script is of an open broker")
def test_the_page_runs_and_what_is_incompatible_is_refused(bootstrap: str, gateway: Gateway, tmp_path: Path) -> None:
    name, page = f"parcels-{uuid.uuid4().hex[:6]}", (ROOT / "docs/howto/schema-registry.md").read_text("utf-8")
    page = page.replace("http://localhost:8081", gateway.url)
    page = page.replace('"parcels', f'"{name}').replace('"labels', f'"l-{name}')
    app, weigh = (
        re.findall(rf"```python\n(# {file}\.py\n.*?)```", page, re.DOTALL)[0] for file in ("parcels", "weigh")
    )

    def write_app(kind: str) -> None:
        (tmp_path / "parcels.py").write_text(app.replace('"int"', f'"{kind}"'), "utf-8")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "KANTOKU_BOOTSTRAP_SERVERS": bootstrap}
        command = [sys.executable, *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path, env=environment)

    def command(line: str) -> subprocess.CompletedProcess[str]:
        return run("-m", "kantoku_kafka", *line.removeprefix("kantoku-kafka ").split())

    def states(line: str) -> list[str]:
        return [row["state"] for row in json.loads(command(f"{line} -o json").stdout)]

    write_app("int")
    export, check, dry_run, register, diff = re.findall(r"^kantoku-kafka schemas .*$", page, re.MULTILINE)
    assert command(export).returncode == 0 and (tmp_path / "avro/Task.avsc").is_file()
    assert states(dry_run) == states(check) == 5 * ["new"]
    assert states(register) == states(check) == 5 * ["registered"]
    assert command(check).stderr == "", "what each request to the registry was is for debugging"
    assert command(diff).stdout == ""

    create, execute = re.findall(r"^kantoku-kafka (?:topics|run-executor) .*$", page, re.MULTILINE)
    assert command(create).returncode == 0
    with ThreadPoolExecutor(1) as pool:
        executor = pool.submit(command, f"{execute} --max-tasks 1")
        weighed = run("-c", weigh)
        assert weighed.stdout == "{'text': '7 kg'}\n", weighed.stderr
        assert executor.result(120).returncode == 0

    with SchemaRegistryClient({"url": gateway.registry_url}) as client:
        client.set_compatibility(f"{name}-value", "BACKWARD")
    write_app("string")
    refused = command(check)
    assert refused.returncode == command(register).returncode == 7
    assert refused.stderr.splitlines()[-1].startswith(f"error: Not compatible with what is registered: {name}-value.")
    assert [line.split() for line in command(diff).stdout.splitlines() if line[0] in "+-"][2:] == [
        ["-", '"type":', '"int"'],
        ["+", '"type":', '"string"'],
    ]
    write_app("long")
    assert "compatible" in states(check)
    gateway.instead = 503, b""
    assert command(check).returncode == 3


def test_an_id_that_nobody_knows_is_waited_for_and_then_a_dead_letter(world: World, executing: Executing) -> None:
    executing()
    bad = [b"\0\0\x0f\x42\x3f" + b"x" * n for n in range(3)] + [b"\1" + bytes(16) + b"x", b"\0", b"{}"]
    bad.append(b"\0\xff\xff\xff\xffx")  # Apicurio answers 404 without a code
    topic = world.topics.of_type("echo")
    producer = Producer(super_user(world.bootstrap))
    for value in bad:
        producer.produce(topic, value, b"k")
    assert producer.flush(30) == 0
    good = world.produce_task("wire", "echo", b"good")
    assert world.result(good).data == b"good"
    letters = world.records(world.topics.dlq)
    assert sorted(letter.value() for letter in letters) == sorted(bad)
    said = b" ".join(dict(letter.headers())["kantoku-error-message"] for letter in letters)
    assert b"does not have schema 999999" in said and b"must begin with C3 01" in said
    asked = [path for path in world.gateway.asked if path.startswith("/schemas/ids/999999")]
    assert 2 < len(asked) < 25  # for some seconds; the next ones once each


def test_a_registry_that_goes_away_loses_nothing(
    bootstrap: str, apicurio: Apicurio, executing_at: Callable[[World], Executing], tmp_path: Path
) -> None:
    apicurio.restart()  # empty: ids are the same when all is registered again
    with World(bootstrap, apicurio.url) as world:
        world.register()
        executing = executing_at(world)
        executor = executing()
        before = world.produce_task("wire", "echo", b"before")
        assert world.result(before).data == b"before"
        world.await_event(before, "sent_outputs")  # what is known here is not asked for again
        serialize = AvroSerializer(world.registry, json.dumps(registry_app.ORDER), conf=TOPIC)
        order = serialize({"id": "o-1", "amount": 1}, SerializationContext("orders", MessageField.VALUE))
        newer = json.dumps({**schemas.load("Task.avsc"), "doc": "The same, and so an id of its own."})
        late = world.task_record("wire", "echo", b"late", schema=newer)
        meanwhile, pay = world.task_record("wire", "echo", b"meanwhile"), world.task_record("wire", "pay", order or b"")
        apicurio.kill()

        world.produce(meanwhile)
        world.produce(pay)
        assert world.result(meanwhile.key.decode()).data == b"meanwhile"
        world.await_event(pay.key.decode(), "retry_scheduled")
        world.produce(late)
        assert executor.wait(60) == 3
        said = (tmp_path / "executor.log").read_text().splitlines()[-1]
        assert f"The schema registry at {apicurio.url} gave no answer about schema " in said

        apicurio.start()
        world.kan.codec.registry.close()  # else it remembers that all is registered
        world.register()
        world.kan.codec.registry.register(f"{world.topics.of_type('echo')}-value", newer)
        executing()
        assert world.result(late.key.decode()).data == b"late"
        result = world.result(pay.key.decode())
        assert result.status is Status.OK and result.attempt > 1
        assert AvroDeserializer(world.registry)(result.data) == {"order": "o-1", "total": 2}
        assert sorted(record.key() for record in world.records(world.topics.results)).count(late.key) == 1
        assert not world.records(world.topics.dlq)
