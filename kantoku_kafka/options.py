"""What can be attached to a task with ``Task(...).with_(...)``."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kantoku_kafka.engine.reply import OPTION as REPLY_TO
from kantoku_kafka.engine.retry import OPTION, Retry
from kantoku_kafka.engine.rules import check_seconds
from kantoku_kafka.errors import UsageError
from kantoku_kafka.ids import idempotent_id
from kantoku_kafka.model import Option, now_us
from kantoku_kafka.names import check_reply_topic, is_priority
from kantoku_kafka.plugins import SpawnContext

__all__ = [
    "at",
    "delay",
    "expires",
    "headers",
    "idempotency_key",
    "key",
    "labels",
    "priority",
    "reply_to",
    "retry",
    "timeout",
]


def key(value: str | bytes) -> Option:
    """Order by this key: tasks of one key share a partition, and run one after the other where the type asks it."""
    raw = _encoded("key", value)

    def apply(ctx: SpawnContext) -> None:
        ctx.key = raw

    return apply


def idempotency_key(value: str) -> Option:
    """Derive the task id from namespace, type and this key, so that a second spawn has the same id.

    That has no result of its own then: for as long as the type remembers ids (``deduplicate_seconds``, an hour), all
    spawns of one key are one task. Give them the same ordering key and the same priority, if any.
    """
    if not isinstance(value, str) or not value:
        raise UsageError("An idempotency key is a non-empty string.")

    def apply(ctx: SpawnContext) -> None:
        ctx.id = idempotent_id(ctx.kantoku.namespace, ctx.type, value)
        ctx.fields["idempotency_key"] = value

    return apply


def labels(**values: str) -> Option:
    """Labels to find the task by later: ``labels(customer="7")``."""
    for name, value in values.items():
        if not isinstance(value, str):
            raise UsageError(f"Label {name!r} must be a string, not {type(value).__name__}.")

    def apply(ctx: SpawnContext) -> None:
        ctx.labels.update(values)

    return apply


def priority(name: str) -> Option:
    """Let it compete by the weight that its type gives this priority: see ``priorities`` of ``@kan.task``."""
    if not isinstance(name, str) or not is_priority(name):
        raise UsageError(f"{name!r} is no priority: use lower-case letters, digits, '_' and '-', at most 32.")

    def apply(ctx: SpawnContext) -> None:
        known = ctx.kantoku.task_types.get(ctx.type)
        if known is not None and name not in known.priorities:
            raise UsageError(f"Task type {ctx.type!r} has no priority {name!r}, but: {', '.join(known.priorities)}.")
        ctx.topic = ctx.kantoku.topics.of_type(ctx.type, name)

    return apply


def delay(*, seconds: float) -> Option:
    """Start the task so much later than it is spawned, or later than that: when its turn comes."""
    check_seconds("delay", seconds)
    return lambda ctx: _set(ctx, not_before_us=now_us() + round(seconds * 1_000_000))


def at(when: datetime) -> Option:
    """Start the task then, or when its turn comes; at once, if that is over. The time must have a time zone."""
    not_before_us = time_us("at", when)
    return lambda ctx: _set(ctx, not_before_us=not_before_us)


def expires(*, seconds: float) -> Option:
    """If no attempt could start within this time of its spawn, the task is EXPIRED, and never runs."""
    check_seconds("expires", seconds, positive=True)
    return lambda ctx: _set(ctx, expires_at_us=now_us() + round(seconds * 1_000_000))


def timeout(*, seconds: float) -> Option:
    """How long an attempt may run, instead of what its type says: see ``timeout_seconds`` of ``@kan.task``."""
    timeout_ms = max(1, round(check_seconds("timeout", seconds, positive=True) * 1_000))
    return lambda ctx: _set(ctx, timeout_ms=timeout_ms)


def retry(policy: Retry) -> Option:
    """When this task is tried again, instead of what its type says."""
    if not isinstance(policy, Retry):
        raise UsageError(f"retry takes a policy, e.g. retry(Retry(max_attempts=5)), not {policy!r}.")
    encoded = policy.encode()

    def apply(ctx: SpawnContext) -> None:
        ctx.options[OPTION] = encoded
        ctx.fields["max_attempts"] = policy.max_attempts

    return apply


def reply_to(topic: str) -> Option:
    """Write the result to this topic as well, in the same transaction: see ``reply_to`` of ``@kan.task``.

    The type's ``reply_format`` says how; the topic has to exist.
    """

    def apply(ctx: SpawnContext) -> None:
        ctx.options[REPLY_TO] = check_reply_topic(topic, ctx.kantoku.topics).encode()

    return apply


def _set(ctx: SpawnContext, **fields: Any) -> None:
    ctx.fields.update(fields)


def time_us(what: str, when: datetime) -> int:
    """A time with a zone in microseconds since the epoch. Raises UsageError."""
    if not isinstance(when, datetime) or when.tzinfo is None:
        raise UsageError(f"{what} takes a datetime with a time zone, e.g. datetime.now(UTC), not {when!r}.")
    return round(when.timestamp() * 1_000_000)


def headers(**values: str | bytes) -> Option:
    """Record headers, carried from the task to its result; ``_`` in a name is written as ``-``."""
    added = tuple((name.replace("_", "-"), _encoded(name, value)) for name, value in values.items())
    for name, _ in added:
        if name.startswith("kantoku-"):
            raise UsageError(f"Header {name!r} is taken: names that begin with 'kantoku-' belong to the system.")

    def apply(ctx: SpawnContext) -> None:
        ctx.headers += added

    return apply


def _encoded(name: str, value: str | bytes) -> bytes:
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{name!r} must be text that UTF-8 can carry, or bytes, not {value!r}.") from None
    if isinstance(value, bytes):
        return value
    raise UsageError(f"{name!r} must be str or bytes, not {type(value).__name__}.")
