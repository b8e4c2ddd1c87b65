"""The AsyncAPI document names every topic, every schema, and nothing that is not there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from kantoku_kafka import Kantoku
from kantoku_kafka.asyncapi import describe
from kantoku_kafka.avro import schemas
from kantoku_kafka.formats import Json
from kantoku_kafka.kafka.wanted import plan


@pytest.fixture
def kan() -> Kantoku:
    kan = Kantoku("shop", topics={"results": "answers"})
    orders = {"orders": Json(id_field="id", reply_header="to", reply_topics=["answers-of-care", "care.*"])}
    kan.task("ship", priorities={"high": 8}, from_topics=orders, reply_to="shipments")(lambda data: data)
    return kan


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for child in node.values():
            yield from references(child)


def test_each_topic_and_each_schema_stands_in_it(kan: Kantoku) -> None:
    document = json.loads(json.dumps(describe(kan)))
    ours = [wanted.name for wanted in plan(kan.topics, kan.task_types, inputs=kan.inputs)]
    assert document["channels"].keys() == {*ours, "orders", "shipments", "answers-of-care"}
    messages = document["components"]["messages"]
    envelopes = {path.stem for path in schemas.directory().glob("*.avsc")}
    assert messages.keys() == envelopes | {"DeadLetter", "Foreign", "Reply"}
    for name in envelopes:
        assert messages[name]["payload"]["schema"] == schemas.load(f"{name}.avsc")


def test_what_others_write_is_only_received(kan: Kantoku) -> None:
    actions = {
        (operation["channel"]["$ref"].rpartition("/")[2], operation["action"])
        for operation in describe(kan)["operations"].values()
    }
    assert {action for topic, action in actions if topic == "orders"} == {"receive"}
    assert {action for topic, action in actions if topic in ("shipments", "answers")} == {"send"}
    assert ("shop.tasks.ship", "receive") in actions


def test_what_it_refers_to_is_there(kan: Kantoku) -> None:
    document = describe(kan)
    for reference in references(document):
        node: Any = document
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]
        assert node


def test_an_app_without_topics_of_others_does_not_speak_of_them() -> None:
    assert "Foreign" not in json.dumps(describe(Kantoku("shop")))


def test_the_configuration_of_topics_is_typed_as_the_binding_wants(kan: Kantoku) -> None:
    results = describe(kan)["channels"]["answers"]["bindings"]["kafka"]
    assert results["topic"] == "answers"
    assert results["topicConfiguration"] == {"retention.ms": 604_800_000, "cleanup.policy": ["compact", "delete"]}
