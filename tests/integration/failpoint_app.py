"""``retry_app`` in a process that kills itself at a chosen step of one of its checkpoints.

``FAILPOINT`` is ``STEP:N``: at the N-th time that a transaction of this process comes to the step. In the file named by
``DEATHS`` each death leaves a byte.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from retry_app import kan

from kantoku_kafka.kafka.transaction import ExactlyOnceTransaction

__all__ = ["STEPS", "kan"]

STEPS = ("before-produce", "after-produce", "after-send-offsets", "during-commit", "after-commit")
_step, _, _count = os.environ.get("FAILPOINT", "").partition(":")
_left = int(_count or 0)
_lock = threading.Lock()


def die() -> None:
    descriptor = os.open(os.environ["DEATHS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, b".")
    os.kill(os.getpid(), signal.SIGKILL)


def reached(step: str) -> bool:
    global _left
    if step != _step:
        return False
    with _lock:
        _left -= 1
        return _left == 0


class Failing(ExactlyOnceTransaction):
    """The steps of the product's own transaction, with a death between two of them."""

    def begin(self) -> None:
        super().begin()
        if reached("before-produce"):
            die()

    def commit(self, offsets: Sequence[Any]) -> None:
        if reached("after-produce"):
            self._producer.flush(5)  # the records stand there, and nothing else
            die()
        super().commit(offsets)
        if reached("after-commit"):
            die()

    def _send_offsets(self, offsets: Sequence[Any], group_metadata: Any) -> None:
        super()._send_offsets(offsets, group_metadata)
        if reached("after-send-offsets"):
            die()
        if reached("during-commit"):
            delay_seconds = random.uniform(0, 0.004)
            threading.Thread(target=_later, args=(delay_seconds, die), daemon=True).start()


def _later(seconds: float, action: Callable[[], None]) -> None:
    time.sleep(seconds)
    action()


if _step:
    import kantoku_kafka.kafka.member as member

    member.ExactlyOnceTransaction = Failing  # type: ignore[misc]  # that is the point
