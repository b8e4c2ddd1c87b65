"""Names: what task types and topics may be called, and which topic is for what. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from kantoku_kafka.errors import UsageError

__all__ = ["NORMAL", "Topics", "check_reply_topic", "check_task_type", "is_priority", "is_task_type", "is_topic"]

NORMAL = "normal"
"""The priority of a task that names none: it stands in the topic of its type."""

_TASK_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MAX_TASK_TYPE = 200
_PRIORITY = re.compile(r"[a-z0-9_-]{1,32}")
_MAX_TOPIC = 249
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Topics:
    """Where everything stands. Every name follows from the namespace unless it is overridden.

    Parameters:
        namespace: prefix of all names, and of the consumer group ``{namespace}.executors``.
        overrides: to the name of a topic that exists, from one of ``results``, ``events``, ``dlq``, ``control``,
            ``timers``, ``schedules``, or a task type, written ``tasks.{type}``; with a priority
            ``priority.{priority}.{type}``.
    """

    namespace: str
    overrides: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.namespace:
            raise UsageError("A namespace has at least one character: it is the prefix of all topics.")
        for name in (f"{self.namespace}.results", *self.overrides.values()):
            if not is_topic(name):
                raise UsageError(f"{name!r} cannot be a topic: use letters, digits, '.', '_' and '-', at most 249.")

    def of_type(self, task_type: str, priority: str = NORMAL) -> str:
        """The input topic of a task type's priority. Raises UsageError if all together is too long for a topic."""
        name = self._named(f"tasks.{task_type}" if priority == NORMAL else f"priority.{priority}.{task_type}")
        if len(name) > _MAX_TOPIC:
            raise UsageError(f"Topic {name[:40]}... has {len(name)} characters, Kafka takes {_MAX_TOPIC}: shorten one.")
        return name

    def is_ours(self, topic: str) -> bool:
        """Whether a topic is one of this namespace, by its name or by an override."""
        besides_inputs = (self.results, self.events, self.dlq, self.control, self.timers, self.schedules)
        return topic in besides_inputs or self.told_by(topic) is not None

    def told_by(self, topic: str) -> tuple[str, str] | None:
        """The task type and the priority that a topic is the input of, by its name or by an override; else None."""
        own = topic.removeprefix(f"{self.namespace}.") if topic.startswith(f"{self.namespace}.") else ""
        overridden = {name: role for role, name in self.overrides.items()}
        kind, _, rest = overridden.get(topic, own).partition(".")
        if kind == "tasks":
            return (rest, NORMAL) if rest else None
        priority, _, task_type = rest.partition(".")
        return (task_type, priority) if kind == "priority" and task_type else None

    @property
    def results(self) -> str:
        return self._named("results")

    @property
    def events(self) -> str:
        return self._named("events")

    @property
    def dlq(self) -> str:
        return self._named("dlq")

    @property
    def control(self) -> str:
        return self._named("control")

    @property
    def timers(self) -> str:
        return self._named("timers")

    @property
    def schedules(self) -> str:
        return self._named("schedules")

    @property
    def group(self) -> str:
        """The one consumer group of all executors of the namespace."""
        return f"{self.namespace}.executors"

    @property
    def timers_group(self) -> str:
        """The consumer group of those who put tasks onto their inputs when they are due."""
        return f"{self.namespace}.timers"

    @property
    def spawners(self) -> str:
        """What the transactional ids of clients begin with."""
        return f"{self.namespace}.spawners"

    def _named(self, role: str) -> str:
        return self.overrides.get(role) or f"{self.namespace}.{role}"


def check_task_type(name: str) -> str:
    """Return ``name`` if it may be a task type, else raise UsageError."""
    if not isinstance(name, str) or not is_task_type(name):
        raise UsageError(
            f"{str(name)[:200]!r} cannot be a task type: begin with a letter or digit, go on with letters, digits, "
            "'.', '_' or '-', at most 200 characters."
        )
    return name


def check_reply_topic(name: str, topics: Topics) -> str:
    """Return ``name`` if it may be a topic for replies, else raise UsageError."""
    if not isinstance(name, str) or not is_topic(name):
        raise UsageError(
            f"reply_to {str(name)[:249]!r} cannot be a topic: letters, digits, '.', '_', '-', at most 249."
        )
    if topics.is_ours(name):
        raise UsageError(f"reply_to {name!r} is a topic of ours: a reply goes to one that others read.")
    return name


def is_task_type(name: str) -> bool:
    """Whether ``name`` may be a task type."""
    return len(name) <= _MAX_TASK_TYPE and _matches_task_type(name)


def is_priority(name: str) -> bool:
    """Whether ``name`` may be a priority."""
    return _PRIORITY.fullmatch(name) is not None


@lru_cache(maxsize=1024)
def _matches_task_type(name: str) -> bool:
    return _TASK_TYPE.fullmatch(name) is not None


def is_topic(name: str) -> bool:
    """Whether ``name`` may be a topic."""
    return _TOPIC.fullmatch(name) is not None
