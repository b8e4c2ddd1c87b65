"""An executor that is killed at the worst moment: right before or right after its third commit, as DIE says."""

from __future__ import annotations

import os
import signal
from typing import Any

from confluent_kafka import Producer

from kantoku_kafka import Kantoku
from kantoku_kafka.kafka.clients import Clients

kan = Kantoku("dying")


@kan.task("echo", pool="inline")
def echo(data: bytes) -> bytes:
    return data


class DiesAtACommit:
    """A real producer."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._commits = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def commit_transaction(self, timeout: float) -> None:
        self._commits += 1
        if self._commits == 3 and os.environ["DIE"] == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        self._producer.commit_transaction(timeout)
        if self._commits == 3:
            os.kill(os.getpid(), signal.SIGKILL)


if "DIE" in os.environ:
    made = Clients.producer
    Clients.producer = lambda self, **settings: DiesAtACommit(made(self, **settings))  # type: ignore[assignment, method-assign, return-value]
