"""Calls a task function and turns whatever happens into the job's outcome. Shared by all pools."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING

from kantoku_kafka.context import Context
from kantoku_kafka.engine.retry import kinds_of
from kantoku_kafka.errors import NonRetryable, Reject, Retryable, TaskError, is_delay
from kantoku_kafka.job import Job, Raised
from kantoku_kafka.model import ErrorInfo, Status, utf8_safe
from kantoku_kafka.plugins import run_after

if TYPE_CHECKING:
    from kantoku_kafka.app import Kantoku, TaskType

__all__ = ["Invoker", "fail"]

_log = logging.getLogger(__name__)
_MAX_MESSAGE, _MAX_DETAIL = 4_000, 8_000


class Invoker:
    """Runs jobs of an app's task types. Thread-safe: it keeps nothing between calls."""

    def __init__(self, kantoku: Kantoku) -> None:
        self._kantoku = kantoku
        self._types: Mapping[str, TaskType] = kantoku.task_types
        self._hooks = kantoku.hooks

    def run(self, job: Job) -> None:
        """Run a plain function in this thread; afterwards the job has an outcome.

        Raises:
            KeyboardInterrupt: and no outcome. In the main thread a person wants the program to end.
        """
        task = self._types[job.type]
        job.started_at_us = time.time_ns() // 1000
        if task.takes_context or self._hooks.around_execute:
            ctx = Context(self._kantoku, job)
            try:
                self._before(ctx)
                output = task.function(job.data, ctx) if task.takes_context else task.function(job.data)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001 - whatever user code raises is its result
                fail(job, error)
            else:
                _settle(job, output)
            run_after(self._hooks.after_execute, ctx)
            return
        try:
            output = task.function(job.data)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever user code raises is its result
            fail(job, error)
        else:
            _settle(job, output)

    async def run_async(self, job: Job) -> None:
        """Run a coroutine function; afterwards the job has an outcome. Raises CancelledError only."""
        task = self._types[job.type]
        job.started_at_us = time.time_ns() // 1000
        ctx = Context(self._kantoku, job)
        try:
            self._before(ctx)
            output = await (task.function(job.data, ctx) if task.takes_context else task.function(job.data))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever user code raises is its result
            fail(job, error)
        else:
            _settle(job, output)
        run_after(self._hooks.after_execute, ctx)

    def interrupted(self, job: Job) -> None:
        """The function let an asyncio cancellation escape that nobody of ours asked for."""
        job.fail(
            Status.FAILED,
            ErrorInfo("CancelledError", "The task cancelled itself, or awaited what was cancelled."),
        )

    def _before(self, ctx: Context) -> None:
        for hook in self._hooks.before_execute:
            try:
                hook(ctx)
            except TaskError:
                raise
            except Exception as error:
                raise Reject(f"{type(error).__name__}: {error}") from error


def _settle(job: Job, output: object) -> None:
    if type(output) is bytes:
        job.succeed(output)
    else:
        job.fail(
            Status.FAILED,
            ErrorInfo(
                "unserialisable_result",
                f"The task returned {type(output).__name__}, not bytes: encode what it returns.",
            ),
        )


def fail(job: Job, error: BaseException) -> None:
    """The function raised this."""
    status = Status.REJECTED if isinstance(error, Reject) else Status.FAILED
    detail = "".join(traceback.format_exception(error))[-_MAX_DETAIL:]
    job.fail(
        status,
        ErrorInfo(
            type(error).__name__,
            utf8_safe(_text_of(error))[:_MAX_MESSAGE],
            utf8_safe(detail),
            isinstance(error, TaskError) and error.retryable,
        ),
    )
    job.raised = raised_by(error)


def raised_by(error: BaseException) -> Raised:
    """What a retry policy has to know of an exception."""
    asked = isinstance(error, Retryable)
    after_seconds = error.after_seconds if isinstance(error, Retryable) else None
    if not is_delay(after_seconds):  # it may have been set since
        after_seconds = None
    return Raised(kinds_of(type(error)), after_seconds, asked, isinstance(error, NonRetryable))


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as second:  # noqa: BLE001 - its __str__ is user code too
        return f"(its text cannot be made: {type(second).__name__})"
