"""What can be attached to a task with ``Task(...).with_(...)``."""

from __future__ import annotations

from kantoku_kafka.errors import UsageError
from kantoku_kafka.ids import idempotent_id
from kantoku_kafka.model import Option
from kantoku_kafka.plugins import SpawnContext

__all__ = ["headers", "idempotency_key", "key", "labels"]


def key(value: str | bytes) -> Option:
    """Order by this key: tasks of one key share a partition, and run one after the other where the type asks it."""
    raw = _encoded("key", value)

    def apply(ctx: SpawnContext) -> None:
        ctx.key = raw

    return apply


def idempotency_key(value: str) -> Option:
    """Derive the task id from namespace, type and this key, so that a second spawn has the same id.

    The id is all that it changes by now: a task that is spawned twice runs twice, and has two results under one id.
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
