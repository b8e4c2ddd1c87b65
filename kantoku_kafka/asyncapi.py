"""The topics of an app as an AsyncAPI 3 document: who reads and writes what, with the Avro schemas. Pure.

Source of the form: AsyncAPI 3.0.0, its Kafka bindings 0.5.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from kantoku_kafka.avro import schemas
from kantoku_kafka.kafka.wanted import plan

if TYPE_CHECKING:
    from kantoku_kafka.app import Kantoku

__all__ = ["describe"]

_AVRO = "application/vnd.apache.avro;version=1.12.0"
_KEYS = {
    "Task": "the ordering key of the task, else its id",
    "Result": "the id of the task",
    "Event": "{task id}/{attempt}/{name}; the partition is that of the task id",
    "Timer": "the id of the task; without a value once it has fired",
    "Schedule": "the name of the schedule; without a value once it is removed",
    "ScheduleState": "state/{name of the schedule}",
    "Command": "the id of the task or executor that it names",
    "Heartbeat": "heartbeat/{executor id}",
}
_DEAD_LETTER_HEADERS = (
    *("error-type", "error-message", "attempt", "failed-at"),
    *("source-topic", "source-partition", "source-offset"),
)
_NUMBERS = frozenset({"retention.ms", "retention.bytes", "delete.retention.ms", "max.message.bytes"})
"""What the binding knows of a topic's configuration, besides its policy."""


def describe(kantoku: Kantoku) -> dict[str, Any]:
    """An AsyncAPI document of an app, from the side of its executors: ``receive`` is what they read."""
    topics, types = kantoku.topics, kantoku.task_types
    configs = {wanted.name: wanted.config for wanted in plan(topics, types, inputs=kantoku.inputs)}
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}

    def add(topic: str, what: str, messages: Iterable[str], *actions: str) -> None:
        channels[topic] = {
            "address": topic,
            "description": what,
            "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
            "bindings": {"kafka": _binding(topic, configs.get(topic, {}))},
        }
        for action in actions:
            operations[f"{action}.{topic}"] = {"action": action, "channel": {"$ref": f"#/channels/{topic}"}}

    for topic in kantoku.inputs:
        add(topic, f"Tasks of type {_named(kantoku, topic)}.", ["Task"], "receive", "send")
    for topic in kantoku.foreign_inputs:
        add(topic, f"Of others; its records are tasks of type {_named(kantoku, topic)}.", ["Foreign"], "receive")
    for topic in (name for name in kantoku.reply_topics if not name.endswith("*")):
        add(topic, "Replies: results once more, for others.", ["Reply"], "send")
    add(topics.results, "The one result of each task.", ["Result"], "send")
    add(topics.events, "Every step of every task.", ["Event"], "send")
    add(topics.dlq, "Records that nobody could run, the bytes as they were.", ["DeadLetter"], "send")
    add(topics.timers, "Tasks that are due later.", ["Timer"], "receive", "send")
    add(topics.schedules, "Recurring tasks.", ["Schedule", "ScheduleState"], "receive", "send")
    add(topics.control, "What executors say and are told.", ["Command", "Heartbeat"], "receive", "send")
    used = {name for channel in channels.values() for name in channel["messages"]}
    messages = {**{name: _envelope(name, key) for name, key in _KEYS.items()}, **_OTHERS}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": f"kantoku-kafka: {topics.namespace}", "version": version("kantoku-kafka")},
        "channels": channels,
        "operations": operations,
        "components": {"messages": {name: message for name, message in messages.items() if name in used}},
    }


def _named(kantoku: Kantoku, topic: str) -> str:
    """The task types that take tasks from a topic."""
    return " or ".join(name for name, task in kantoku.task_types.items() if topic in task.inputs(kantoku.topics))


def _envelope(name: str, key: str) -> dict[str, Any]:
    """In Avro single-object encoding: the marker says by its fingerprint which version of the schema follows."""
    schema = schemas.load(f"{name}.avsc")
    marker = (schemas.MARKER + schemas.fingerprint_of(schema)).hex(" ")
    return {
        "title": name,
        "contentType": "application/avro",
        "description": f"Avro single-object encoding: {marker}, then the body; or a form of the schema registry.",
        "payload": {"schemaFormat": _AVRO, "schema": schema},
        "bindings": _key(key),
    }


def _key(description: str) -> dict[str, Any]:
    return {"kafka": {"key": {"type": "string", "description": description}}}


def _opaque(title: str, key: str, headers: Iterable[str] = ()) -> dict[str, Any]:
    """Bytes that are not ours to describe."""
    properties = {f"kantoku-{name}": {"type": "string"} for name in headers}
    return {
        "title": title,
        "contentType": "application/octet-stream",
        **({"headers": {"type": "object", "properties": properties}} if properties else {}),
        "bindings": _key(key),
    }


_OTHERS: Mapping[str, Any] = {
    "DeadLetter": _opaque("DeadLetter", "the key of the dead record", _DEAD_LETTER_HEADERS),
    "Foreign": _opaque("Foreign", "what its writers choose: it goes on as the ordering key"),
    "Reply": _opaque("Reply", "the key of the task's record", ("task-id", "status", "error-type", "error-message")),
}


def _binding(topic: str, config: Mapping[str, str]) -> dict[str, Any]:
    shown: dict[str, Any] = {name: int(value) for name, value in config.items() if name in _NUMBERS}
    if "cleanup.policy" in config:
        shown["cleanup.policy"] = config["cleanup.policy"].split(",")
    return {"topic": topic, **({"topicConfiguration": shown} if shown else {})}
