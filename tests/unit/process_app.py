"""The app that the children of test_process_pool.py import."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import mmap
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

from kantoku_kafka import Context, Kantoku, Reject, Retryable, Task

kan = Kantoku("unit", config={"sasl.password": "of-the-app"})
_seen: contextvars.ContextVar[str] = contextvars.ContextVar("seen", default="nothing")
_kept: list[object] = []
_farewell: list[Path] = []


class Strict(Exception):
    """Knows nothing but its payload, not even what every exception may be asked for."""

    def __init__(self, payload: dict[str, object]) -> None:
        super().__init__("strict")
        self.payload = payload

    def __getattr__(self, name: str) -> object:
        return self.payload[name]


@kan.on_shutdown
def bye() -> None:
    """What the task of this name asks for: that another process runs before this one ends."""
    for folder in _farewell:
        while not (folder / "go").exists():
            time.sleep(0.01)
        (folder / f"gone-{os.getpid()}").touch()


@kan.task("echo", pool="process")
def echo(data: bytes) -> bytes:
    return data


@kan.task("pid", pool="process")
def pid(data: bytes) -> bytes:
    print("printed by a task")  # noqa: T201 - where it goes is tested
    return str(os.getpid()).encode()


@kan.task("bye", pool="process")
def say_bye(data: bytes) -> bytes:
    """The hook that runs when this process retires waits for the file ``go`` in the folder that the data name."""
    _farewell.append(Path(data.decode()))
    return str(os.getpid()).encode()


@kan.task("reserve", pool="process")
def reserve(data: bytes) -> bytes:
    """Take so many MiB, and use none of them."""
    _kept.append(mmap.mmap(-1, int(data) << 20, mmap.MAP_PRIVATE))
    return str(os.getpid()).encode()


@kan.task("seen", pool="process")
def seen(data: bytes) -> bytes:
    before = _seen.get()
    _seen.set("another task's value")
    return f"{before} {os.getpid()}".encode()


@kan.task("nap", pool="process")
def nap(data: bytes) -> bytes:
    time.sleep(0.05)
    return str(os.getpid()).encode()


@kan.task("blow-up", pool="process")
def blow_up(data: bytes) -> bytes:
    return data * int(1e6)


@kan.task("context", pool="process")
def context(data: bytes, ctx: Context) -> bytes:
    ctx.spawn(Task("echo", b"child of " + data))
    ctx.produce("side", None, b"effect", (("h", None), ("g", b"\x00")))
    ctx.event("image.loaded", width="10", title="größe")
    seen = (ctx.task_id, ctx.attempt, ctx.key, ctx.headers, tuple(ctx.source), dict(ctx.labels), ctx.kantoku.namespace)
    return repr(seen).encode()


@kan.task("connection", pool="process")
def connection(data: bytes, ctx: Context) -> bytes:
    used = ctx.kantoku.connection
    return repr((used.bootstrap_servers, dict(used.config), ctx.kantoku.topics.results)).encode()


@kan.task("async", pool="process")
async def asynchronous(data: bytes, ctx: Context) -> bytes:
    before = _seen.get()
    _seen.set("another task's value")
    await asyncio.sleep(0)
    ctx.event("image.awaited")
    return f"{before} {os.getpid()}".encode()


@kan.task("async-cancelled", pool="process")
async def async_cancelled(data: bytes) -> bytes:
    raise asyncio.CancelledError


@kan.task("fail", pool="process")
def fail(data: bytes, ctx: Context) -> bytes:
    ctx.produce("side", None, b"must not appear")
    if data == b"retryable":
        raise Retryable("later \ud800")
    if data == b"reject":
        raise Reject("never")
    if data == b"strict":
        raise Strict({})
    raise LookupError("no such picture")


@kan.task("not-bytes", pool="process")
def not_bytes(data: bytes) -> bytes:
    return "text"  # type: ignore[return-value]


@kan.task("bad-effect", pool="process")
def bad_effect(data: bytes, ctx: Context) -> bytes:
    ctx.produce("side", None, b"", (("h", 5),))  # type: ignore[arg-type]
    return b"withheld"


@kan.task("end", pool="process")
def end(data: bytes) -> bytes:
    """End this process in the way that the data name."""
    if data == b"exit":
        os._exit(3)
    elif data == b"segfault":
        ctypes.string_at(0)
    elif data == b"close":
        with socket.socket(fileno=_channel()) as channel:
            channel.shutdown(socket.SHUT_WR)
            time.sleep(60)
    elif data == b"fork-and-die":
        if os.fork() == 0:  # the copy keeps our socket open
            time.sleep(60)
        os._exit(4)
    os.kill(os.getpid(), signal.SIGKILL)
    return b""


@kan.task("orphan", pool="process")
def orphan(data: bytes) -> bytes:
    """Dies, and leaves a grandchild, whose pid is in the file named by the data."""
    _announce(data, str(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid))
    os._exit(1)


@kan.task("garbage", pool="process")
def garbage(data: bytes) -> bytes:
    os.write(_channel(), data)
    return b"an answer after garbage"


@kan.task("sleep", pool="process")
def sleep(data: bytes) -> bytes:
    """Write our pid and a grandchild's to the file named by the data, and never end."""
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    _announce(data, f"{os.getpid()} {grandchild.pid}")
    while True:
        time.sleep(60)


