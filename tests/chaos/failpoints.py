"""A process that kills itself: ``STEP:N``, at the N-th time it comes to this step of a checkpoint or of a rebalance."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from kantoku_kafka.kafka.inputs import KafkaInputs
from kantoku_kafka.kafka.transaction import ExactlyOnceTransaction
from tests.chaos.patching import replace

__all__ = ["DEATH", "STEPS", "install"]

STEPS = ("before-produce", "after-produce", "after-send-offsets", "during-commit", "after-commit", "revoked")
DEATH = "this process dies {}\n"
"""What it says on stderr before."""
_LATEST_SECONDS = 0.004


def install(failpoint: str) -> None:
    """Make this process such a one; nothing happens if the text is empty."""
    step, _, count = failpoint.partition(":")
    if step:
        here = _Failpoint(step, int(count))
        replace(ExactlyOnceTransaction, "begin", lambda old: _begin(old, here))
        replace(ExactlyOnceTransaction, "commit", lambda old: _commit(old, here))
        replace(ExactlyOnceTransaction, "_send_offsets", lambda old: _send_offsets(old, here))
        replace(KafkaInputs, "_on_revoke", lambda old: _on_revoke(old, here))


def _die(step: str) -> None:
    os.write(2, DEATH.format(step).encode())
    os.kill(os.getpid(), signal.SIGKILL)


class _Failpoint:
    """Is told each step that is reached, and dies at the last of them. Thread-safe."""

    def __init__(self, step: str, count: int) -> None:
        self._step = step
        self._left = count
        self._lock = threading.Lock()

    def __call__(self, step: str, die: Callable[[str], None] = _die) -> None:
        with self._lock:
            self._left -= step == self._step
            over = step == self._step and self._left == 0
        if over:
            die(step)


def _begin(begin: Callable[..., None], here: _Failpoint) -> Callable[..., None]:
    def failing(self: ExactlyOnceTransaction) -> None:
        begin(self)
        here("before-produce")

    return failing


def _commit(commit: Callable[..., None], here: _Failpoint) -> Callable[..., None]:
    def failing(self: ExactlyOnceTransaction, offsets: Sequence[Any]) -> None:
        def die_with_records_there(step: str) -> None:
            self._producer.flush(5)
            _die(step)

        here("after-produce", die_with_records_there)
        commit(self, offsets)
        here("after-commit")

    return failing


def _send_offsets(send: Callable[..., None], here: _Failpoint) -> Callable[..., None]:
    def failing(self: ExactlyOnceTransaction, offsets: Sequence[Any], group_metadata: Any) -> None:
        send(self, offsets, group_metadata)
        here("after-send-offsets")
        here("during-commit", lambda step: threading.Thread(target=_die_soon, args=(step,), daemon=True).start())

    return failing


def _on_revoke(revoke: Callable[..., None], here: _Failpoint) -> Callable[..., None]:
    def failing(self: KafkaInputs, *arguments: Any) -> None:
        here("revoked")
        revoke(self, *arguments)

    return failing


def _die_soon(step: str) -> None:
    time.sleep(random.uniform(0, _LATEST_SECONDS))
    _die(step)
