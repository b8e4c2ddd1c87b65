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
        reached = _Countdown(step, int(count))
        replace(ExactlyOnceTransaction, "begin", lambda old: _begin(old, reached))
        replace(ExactlyOnceTransaction, "commit", lambda old: _commit(old, reached))
        replace(ExactlyOnceTransaction, "_send_offsets", lambda old: _send_offsets(old, reached))
        replace(KafkaInputs, "_on_revoke", lambda old: _on_revoke(old, reached))


class _Countdown:
    """Whether a step is reached for the last time. Thread-safe: timers and tasks have a transaction each."""

    def __init__(self, step: str, count: int) -> None:
        self._step = step
        self._left = count
        self._lock = threading.Lock()

    def __call__(self, step: str) -> bool:
        with self._lock:
            self._left -= step == self._step
            return step == self._step and self._left == 0


def _begin(begin: Callable[..., None], reached: _Countdown) -> Callable[..., None]:
    def failing(self: ExactlyOnceTransaction) -> None:
        begin(self)
        if reached("before-produce"):
            _die("before-produce")

    return failing


def _commit(commit: Callable[..., None], reached: _Countdown) -> Callable[..., None]:
    def failing(self: ExactlyOnceTransaction, offsets: Sequence[Any]) -> None:
        if reached("after-produce"):
            self._producer.flush(5)  # the records stand there, and nothing else
            _die("after-produce")
        commit(self, offsets)
        if reached("after-commit"):
            _die("after-commit")

    return failing


def _send_offsets(send: Callable[..., None], reached: _Countdown) -> Callable[..., None]:
    def failing(self: ExactlyOnceTransaction, offsets: Sequence[Any], group_metadata: Any) -> None:
        send(self, offsets, group_metadata)
        if reached("after-send-offsets"):
            _die("after-send-offsets")
        if reached("during-commit"):
            threading.Thread(target=_die_soon, daemon=True).start()

    return failing


def _on_revoke(revoke: Callable[..., None], reached: _Countdown) -> Callable[..., None]:
    def failing(self: KafkaInputs, *arguments: Any) -> None:
        if reached("revoked"):
            _die("revoked")
        revoke(self, *arguments)

    return failing


def _die_soon() -> None:
    time.sleep(random.uniform(0, _LATEST_SECONDS))
    _die("during-commit")


def _die(step: str) -> None:
    os.write(2, DEATH.format(step).encode())
    os.kill(os.getpid(), signal.SIGKILL)
