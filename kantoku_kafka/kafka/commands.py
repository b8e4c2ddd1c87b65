"""Commands on the control topic, as every executor reads them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from kantoku_kafka.avro.control import decode_command
from kantoku_kafka.errors import EnvelopeError, KantokuError, TopicMismatch
from kantoku_kafka.kafka.clients import Clients
from kantoku_kafka.kafka.heartbeats import PREFIX
from kantoku_kafka.kafka.scan import Record, Scan, beginnings, ends
from kantoku_kafka.model import Command
from kantoku_kafka.throttle import Throttle

__all__ = ["Commands"]

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 0.1
_AGAIN_SECONDS = 5.0
_CATCH_UP_SECONDS = 5.0
_WARN_EVERY_SECONDS = 300.0


class Commands:
    """Reads the control topic in a thread of its own: all that it holds, then what is added, until the block ends.

    The block begins when what was there is handed over, or after 5 s: a task that was cancelled before must not run.

    Parameters:
        clients: the connection.
        topic: of the control records.
        deliver: takes commands, in the other thread.
    """

    def __init__(self, clients: Clients, topic: str, deliver: Callable[[Sequence[Command]], None]) -> None:
        self._clients = clients
        self._topic = topic
        self._deliver = deliver
        self._warnings = Throttle(_WARN_EVERY_SECONDS)
        self._end = threading.Event()
        self._caught_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kantoku-control", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._caught_up.wait(_CATCH_UP_SECONDS):
            _log.warning("the control topic was not read to its end yet", extra={"action": "control_late"})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join(_AGAIN_SECONDS)

    def _run(self) -> None:
        offsets: dict[int, int] | None = None
        while not self._end.is_set():
            try:
                if offsets is None:
                    offsets = beginnings(self._clients, self._topic)
                self._follow(offsets)
            except KantokuError as error:
                if self._warnings.passes(type(error).__name__) is not None:
                    _log.warning("no commands are heard: %s", error, extra={"action": "no_commands"})
                self._caught_up.set()
                if isinstance(error, TopicMismatch):  # if it is there again it is another one
                    offsets = None
                self._end.wait(_AGAIN_SECONDS)

    def _follow(self, offsets: dict[int, int]) -> None:
        present = ends(self._clients, self._topic)
        scan = Scan(self._clients, self._topic, offsets)
        for records in scan.batches(timeout_seconds=_LOOK_SECONDS):
            commands = [command for command in map(_command, records) if command is not None]
            if commands:
                self._deliver(commands)
            offsets |= scan.offsets
            if all(scan.offsets.get(partition, end) >= end for partition, end in present.items()):
                self._caught_up.set()
            if self._end.is_set():
                return


def _command(record: Record) -> Command | None:
    if (record.key() or b"").startswith(PREFIX):
        return None
    value = record.value()
    if not value:
        return None
    try:
        return decode_command(value)
    except EnvelopeError as error:
        _log.warning("a command is passed over: %s", error, extra={"action": "unreadable_command"})
        return None
