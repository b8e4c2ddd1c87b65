"""Built-in plugins, and examples of them: log every step of the tasks that ask for it.

    spec = Task("test-task", b"Hello world").with_(logger.log_everything())

Creation is logged out of the box; ``Kantoku(..., plugins=[logger.ExecutionLogger()])`` in an executor logs the rest.
"""

from __future__ import annotations

import logging

from kantoku_kafka.context import Context
from kantoku_kafka.model import Option
from kantoku_kafka.plugins import Plugin, SpawnContext

__all__ = ["CreationLogger", "ExecutionLogger", "log_everything"]

_log = logging.getLogger(__name__)
_OPTION = "kantoku.logger"


def log_everything() -> Option:
    """Log each step of this task's creation and execution at level INFO."""

    def apply(ctx: SpawnContext) -> None:
        ctx.options[_OPTION] = b""

    return apply


class CreationLogger(Plugin):
    """Logs the creation of tasks that were spawned with :func:`log_everything`, and notes it in the spawn's log."""

    needs_option = True

    def before_initialized(self, ctx: SpawnContext) -> None:
        self._spawn_step(ctx, "before initialization")

    def after_initialized(self, ctx: SpawnContext) -> None:
        self._spawn_step(ctx, "initialized")

    def before_scheduled(self, ctx: SpawnContext) -> None:
        self._spawn_step(ctx, "before scheduling")

    def after_scheduled(self, ctx: SpawnContext) -> None:
        self._spawn_step(ctx, "scheduled")

    def _spawn_step(self, ctx: SpawnContext, step: str) -> None:
        if _OPTION in ctx.options:
            ctx.log.append(step)
            _log.info("task %s of type %s: %s", ctx.id, ctx.type, step, extra={"action": step, "task_id": ctx.id})


class ExecutionLogger(Plugin):
    """Logs the execution of tasks that were spawned with :func:`log_everything`; reads each task's whole envelope."""

    def before_execute(self, ctx: Context) -> None:
        self._execute_step(ctx, "executing")

    def after_execute(self, ctx: Context) -> None:
        self._execute_step(ctx, f"executed: {ctx.status}")

    def _execute_step(self, ctx: Context, step: str) -> None:
        if _OPTION in ctx.envelope.options:
            _log.info(
                "task %s of type %s: %s",
                ctx.task_id,
                ctx.type,
                step,
                extra={"action": step, "task_id": ctx.task_id},
            )
