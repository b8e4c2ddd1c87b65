"""Calls a task function and turns whatever happens into the job's outcome. Shared by all pools."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from kantoku_kafka.context import Context
from kantoku_kafka.engine.retry import kinds_of
from kantoku_kafka.errors import NonRetryable, Reject, Retryable, TaskError, is_delay
from kantoku_kafka.job import Job, Raised
from kantoku_kafka.model import ErrorInfo, Status, utf8_safe
from kantoku_kafka.payloads import Unserialisable
from kantoku_kafka.plugins import run_after

if TYPE_CHECKING:
    from kantoku_kafka.app import Kantoku
    from kantoku_kafka.task_type import TaskType

__all__ = ["Invoker", "fail"]

_log = logging.getLogger(__name__)
_MAX_MESSAGE, _MAX_DETAIL = 4_000, 8_000


class Invoker:
    """Runs jobs of an app's task types, in the process that makes it. Thread-safe: it keeps nothing between calls."""

    def __init__(self, kantoku: Kantoku) -> None:
        self._kantoku = kantoku
        self._types: Mapping[str, TaskType] = kantoku.task_types
        self._hooks = kantoku.hooks
        self._forks: list[None] = []  # not empty in a copy of this process; to ask for the pid costs a system call
        os.register_at_fork(after_in_child=partial(self._forks.append, None))

    def run(self, job: Job) -> None:
        """Run a plain function in this thread; afterwards the job has an outcome.

        What it and its hooks set of context variables ends with it.

        Raises:
            KeyboardInterrupt: and no outcome. In the main thread a person wants the program to end.
        """
        copy_context().run(self._run, job)

    def _run(self, job: Job) -> None:
        task = self._types[job.type]
        job.started_at_us = time.time_ns() // 1000
        if task.takes_context or self._hooks.around_execute:
            ctx = Context(self._kantoku, job)
            try:
                try:
                    self._before(ctx)
                    output = task.function(job.data, ctx) if task.takes_context else task.function(job.data)
                finally:
                    if self._forks:
                        _end_copy(sys.exc_info()[1])
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001 - whatever user code raises is its result
                fail(job, error)
            else:
                _settle(job, output)
            run_after(self._hooks.after_execute, ctx)
            return
        try:
            try:
                output = task.function(job.data)
            finally:
                if self._forks:
                    _end_copy(sys.exc_info()[1])
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
            try:
                self._before(ctx)
                output = await (task.function(job.data, ctx) if task.takes_context else task.function(job.data))
            finally:
                if self._forks:
                    _end_copy(sys.exc_info()[1])
        except asyncio.CancelledError:
            run_after(self._hooks.after_execute, ctx)
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
        return
    if isinstance(output, Unserialisable):
        reason = utf8_safe(output.reason)[:_MAX_MESSAGE]
    else:
        reason = f"The task returned {type(output).__name__}, not bytes: encode it, or declare a payload for it."
    job.fail(Status.FAILED, ErrorInfo("unserialisable_result", reason))


def fail(job: Job, error: BaseException) -> None:
    """The function raised this."""
    status = Status.REJECTED if isinstance(error, Reject) else Status.FAILED
    job.fail(
        status,
        ErrorInfo(
            type(error).__name__,
            _text_of(str, error)[:_MAX_MESSAGE],
            _text_of(_traceback_of, error)[-_MAX_DETAIL:],
            isinstance(error, TaskError) and error.retryable,
        ),
    )
    job.raised = raised_by(error)


def raised_by(error: BaseException) -> Raised:
    """What a retry policy has to know of an exception."""
    asked = isinstance(error, Retryable)
    after_seconds = _delay_of(error) if isinstance(error, Retryable) else None
    return Raised(kinds_of(type(error)), after_seconds, asked, isinstance(error, NonRetryable))


def _delay_of(error: Retryable) -> float | None:
    """It may be anything: it may have been set since, or be a property."""
    try:
        after_seconds = error.after_seconds
    except Exception:  # noqa: BLE001 - user code
        return None
    return after_seconds if is_delay(after_seconds) else None


def _text_of(tell: Callable[[BaseException], str], error: BaseException) -> str:
    """Whatever is asked of an exception, its own code may answer: ``__str__``, ``__getattr__`` for its notes."""
    try:
        return utf8_safe(tell(error))
    except KeyboardInterrupt:
        raise
    except BaseException as second:  # noqa: BLE001 - user code
        return f"(its text cannot be made: {type(second).__name__})"


def _traceback_of(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def _end_copy(error: BaseException | None) -> NoReturn:
    """A copy of this process that a function forked has left the function: it answers nobody and takes no other job.

    It ends as a script does whose last line the function was: by 0, or what it exits with, or 1 for an error.
    """
    code = 0 if error is None else 1
    try:
        if isinstance(error, SystemExit):
            code = error.code & 0xFF if isinstance(error.code, int) else int(error.code is not None)
        elif error is not None:
            sys.stderr.write(_text_of(_traceback_of, error))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)
