"""Who measures an executor is told by these calls: once a fetch, a checkpoint, a rebalance or a second, never a task.

A plugin that is a :class:`Meter` as well is told: ``class Mine(Plugin, Meter)``, ``Kantoku(..., plugins=[Mine()])``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence, Sized
from typing import NamedTuple

from kantoku_kafka.job import Job, Place
from kantoku_kafka.throttle import Throttle

__all__ = [
    "ClientStatistics",
    "Committed",
    "Fetched",
    "Meter",
    "Meters",
    "Standing",
    "TASKS",
    "TIMERS",
    "UNMETERED",
    "Undone",
]

_log = logging.getLogger(__name__)
_WARN_EVERY_SECONDS = 30.0
TASKS, TIMERS = "tasks", "timers"
"""The loops of an executor process, each with inputs and checkpoints of its own."""


class Committed(NamedTuple):
    """A checkpoint that was committed. ``ended``: the jobs it tells of, to be read only; ``size_bytes``: their data."""

    ended: Sequence[Job]
    records: int
    size_bytes: int
    seconds: float


class Undone(NamedTuple):
    """Of an input partition: below which offset all was taken in, and how much of that is not done."""

    taken_to: int
    records: int


class Standing(NamedTuple):
    """Where a loop stands. Mappings are by task type if nothing else is said.

    ``written_at_ms``: when the record of the oldest waiting task was written, since the epoch; of types of which any
    waits. ``pending``: timers and schedules, by topic; ``due_at_us``: of the next of them; None: there is none.
    """

    assigned: int
    paused: int = 0
    blocked: int = 0
    in_flight: Mapping[str, int] = {}
    waiting: Mapping[str, int] = {}
    written_at_ms: Mapping[str, int] = {}
    undone: Mapping[Place, Undone] = {}
    pending: Mapping[str, int] = {}
    due_at_us: int | None = None


class Fetched(NamedTuple):
    """How far the client is in a partition: what it fetches next, how many of its buffer were not taken, the end."""

    next_offset: int
    queued: int
    end: int


class ClientStatistics(NamedTuple):
    """What librdkafka tells of a consumer; the counts are since it was made.

    ``rtt_seconds``: to the group's coordinator, for requests to others wait there for records; 0: there was none.
    """

    requests: int
    request_timeouts: int
    sent_bytes: int
    received_bytes: int
    queue_records: int
    queue_bytes: int
    rtt_seconds: float
    fetched: Mapping[Place, Fetched]


class Vitals(NamedTuple):
    """Whether a process is well. ``turned_at``: when its loop went round last, by the monotonic clock; None: not yet.
    ``patience_seconds``: after so long without a turn, its group takes it for dead."""

    turned_at: float | None
    stopping: bool
    assigned: int
    patience_seconds: float


class Meter:
    """Base of all meters; override what is needed. ``loop`` is :data:`TASKS` or :data:`TIMERS`.

    The calls come from the threads of the loops and of their publishers, several at once: do not block, and guard what
    is shared. What a call raises is logged and changes nothing.
    """

    def received(self, loop: str, jobs: Sequence[Job]) -> None:
        """Tasks have come in and are about to wait for their start, with the headers that they then have; of the tasks'
        loop alone."""

    def committed(self, loop: str, checkpoint: Committed) -> None:
        """All of a checkpoint is in the topics."""

    def refused(self, loop: str) -> None:
        """Nothing of a checkpoint became visible; it is tried again."""

    def fenced(self, loop: str) -> None:
        """Another process took the transactional id of this one."""

    def rebalanced(self, loop: str, change: str) -> None:
        """Partitions were ``assigned``, ``revoked`` or ``lost``."""

    def stands(self, loop: str, standing: Standing) -> None:
        """Once a second; of the timers every 5 s."""

    def consumer(self, loop: str, statistics: ClientStatistics) -> None:
        """Every 5 s."""

    def heartbeat(self, delivered: bool) -> None:
        """A heartbeat has arrived on the control topic, or was lost."""


class Meters:
    """The meters that are told of one loop; false if there are none."""

    def __init__(self, meters: Sequence[Meter] = (), loop: str = TASKS) -> None:
        self._meters = tuple(meters)
        self._loop = loop
        self._warnings = Throttle(_WARN_EVERY_SECONDS)

    def __bool__(self) -> bool:
        return bool(self._meters)

    def rebalanced(self, change: str, partitions: Sized) -> None:
        """Tell each of a change; of none if there is no partition in it."""
        if partitions:
            self.tell(lambda meter, loop: meter.rebalanced(loop, change))

    def tell(self, say: Callable[[Meter, str], None]) -> None:
        """Tell each; one that raises is logged now and then, and the next one is told."""
        for meter in self._meters:
            try:
                say(meter, self._loop)
            except Exception:  # noqa: BLE001 - what is measured goes on whatever the meter does
                if self._warnings.passes(type(meter).__qualname__) is not None:
                    _log.exception("a meter raised", extra={"action": "meter", "meter": type(meter).__name__})


UNMETERED = Meters()
