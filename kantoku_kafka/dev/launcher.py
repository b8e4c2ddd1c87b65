"""Run a command that must not outlive the process that asked for it. A script: standard library only.

``launcher.py LIFELINE_FD OWNER_PID SCRATCH COMMAND...`` becomes COMMAND (``exec``: the process id stays) and
leaves a watcher behind as its child. The watcher ends COMMAND as soon as the lifeline is closed: a pipe whose
other end the owner holds. A fork of the owner holds it too, so where possible (``pidfd_open``) the owner is
watched as well. The directory SCRATCH, which the owner can then no longer remove, the watcher removes.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import time

__all__ = ["main"]

GRACE_SECONDS = 5.0
"""How long COMMAND may take to end after SIGTERM before it gets SIGKILL."""


def main(arguments: list[str]) -> None:
    """Fork the watcher, then replace this process by the command.

    Args:
        arguments: lifeline file descriptor, process id of the owner, directory to remove after its death (or
            empty), command and its arguments.

    Raises:
        OSError: the command cannot be executed.
    """
    lifeline, owner, scratch = int(arguments[0]), int(arguments[1]), arguments[2]
    command = arguments[3:]
    watched = [lifeline, *_owner_handle(owner)]
    if os.getppid() != owner:
        sys.exit("the owner is gone")
    this = os.getpid()
    if os.fork() == 0:
        try:
            _watch(watched, this, scratch)
        finally:
            os._exit(0)
    for descriptor in watched:
        os.close(descriptor)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and exec would hand that on
    os.execvp(command[0], command)


def _owner_handle(owner: int) -> list[int]:
    opener = getattr(os, "pidfd_open", None)
    if opener is None:
        return []
    try:
        return [opener(owner)]
    except OSError:
        return []


def _watch(watched: list[int], command: int, scratch: str) -> None:
    # Only the lifeline may stay open here: an inherited output pipe would never reach its end.
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    events = select.poll()  # not select(), which refuses descriptors from 1024 on
    for descriptor in watched:
        events.register(descriptor, select.POLLIN)
    events.poll()
    orphaned = os.getppid() == command  # else it has ended, and the owner, who knows, let go
    deadline = time.monotonic() + GRACE_SECONDS
    number = signal.SIGTERM
    while os.getppid() == command:
        os.kill(command, number)
        time.sleep(0.05)
        if time.monotonic() > deadline:
            number = signal.SIGKILL
    if orphaned and scratch:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
