"""Data by schemas of all kinds: written and read by Confluent's serializers and by us, over a real registry."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any

import pytest
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from registries import Apicurio

from kantoku_kafka.avro.safe import SafeSchema
from kantoku_kafka.errors import NotFound
from kantoku_kafka.registry import Registry, RegistryAvro

pytestmark = pytest.mark.unsecured("no broker is asked")

TOPIC_ONLY = {"subject.name.strategy.type": "TOPIC"}
TOPIC = {**TOPIC_ONLY, "auto.register.schemas": False}
NOON = datetime(2026, 11, 29, 12, 0, 0, 123456, tzinfo=UTC)
PARTS = {
    "id": ({"type": "string", "logicalType": "uuid"}, uuid.UUID(int=7)),
    "price": ({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, Decimal("-12.50")),
    "weight": (
        {"type": "fixed", "name": "Weight", "size": 5, "logicalType": "decimal", "precision": 9, "scale": 3},
        Decimal("1.125"),
    ),
    "at": ({"type": "long", "logicalType": "timestamp-micros"}, NOON),
    "seen": ({"type": "long", "logicalType": "timestamp-millis"}, NOON.replace(microsecond=123000)),
    "day": ({"type": "int", "logicalType": "date"}, NOON.date()),
    "hour": ({"type": "int", "logicalType": "time-millis"}, time(1, 2, 3, 4000)),
    "kind": ({"type": "enum", "name": "Kind", "symbols": ["BOOK", "TOY"]}, "TOY"),
    "digest": ({"type": "fixed", "name": "Digest", "size": 3}, b"\0\xff\1"),
    "stock": ({"type": "map", "values": ["null", "long"]}, {"": None, "b": 1 << 60}),
    "note": (["null", "int", "string", {"type": "array", "items": "double"}], [0.5, -1e300]),
    "inner": ({"type": "record", "name": "Inner", "namespace": "a.b", "fields": [{"name": "x", "type": "float"}]},
              {"x": 0.25}),
}  # fmt: skip
WHOLE = {"type": "record", "name": "Whole", "fields": [{"name": name, "type": PARTS[name][0]} for name in PARTS]}
VALUE = {name: value for name, (_, value) in PARTS.items()}


@pytest.fixture
def registry(apicurio: Apicurio) -> Iterator[Registry]:
    made = Registry(apicurio.url)
    yield made
    made.close()


@pytest.fixture
def client(apicurio: Apicurio) -> Iterator[SchemaRegistryClient]:
    with SchemaRegistryClient({"url": apicurio.url}) as made:
        yield made


@pytest.mark.parametrize(
    ("schema", "value", "strategy"),
    [
        (WHOLE, VALUE, "TOPIC"),
        (WHOLE, VALUE, "RECORD"),
        (WHOLE, VALUE, "TOPIC_RECORD"),
        (["null", "string", WHOLE], VALUE, "TOPIC"),
        ("string", "hi", "TOPIC"),
        ({"type": "array", "items": "int"}, [1, 2], "TOPIC"),
    ],
    ids=["record", "by its name", "by topic and name", "union", "primitive", "array"],
)
def test_data_are_those_of_confluents_serializers(
    registry: Registry, client: SchemaRegistryClient, schema: Any, value: Any, strategy: str
) -> None:
    topic = f"t-{uuid.uuid4().hex[:6]}"
    subject = {"TOPIC": f"{topic}-value", "RECORD": "Whole", "TOPIC_RECORD": f"{topic}-Whole"}[strategy]
    conf, place = {"subject.name.strategy.type": strategy}, SerializationContext(topic, MessageField.VALUE)
    registry.register(subject, SafeSchema(schema).text)
    ours = {**conf, "auto.register.schemas": False, "use.latest.version": True}
    data = AvroSerializer(client, json.dumps(schema), conf=ours)(value, place) or b""
    for payload in (RegistryAvro(registry, subject, schema), RegistryAvro(registry, subject)):
        assert (payload.load(data), payload.dump(value)) == (value, data)
    assert AvroDeserializer(client, conf=conf)(data, place) == value


def test_data_of_an_older_schema_are_given_as_the_newer_has_them(
    registry: Registry, client: SchemaRegistryClient
) -> None:
    def order(*fields: dict[str, Any]) -> dict[str, Any]:
        return {"type": "record", "name": "Order", "fields": fields}

    kinds = {"type": "enum", "name": "Kind", "symbols": ["A", "B"]}
    older = order({"name": "n", "type": "int"}, {"name": "old", "type": "string"}, {"name": "kind", "type": kinds})
    fewer = {"name": "kind", "type": {**kinds, "symbols": ["A"], "default": "A"}}
    named = {"name": "name", "aliases": ["old"], "type": ["null", "string"]}
    newer = order({"name": "n", "type": "double"}, named, fewer, {"name": "more", "type": "int", "default": 3})
    conf = {**TOPIC, "auto.register.schemas": True}
    topic, place = "orders", SerializationContext("orders", MessageField.VALUE)
    data = AvroSerializer(client, json.dumps(older), conf=conf)({"n": 1, "old": "x", "kind": "B"}, place) or b""
    expected = {"n": 1.0, "name": "x", "kind": "A", "more": 3}
    assert RegistryAvro(registry, f"{topic}-value", newer).load(data) == expected
    assert AvroDeserializer(client, json.dumps(newer), conf=TOPIC_ONLY)(data, place) == expected


def test_a_schema_may_refer_to_those_of_other_subjects(registry: Registry, client: SchemaRegistryClient) -> None:
    """Two of which refer to the same one."""
    mark = uuid.uuid4().hex[:6]

    def schema(name: str, *of: str) -> Schema:
        fields = [{"name": one.lower(), "type": f"x.{one}"} for one in of] or [{"name": "n", "type": "int"}]
        text = json.dumps({"type": "record", "name": name, "namespace": "x", "fields": fields})
        return Schema(text, "AVRO", [SchemaReference(f"x.{one}", f"{mark}-{one}", 1) for one in of])

    for name, of in {"Base": (), "Left": ("Base",), "Right": ("Base",)}.items():
        client.register_schema(f"{mark}-{name}", schema(name, *of))
    top, place = schema("Top", "Left", "Right"), SerializationContext(mark, MessageField.VALUE)
    client.register_schema(f"{mark}-value", top)
    value = {side: {"base": {"n": n}} for n, side in enumerate(("left", "right"))}
    payload = RegistryAvro(registry, f"{mark}-value")
    assert payload.load(AvroSerializer(client, top, conf=TOPIC)(value, place) or b"") == value
    assert AvroDeserializer(client, conf=TOPIC_ONLY)(payload.dump(value), place) == value


def test_what_the_registry_takes_for_no_mark_at_all_is_of_no_schema(registry: Registry) -> None:
    for mark in (2**32 - 1, uuid.UUID(int=0)):  # Apicurio knows ids of 31 bits, and no GUIDs
        with pytest.raises(NotFound, match=f"does not have schema {mark}"):
            registry.schema(mark)
