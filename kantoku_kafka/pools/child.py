"""The program of a child process: ``python -m kantoku_kafka.pools.child FD``, started by the process pool only.

It imports the app, runs one task after the other in its main thread, and answers. It outlives its parent for as long
as a C function holds the interpreter lock, or for a second if another process holds the parent's end of the socket.
:mod:`kantoku_kafka.pools.frames` has what is said on the socket.
"""

from __future__ import annotations

import asyncio
import contextvars
import faulthandler
import inspect
import io
import logging
import os
import resource
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from queue import SimpleQueue
from types import FrameType

from kantoku_kafka.app import Kantoku
from kantoku_kafka.errors import UsageError
from kantoku_kafka.invoke import Invoker, fail
from kantoku_kafka.job import Job
from kantoku_kafka.loading import load_app
from kantoku_kafka.logs import JsonFormatter, log_unexpected
from kantoku_kafka.model import ErrorInfo, Status, now_us, utf8_safe
from kantoku_kafka.names import Topics
from kantoku_kafka.pools.frames import (
    FrameBuffer,
    FrameError,
    Kind,
    decode_task,
    encode_answer,
    encode_beat,
    frame,
)
from kantoku_kafka.pools.hello import Hello
from kantoku_kafka.settings import Connection

__all__ = ["main"]

_READ_BYTES = 1 << 18
_LOOK_SECONDS = 1.0
_MEMORY_ERROR = "builtins.MemoryError"
_ENOUGH = 0.8  # of the memory allowed: a task that leaks should not be the one to meet the limit


def main() -> int:
    """Serve the parent until it says END; returns the exit code."""
    channel = socket.socket(fileno=int(sys.argv.pop(1)))
    channel.set_inheritable(False)  # no process that a task starts may keep it open
    channel.setblocking(True)  # it is not if the parent has a default timeout for sockets
    faulthandler.enable()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    inbox = Inbox(channel)
    body = inbox.get()
    if body is None:
        return 0
    try:
        hello = Hello.decode(body)
        kantoku = _imported(hello)
        limits = Limits(hello)
        _run_hooks(kantoku)
    except UsageError as error:
        channel.sendall(frame(Kind.FAILED, utf8_safe(str(error)).encode()))
        return error.exit_code
    channel.sendall(frame(Kind.READY))
    invoker, speaking = Invoker(kantoku), threading.Lock()

    def say(whole: bytes) -> None:
        with speaking:  # threads of a task may beat meanwhile
            channel.sendall(whole)

    with asyncio.Runner() as runner:
        while (body := inbox.get()) is not None:
            number, job = decode_task(body)
            job.read(kantoku.codec.peek_task)
            job.started_at_us = now_us()
            job.on_beat = partial(_beat, say, number)
            if inspect.iscoroutinefunction(kantoku.task_types[job.type].function):
                # A context of its own: else what one task sets is there for the next.
                runner.run(_run_async(invoker, job), context=contextvars.copy_context())
            else:
                _run(invoker, job)
            limits.note(job)
            say(_answer(number, job, last=limits.reached))
    for hook in kantoku.shutdown_hooks:
        hook()
    return 0


def _run_hooks(kantoku: Kantoku) -> None:
    """Those of the start. Raises UsageError."""
    for hook in kantoku.startup_hooks:
        try:
            hook()
        except Exception as error:
            traceback.print_exc()
            raise UsageError(f"A hook of on_startup failed: {type(error).__name__}: {error}.") from error


class Limits:
    """What this process may use up before it is replaced.

    Raises:
        UsageError: the app alone takes more than that.
    """

    def __init__(self, hello: Hello) -> None:
        self._max_tasks, self._max_memory_bytes = hello.max_tasks, hello.max_memory_bytes
        self._tasks = 0
        self.reached = False
        if self._max_memory_bytes:
            if (taken_bytes := _taken_bytes()) > _ENOUGH * self._max_memory_bytes:
                raise UsageError(
                    f"{hello.reference} takes {taken_bytes >> 20} MiB once it is imported: "
                    f"--max-memory-per-child {self._max_memory_bytes >> 20} is too little."
                )
            resource.setrlimit(resource.RLIMIT_DATA, (self._max_memory_bytes, self._max_memory_bytes))

    def note(self, job: Job) -> None:
        """A task has ended. If it was for want of memory that is a crash: nothing of this process can be relied on."""
        self._tasks += 1
        out_of_memory = bool(self._max_memory_bytes and job.raised is not None and _MEMORY_ERROR in job.raised.kinds)
        if out_of_memory:
            text = f"The task needed more than the {self._max_memory_bytes >> 20} MiB of --max-memory-per-child."
            job.fail(Status.CRASHED, ErrorInfo("out_of_memory", text))
        used_up = bool(self._max_memory_bytes) and _taken_bytes() > _ENOUGH * self._max_memory_bytes
        self.reached = out_of_memory or used_up or 0 < self._max_tasks <= self._tasks


