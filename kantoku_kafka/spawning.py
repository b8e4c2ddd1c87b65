"""From a task spec to the records to be written: the part that a client and ``ctx.spawn`` share. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kantoku_kafka.engine.steps import event_of
from kantoku_kafka.job import Message
from kantoku_kafka.model import Event, Task
from kantoku_kafka.plugins import SpawnContext, run_after

if TYPE_CHECKING:
    from kantoku_kafka.app import Kantoku

__all__ = ["prepare"]


def prepare(
    kantoku: Kantoku, task: Task, parent_id: str | None = None, *, is_template: bool = False
) -> tuple[SpawnContext, Message]:
    """Everything up to the write: id, options, hooks, envelope.

    Raises:
        Whatever an option or a before hook raises: the task is then not spawned.
        UsageError: it has to be signed, and cannot be.
    """
    hooks = kantoku.hooks if task.options else kantoku.hooks_without_options
    ctx = SpawnContext(kantoku, hooks, kantoku.task_ids.new(), task.type, task.data)
    ctx.is_template = is_template
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
    topic = ctx.topic or kantoku.topics.of_type(ctx.type)
    value, headers = kantoku.codec.encode_task(envelope), ctx.headers
    if kantoku.seal is not None:
        headers = kantoku.seal.sign(kantoku.namespace, envelope, key, headers)
    return ctx, Message(topic, key, value, headers)


def spawned_event(ctx: SpawnContext) -> Event:
    """The event that says the task was spawned."""
    envelope = ctx.envelope
    assert envelope is not None, "the spawn is not prepared"
    return event_of(envelope)