@kan.task("stubborn", pool="process")
def stubborn(data: bytes) -> bytes:
    """Ignores SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _announce(data, str(os.getpid()))
    while True:
        time.sleep(60)


@kan.task("busy", pool="process")
def busy(data: bytes) -> bytes:
    """Never lets go of the processor."""
    _announce(data, str(os.getpid()))
    while True:
        pass


@kan.task("sigterm", pool="process")
def sigterm(data: bytes) -> bytes:
    """Survives a SIGTERM that is not its parent's; a fork of it does not."""
    os.kill(os.getpid(), signal.SIGTERM)
    fork = os.fork()
    if fork == 0:
        time.sleep(60)
        os._exit(0)
    os.kill(fork, signal.SIGTERM)
    return f"still here, the fork ended by {os.waitpid(fork, 0)[1]}".encode()


@kan.task("fork", pool="process")
def fork(data: bytes) -> bytes:
    """A copy of this process leaves the function in the way that the data name; how it ended is the result."""
    copy = os.fork()
    if copy != 0:
        return str(os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])).encode()
    signal.alarm(10)  # no later, whatever becomes of it
    print(f"a copy will {data.decode()}")  # noqa: T201 - that it arrives is tested
    if data == b"exit":
        sys.exit(3)
    if data == b"raise":
        raise LookupError("of the copy")
    if data == b"interrupt":
        raise KeyboardInterrupt
    return b"of the copy"


@kan.task("fork-async", pool="process")
async def fork_async(data: bytes) -> bytes:
    return fork(data)


@kan.task("deaf", pool="process")
def deaf(data: bytes) -> bytes:
    """Idle, this process ends soon after the answer."""
    threading.Timer(0.05, os._exit, [0]).start()
    return str(os.getpid()).encode()


def _channel() -> int:
    """The descriptor of the socket to the parent."""
    descriptors = [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
    for descriptor in sorted(descriptors):
        try:
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode) and _is_connected(descriptor):
                return descriptor
        except OSError:
            continue
    raise LookupError("no socket to the parent")


def _is_connected(descriptor: int) -> bool:
    """Unlike asyncio's own pair, whose two ends are both here, the peer's credentials are of another process."""
    with socket.socket(fileno=os.dup(descriptor)) as copy:
        credentials = copy.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[:4], sys.byteorder) == os.getppid()


def _announce(path: bytes, text: str) -> None:
    target = Path(path.decode())
    draft = target.with_suffix(".draft")
    draft.write_text(text)
    draft.replace(target)


@kan.task("beats", pool="process")
def beats(data: bytes, ctx: Context) -> bytes:
    """Says how far it is, from a thread too, and then waits to be killed."""
    threads = [threading.Thread(target=ctx.heartbeat, kwargs={"step": str(n)}) for n in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ctx.heartbeat(step="last")
    return b"done"