def _taken_bytes() -> int:
    """The most memory that this process ever had resident, or what it has reserved, if that is more.

    RLIMIT_DATA counts what is reserved: stacks of threads too. On Linux ru_maxrss would begin with the parent's.
    """
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fields = dict(line.split(b":", 1) for line in Path("/proc/self/status").read_bytes().splitlines())
    known = fields.keys() & {b"VmHWM", b"VmRSS", b"VmData"}  # gVisor tells no peak
    return max(int(fields[name].split()[0]) << 10 for name in known)


class Inbox:
    """What the parent says, read by a thread of its own, so that a busy child hears it too."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._parent = os.getppid()
        self._readable = select.poll()
        self._readable.register(channel, select.POLLIN)
        self._bodies: SimpleQueue[bytes | None] = SimpleQueue()
        self._cancelled = False
        self._main_thread = threading.get_ident()
        signal.signal(signal.SIGTERM, self._on_sigterm)
        os.register_at_fork(before=_block_sigterm, after_in_parent=_unblock_sigterm, after_in_child=self._forked)
        threading.Thread(target=self._read, name="kantoku-parent", daemon=True).start()

    def get(self) -> bytes | None:
        """The next HELLO or TASK; None when it is time to end."""
        return self._bodies.get()

    def _read(self) -> None:
        buffer = FrameBuffer()
        try:
            while data := self._receive():
                for kind, body in buffer.feed(data):
                    if kind is Kind.CANCEL:
                        self._cancelled = True
                        signal.pthread_kill(self._main_thread, signal.SIGTERM)
                    else:
                        self._bodies.put(None if kind is Kind.END else body)
        finally:
            os.killpg(os.getpgrp(), signal.SIGKILL)  # the parent is gone, or nothing can be said any more

    def _receive(self) -> bytes:
        """What has come; nothing if the parent is gone, although a process that it has forked may hold its end."""
        while not self._readable.poll(1000 * _LOOK_SECONDS):
            if os.getppid() != self._parent:
                return b""
        return self._channel.recv(_READ_BYTES)

    def _on_sigterm(self, number: int, _: FrameType | None) -> None:
        """Only the parent ends a task: a SIGTERM to all processes of a service must not fail what it lets drain."""
        if self._cancelled:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _forked(self) -> None:
        """In a copy of this process that a task forked: SIGTERM means there what it always does."""
        if signal.getsignal(signal.SIGTERM) == self._on_sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _unblock_sigterm()


def _block_sigterm() -> None:
    """While forking: Python forgets in the copy which signals came before its own handlers could run."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])


def _unblock_sigterm() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


def _imported(hello: Hello) -> Kantoku:
    """The app, with the parent's settings laid over it."""
    if hello.log_level is not None:
        text = logging.Formatter("%(asctime)s %(levelname)s %(name)s[%(process)d]: %(message)s")
        handler = logging.StreamHandler()
        handler.setFormatter(JsonFormatter() if hello.json_logs else text)
        logging.basicConfig(level=hello.log_level, handlers=[handler])
        if hello.json_logs:
            log_unexpected()
    sys.path += [entry for entry in hello.path if entry not in sys.path]
    kantoku = load_app(hello.reference)
    missing = [name for name in hello.task_types if name not in kantoku.task_types]
    if missing:
        raise UsageError(
            f"Imported as {hello.reference}, the app has no task type {', '.join(missing)}: "
            "register it where the import finds it, not under __main__."
        )
    kantoku.connect_to(
        Connection(
            bootstrap_servers=hello.bootstrap_servers,
            config={**kantoku.connection.config, **hello.config},
            timeout_seconds=hello.timeout_seconds,
        )
    )
    kantoku.topics = Topics(namespace=hello.namespace, overrides=hello.topics)
    kantoku.use_registry(hello.registry)
    for reference in hello.plugins:
        resolve_name(reference)(kantoku)
    return kantoku


def _run(invoker: Invoker, job: Job) -> None:
    try:
        invoker.run(job)
    except KeyboardInterrupt as error:  # no terminal reaches this process: the function itself has raised it
        fail(job, error)


async def _run_async(invoker: Invoker, job: Job) -> None:
    try:
        await invoker.run_async(job)
    except asyncio.CancelledError:
        invoker.interrupted(job)


def _beat(say: Callable[[bytes], None], number: int, progress: Mapping[str, str]) -> None:
    with suppress(OSError, FrameError):  # the parent is gone, or it is too long to be told
        say(frame(Kind.BEAT, encode_beat(number, progress)))


def _answer(number: int, job: Job, *, last: bool) -> bytes:
    try:
        return frame(Kind.ANSWER, encode_answer(number, job, last=last))
    except FrameError as error:
        job.fail(Status.FAILED, ErrorInfo("result_too_large", f"The result cannot leave the process: {error}"))
    return frame(Kind.ANSWER, encode_answer(number, job, last=last))


if __name__ == "__main__":
    sys.exit(main())
