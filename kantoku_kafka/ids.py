"""Task ids: UUIDs whose time makes a lookup cheap, or that every client derives from the same idempotency key."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from functools import lru_cache

__all__ = ["TaskIds", "idempotent_id", "new_task_id", "occurrence_id", "task_id_time_ms"]

_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
_AT_ONCE, _DIGITS = 256, 20


class TaskIds:
    """Makes new ids. Thread-safe, and safe to use on both sides of a fork."""

    def __init__(self) -> None:
        # Asking the system once for each would cost as much as all the rest of a spawn.
        self._random: list[str] = []
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._random.clear)

    def new(self) -> str:
        """A UUID version 7 in canonical text form."""
        try:
            digits = self._random.pop()
        except IndexError:
            digits = self._refill()
        return _version_7(time.time_ns() // 1_000_000, digits)

    def _refill(self) -> str:
        digits = os.urandom(_AT_ONCE * _DIGITS // 2).hex()
        first, *others = (digits[at : at + _DIGITS] for at in range(0, len(digits), _DIGITS))
        self._random += others
        return first


def new_task_id(time_ms: int | None = None) -> str:
    """One id, of now or of another time; who makes many keeps a :class:`TaskIds`."""
    return _version_7(time.time_ns() // 1_000_000 if time_ms is None else time_ms, os.urandom(_DIGITS // 2).hex())


def _version_7(time_ms: int, digits: str) -> str:
    """RFC 9562, section 5.7: the time, version, variant, and 74 random bits of the hexadecimal digits."""
    return f"{_head(time_ms)}{digits[:3]}-{_VARIANT[digits[3]]}{digits[4:7]}-{digits[7:19]}"


@lru_cache(maxsize=16)
def _head(ms: int) -> str:
    digits = f"{ms:012x}"
    return f"{digits[:8]}-{digits[8:]}-7"


def idempotent_id(namespace: str, task_type: str, key: str) -> str:
    """The UUID version 5 that every client derives from the same idempotency key."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{namespace}/{task_type}/{key}"))


def restarted_id(namespace: str, task_id: str, times: int = 0) -> str:
    """The id of a task spawned to restart another one: the same for all who restart it after so many restarts."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{namespace}/restart/{task_id}/{times}"))


def occurrence_id(namespace: str, schedule: str, due_us: int) -> str:
    """The id of the task that a schedule spawns for one of its times, whoever spawns it: a UUID version 8.

    Its time stands where version 7 has it; the rest is a hash of all three (RFC 9562, section 5.8).
    """
    digits = hashlib.sha256(f"{namespace}/{schedule}/{due_us}".encode()).hexdigest()
    made = _version_7(due_us // 1_000, digits)
    return f"{made[:14]}8{made[15:]}"


def packed_id(task_id: str) -> bytes:
    """The 16 bytes of a UUID in canonical text form; any other id in UTF-8."""
    if len(task_id) == 36:
        try:
            raw = bytes.fromhex(task_id.replace("-", ""))
        except ValueError:
            raw = b""
        if len(raw) == 16:
            return raw
    return b"\0" + task_id.encode()


def is_idempotent(task_id: str) -> bool:
    """Whether an id was derived, so that two spawns of it are one task: a UUID version 5 or 8."""
    return len(task_id) == 36 and task_id[14] in "58"


def task_id_time_ms(task_id: str) -> int | None:
    """When an id of version 7 or 8 was made, or due, in milliseconds since the epoch; None for any other id."""
    if len(task_id) == 36 and task_id[14] in "78":
        try:
            return uuid.UUID(task_id).int >> 80
        except ValueError:
            return None
    return None
