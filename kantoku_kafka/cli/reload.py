"""Running programs take up changed code: at SIGHUP, or whenever a file changes."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from kantoku_kafka.errors import UsageError

__all__ = ["Renewal", "on_hangup", "watch_files"]


def on_hangup(reload: Callable[[], None]) -> None:
    """Call this at SIGHUP. Not in a terminal: closing it sends the same signal, and means the end."""
    if sys.stdin is None or not sys.stdin.isatty():
        signal.signal(signal.SIGHUP, lambda *_: reload())


class Renewal:
    """Lets a process end, and begin anew as the same one: the command line as it was, the same process id.

    Parameters:
        stop: makes the process end in order.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self._asked = False

    def ask(self) -> None:
        """Stop, in order to begin anew. May be called from a signal handler."""
        self._asked = True
        self._stop()

    def forget(self) -> None:
        """End for good. May be called from a signal handler."""
        self._asked = False

    def begin_anew_if_asked(self) -> None:
        """Does not return if it was asked for. All that must not be left open is closed by now."""
        if self._asked:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # outlives exec: another one must not kill what just begins
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def watch_files(changed: Callable[[], None]) -> None:
    """Call this, from a thread, whenever Python files below the current directory have changed.

    Raises:
        UsageError: the extra ``reload`` is not installed.
    """
    try:
        from watchfiles import PythonFilter, watch
    except ImportError as error:
        raise UsageError("--reload needs an extra: pip install 'kantoku-kafka[reload]'.") from error

    def run() -> None:
        for _ in watch(Path.cwd(), watch_filter=PythonFilter(), raise_interrupt=False):
            changed()

    threading.Thread(target=run, name="kantoku-reload", daemon=True).start()
