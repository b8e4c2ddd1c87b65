"""Processes, for functions that crash, that leak, or that hold the interpreter lock."""

from __future__ import annotations

import logging
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from kantoku_kafka.errors import UsageError
from kantoku_kafka.job import Job
from kantoku_kafka.pools.crew import Crew
from kantoku_kafka.pools.hello import Hello

__all__ = ["ProcessExecutor"]

_log = logging.getLogger(__name__)


class ProcessExecutor:
    """A number of child processes, each of which runs one task at a time; crashes are the task's result.

    The children are new interpreters that import the app themselves. One I/O thread owns them all. A job whose
    child dies is CRASHED; one that is cancelled takes its child with it, and comes back without an outcome.
    SIGTERM from elsewhere ends no child: a service that stops may signal all its processes, and then drain.

    Parameters:
        hello: what the children have to know.
        concurrency: number of children; all but the first are started when they are needed.
        ready_seconds: how long a child may take to import the app; default 30.
        grace_seconds: from SIGTERM to SIGKILL; default 0.5.

    Raises:
        UsageError: in a child, whose import of the app must not run it.
    """

    def __init__(
        self, hello: Hello, concurrency: int, *, ready_seconds: float = 30.0, grace_seconds: float = 0.5
    ) -> None:
        if _is_child():
            raise UsageError(
                f"Importing {hello.reference} starts an executor: put that under `if __name__ == '__main__':`."
            )
        self.backlog = concurrency
        self._options = hello, concurrency, ready_seconds, grace_seconds
        self._thread: threading.Thread | None = None
        self._selector = selectors.DefaultSelector()
        self._awake, self._alarm = socket.socketpair()
        self._selector.register(self._awake, selectors.EVENT_READ)
        # Under the lock: what other threads want of the I/O thread.
        self._lock = threading.Lock()
        self._alarmed = self._closed = False
        self._submitted: list[Job] = []
        self._cancelled: list[Job] = []
        self._close_by: float | None = None

    def start(self, deliver: Callable[[Job], None]) -> None:
        """Start the first child; returns when it has imported the app.

        Raises:
            UsageError: it could not, and why.
        """
        crew = Crew(self._selector, deliver, *self._options)
        self._thread = threading.Thread(target=self._work, args=[crew], name="kantoku-processes", daemon=True)
        self._thread.start()
        try:
            crew.first.result()
        except BaseException:
            self.close(0.0)
            raise

    def submit(self, jobs: Sequence[Job]) -> None:
        with self._lock:
            self._submitted += jobs
            self._wake()

    def cancel(self, jobs: Iterable[Job], reason: str) -> None:
        marked = list(jobs)
        for job in marked:
            job.cancelled = reason
        with self._lock:
            self._cancelled += marked
            self._wake()

    def close(self, timeout_seconds: float) -> None:
        """Idle children end by themselves, busy ones by SIGTERM, what remains after the timeout by SIGKILL."""
        with self._lock:
            if self._closed:
                return
            self._close_by = time.monotonic() + timeout_seconds
            self._wake()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            self._closed = True
            self._selector.close()
            self._awake.close()
            self._alarm.close()

    def _wake(self) -> None:
        """Once for all that the I/O thread has not seen yet."""
        if not self._alarmed and not self._closed:
            self._alarmed = True
            self._alarm.send(b"\0")

    # --- below: only on the I/O thread

    def _work(self, crew: Crew) -> None:
        """Until closed. What fails here is none of a task's doing: all children are replaced then."""
        while True:
            try:
                self._serve(crew)
                return
            except Exception:  # noqa: BLE001 - a pool that is silently dead would block its partitions
                _log.exception("the process pool failed: its children are replaced", extra={"action": "pool_failed"})
            finally:
                crew.abandon()
            crew = crew.successor()

    def _serve(self, crew: Crew) -> None:
        """Hand out, wait, read and write, look after; until closed."""
        crew.start_worker()
        while not crew.closed:
            crew.hand_out()
            for key, events in self._selector.select(crew.wait_seconds()):
                if key.data is None:
                    self._obey(crew)
                else:
                    crew.attend(key.data, events)
            crew.look_after()

    def _obey(self, crew: Crew) -> None:
        """Take over what other threads want."""
        with self._lock:
            self._awake.recv(1)
            self._alarmed = False
            submitted, self._submitted = self._submitted, []
            cancelled, self._cancelled = self._cancelled, []
            close_by, self._close_by = self._close_by, None
        crew.add(submitted)
        if cancelled:
            crew.cancel(set(cancelled))
        if close_by is not None:
            crew.close(close_by)


def _is_child() -> bool:
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return spec is not None and spec.name == "kantoku_kafka.pools.child"
