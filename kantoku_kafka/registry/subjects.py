"""What ought to stand in a schema registry for an app: its envelopes and the payloads of its tasks."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from kantoku_kafka.avro import schemas
from kantoku_kafka.errors import NotFound
from kantoku_kafka.registry.client import Registry
from kantoku_kafka.registry.envelopes import schemas_of, subject_of
from kantoku_kafka.registry.payload import RegistryAvro

if TYPE_CHECKING:
    from kantoku_kafka.app import Kantoku

__all__ = ["State", "Wanted", "difference", "state_of", "wanted"]


class State(StrEnum):
    """Of a schema under its subject."""

    REGISTERED = "registered"
    NEW = "new"
    """The subject has no schema yet."""
    COMPATIBLE = "compatible"
    """Not registered, and the rules of the subject take it."""
    INCOMPATIBLE = "incompatible"
    """They do not."""


class Wanted(NamedTuple):
    """A schema, under which subject it ought to stand, and where."""

    subject: str
    schema: str
    registry: Registry

    @property
    def name(self) -> str:
        """What the schema calls itself."""
        parsed = json.loads(self.schema)
        return str(parsed.get("name", "")) if isinstance(parsed, Mapping) else ""


def wanted(kantoku: Kantoku) -> list[Wanted]:
    """By subject: what the topics of the app hold, if it has a registry, and what its payloads read and write."""
    found: dict[str, Wanted] = {}
    if kantoku.registry is not None:
        for topic, name in schemas_of(kantoku.topics, kantoku.inputs).items():
            subject = subject_of(topic)
            found[subject] = Wanted(subject, schemas.text(f"{name}.avsc"), kantoku.registry)
    for task in kantoku.task_types.values():
        for payload in task.payloads:
            if isinstance(payload, RegistryAvro) and payload.schema is not None:
                found[payload.subject] = Wanted(payload.subject, payload.schema.text, payload.registry)
    return [found[subject] for subject in sorted(found)]


def state_of(one: Wanted) -> State:
    """How it stands. Raises RegistryUnavailable, AccessDenied."""
    try:
        one.registry.find(one.subject, one.schema)
    except NotFound:
        pass
    else:
        return State.REGISTERED
    try:
        one.registry.latest(one.subject)
    except NotFound:
        return State.NEW
    return State.COMPATIBLE if one.registry.is_compatible(one.subject, one.schema) else State.INCOMPATIBLE


def difference(one: Wanted) -> list[str]:
    """Lines of a unified diff from the newest that is registered. Raises as :func:`state_of`."""
    try:
        there = _lines(one.registry.latest(one.subject).schema.text)
    except NotFound:
        there = []
    here = _lines(one.schema)
    return list(difflib.unified_diff(there, here, f"{one.subject} (registered)", f"{one.subject} (here)", lineterm=""))


def _lines(schema: str) -> list[str]:
    return json.dumps(json.loads(schema), indent=2, ensure_ascii=False).splitlines()
