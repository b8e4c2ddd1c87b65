"""Which slot a process takes: a name that a restart finds again, so that it ends what the killed one left open."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from kantoku_kafka.errors import UsageError
from kantoku_kafka.settings import MAX_SLOT_BYTES

__all__ = ["Slot", "executor_id"]

_MAX_SLOTS = 1000


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot held by this process. The lock of an implicit one goes with the process, however it ends."""

    name: str
    explicit: bool
    lock: IO[bytes] | None = None

    @classmethod
    def take(cls, explicit: str | None, namespace: str, directory: Path | None = None) -> Slot:
        """The explicit slot, or the lowest one that is free on this host for this namespace.

        Raises:
            UsageError: if the lock files cannot be written.
        """
        if explicit is not None:
            return cls(explicit, True)
        folder = directory
        try:
            folder = folder or Path(tempfile.gettempdir()) / f"kantoku-kafka-{os.getuid()}"
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_ours(folder)
            for k in range(_MAX_SLOTS):
                lock = _opened(folder / f"{namespace}.{k}.lock")
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    lock.close()
                    continue
                return cls(f"{host()}.{k}", False, lock)
        except OSError as error:
            where = folder or "no temporary directory"
            raise UsageError(f"No slot: {where} cannot be written ({error.strerror}); give --slot NAME.") from error
        raise UsageError(f"All {_MAX_SLOTS} slots of this host are taken; give --slot NAME.")

    def elsewhere(self) -> Slot:
        """A random slot, for when another process turns out to use this one."""
        return Slot(f"{host()}.{uuid.uuid4().hex[:8]}", False, self.lock)

    def release(self) -> None:
        """Let another process have it. Idempotent."""
        if self.lock is not None:
            self.lock.close()


def _check_ours(folder: Path) -> None:
    """In a directory for all, somebody else may have been there first, to have us write where a link leads."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UsageError(f"No slot: {folder} is not a directory of ours alone; remove it, or give --slot NAME.")


def _opened(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "r+b")


def executor_id() -> str:
    """``{host}-{pid}-{short random}``: unique for every process that ever runs."""
    return f"{host()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"


def host() -> str:
    """The name of this machine, with which slots begin."""
    return socket.gethostname()[: MAX_SLOT_BYTES - 10]
