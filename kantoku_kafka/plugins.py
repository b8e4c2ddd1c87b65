"""Behaviour around the steps of a task: options, hooks, and the context that carries them.

The order of a spawn: assign the id, apply the options, ``before_initialized``, freeze the envelope,
``after_initialized``, ``before_scheduled``, write to the inputs, ``after_scheduled``. In an executor:
``before_execute``, the function, ``after_execute``. Plugins run in the order they were registered.
A *before* hook vetoes by raising; what an *after* hook raises is logged and changes nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from kantoku_kafka.model import Headers, TaskEnvelope, now_us

if TYPE_CHECKING:
    from kantoku_kafka.app import Kantoku
    from kantoku_kafka.context import Context

__all__ = ["Plugin", "SpawnContext"]

_log = logging.getLogger(__name__)

Daemon = Callable[[threading.Event], None]


class SpawnContext:
    """One spawn, as options and plugins see it. Belongs to the thread that spawns.

    Attributes:
        kantoku: the app that spawns; ``hooks``: those of its plugins that take part.
        id, type, data: of the task. ``data`` and everything below may be changed until the envelope is frozen.
        key: the ordering key, or None: then the record is keyed by the task id.
        topic: where the task is put, or None: the input of its type.
        headers: record headers, carried on to the result.
        fields: further fields of the envelope by name, e.g. ``{"expires_at_us": ...}``.
        labels, options: the envelope's maps.
        log: notes about this creation, returned to the caller in ``Spawned.log``.
        is_template: it is kept for a schedule, which spawns tasks like it later.
        bag: the place where an option leaves a typed entry for its plugin.
        envelope: the frozen envelope; None before ``after_initialized``.
    """

    __slots__ = (
        "bag",
        "data",
        "envelope",
        "fields",
        "headers",
        "hooks",
        "id",
        "is_template",
        "kantoku",
        "key",
        "labels",
        "log",
        "options",
        "topic",
        "type",
    )

    def __init__(self, kantoku: Kantoku, hooks: Hooks, task_id: str, task_type: str, data: bytes) -> None:
        self.kantoku = kantoku
        self.hooks = hooks
        self.id = task_id
        self.type = task_type
        self.data = data
        self.key: bytes | None = None
        self.topic: str | None = None
        self.headers: Headers = ()
        self.fields: dict[str, Any] = {}
        self.labels: dict[str, str] = {}
        self.options: dict[str, bytes] = {}
        self.log: list[str] = []
        self.bag: dict[object, Any] = {}
        self.envelope: TaskEnvelope | None = None
        self.is_template = False

    def freeze(self) -> TaskEnvelope:
        """The envelope of this spawn; later changes of the context have no effect on it."""
        envelope = TaskEnvelope(self.id, self.type, self.data, now_us())
        if self.fields or self.labels or self.options:
            envelope = envelope._replace(labels=dict(self.labels), options=dict(self.options), **self.fields)
        self.envelope = envelope
        return envelope


class Plugin:
    """Base of all plugins; override what is needed.

    ``before_*`` and ``after_*`` run in the thread that spawns or executes, many at once: keep no state in the
    plugin that is not thread-safe; put what belongs to one spawn into ``ctx.bag``.
    """

    needs_option: ClassVar[bool] = False
    """True: the creation hooks do nothing for a task that was spawned without any option, and are not called."""
    for_children: str | None = None
    """``module:function``, which gives the app its like in a child of pool ``process``; None: its import does."""

    def initialize(self, kantoku: Kantoku) -> None:
        """Called once, when the plugin is registered."""

    def before_initialized(self, ctx: SpawnContext) -> None:
        """The id and the options are there; the envelope may still be changed. Raise to veto."""

    def after_initialized(self, ctx: SpawnContext) -> None:
        """The envelope is frozen."""

    def before_scheduled(self, ctx: SpawnContext) -> None:
        """The task is about to be written to its input. Raise to veto."""

    def after_scheduled(self, ctx: SpawnContext) -> None:
        """The task was handed to the input."""

    def before_execute(self, ctx: Context) -> None:
        """The function is about to run. Raise to veto: the result is REJECTED."""

    def after_execute(self, ctx: Context) -> None:
        """The function has ended: see ``ctx.status`` (None: it was cancelled), ``ctx.output`` and ``ctx.error``."""

    def daemons(self) -> Sequence[Daemon]:
        """Background jobs that an executor process runs, each in a thread; they end when the event is set."""
        return ()


class Hooks:
    """The hooks that plugins really override, looked up once. Immutable after construction; thread-safe."""

    def __init__(self, plugins: Sequence[Plugin]) -> None:
        self.before_initialized = _overridden(plugins, "before_initialized")
        self.after_initialized = _overridden(plugins, "after_initialized")
        self.before_scheduled = _overridden(plugins, "before_scheduled")
        self.after_scheduled = _overridden(plugins, "after_scheduled")
        self.before_execute = _overridden(plugins, "before_execute")
        self.after_execute = _overridden(plugins, "after_execute")
        self.around_execute = bool(self.before_execute or self.after_execute)


def run_after(hooks: Sequence[Callable[[Any], None]], ctx: Any) -> None:
    """Run after hooks; one that raises is logged and the next one runs."""
    for hook in hooks:
        try:
            hook(ctx)
        except (Exception, SystemExit):  # noqa: BLE001 - the step has happened: nothing a plugin does may undo it
            _log.exception("an after hook raised", extra={"action": "hook", "hook": hook.__qualname__})


def _overridden(plugins: Sequence[Plugin], name: str) -> list[Callable[[Any], None]]:
    return [getattr(p, name) for p in plugins if getattr(type(p), name) is not getattr(Plugin, name)]
