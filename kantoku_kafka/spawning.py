"""From a task spec to the records to be written: the part that a client and ``ctx.spawn`` share. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kantoku_kafka.job import Message
from kantoku_kafka.model import Event, EventName, Task, TaskEnvelope
from kantoku_kafka.plugins import SpawnContext, run_after

if TYPE_CHECKING:
    from kantoku_kafka.app import Kantoku

__all__ = ["prepare"]


def prepare(kantoku: Kantoku, task: Task, parent_id: str | None = None) -> tuple[SpawnContext, Message]:
    """Everything up to the write: id, options, hooks, envelope.

    Raises:
        Whatever an option or a before hook raises: the task is then not spawned.
    """
    hooks = kantoku.hooks if task.options else kantoku.hooks_without_options
    ctx = SpawnContext(kantoku, hooks, kantoku.task_ids.new(), task.type, task.data)
    if parent_id is not None:
        ctx.fields["parent_id"] = parent_id
    for option in task.options:
        option(ctx)
    for hook in hooks.before_initialized:
        hook(ctx)
    envelope = ctx.freeze()
    if hooks.after_initialized:
        run_after(hooks.after_initialized, ctx)
    for hook in hooks.before_scheduled:
        hook(ctx)
    key = ctx.id.encode() if ctx.key is None else ctx.key
    return ctx, Message(kantoku.topics.of_type(ctx.type), key, kantoku.codec.encode_task(envelope), ctx.headers)


def spawned_event(ctx: SpawnContext) -> Event:
    """The event that says the task was spawned."""
    envelope = ctx.envelope
    assert envelope is not None, "the spawn is not prepared"
    return event_of(envelope)


def event_of(envelope: TaskEnvelope) -> Event:
    """That a task was spawned, from its envelope; labels, parent and what it restarts go into the attributes."""
    attributes = {f"label.{name}": value for name, value in envelope.labels.items()}
    if envelope.parent_id is not None:
        attributes["parent_id"] = envelope.parent_id
    if envelope.restarted_from is not None:
        attributes["restarted_from"] = envelope.restarted_from
    name = EventName.SPAWNED.value
    return Event(envelope.id, envelope.type, name, envelope.attempt, envelope.created_at_us, attributes=attributes)
