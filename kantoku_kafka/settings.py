"""Frozen, validated settings. Durations in seconds, sizes in bytes; secrets are masked in every repr."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import TypeVar

from kantoku_kafka.configuration.masks import masked
from kantoku_kafka.configuration.references import has_reference, resolved
from kantoku_kafka.errors import UsageError

__all__ = [
    "Connection",
    "EventDetail",
    "ExecutorSettings",
    "GroupProtocol",
    "Guarantee",
    "PoolKind",
    "check_addresses",
    "choice",
]

E = TypeVar("E", bound=StrEnum)

MAX_SLOT_BYTES = 64
"""Of a slot's name in UTF-8: it stands in the commit metadata."""

_MAX_POLL_MS = 300_000  # librdkafka's default
_MOST_PER_POLL = 1_000_000  # confluent-kafka's bound of one consume()


class Guarantee(StrEnum):
    """What is promised of results; execution is at least once in both."""

    EXACTLY_ONCE = "exactly-once"
    AT_LEAST_ONCE = "at-least-once"


class EventDetail(StrEnum):
    """Which events are logged: every step, only the one that ends a task, or none."""

    FULL = "full"
    TERMINAL = "terminal"
    OFF = "off"


class GroupProtocol(StrEnum):
    """How executors share partitions: the classic protocol, or KIP-848."""

    CLASSIC = "classic"
    CONSUMER = "consumer"


class PoolKind(StrEnum):
    """Where a task function runs."""

    INLINE = "inline"
    THREAD = "thread"
    ASYNCIO = "asyncio"
    PROCESS = "process"


@dataclass(frozen=True, kw_only=True)
class Connection:
    """How to reach Kafka.

    Parameters:
        bootstrap_servers: ``host:port[,host:port...]``.
        config: further librdkafka settings, given to every client; the program's own settings win where a
            promise depends on them. Values may refer to secrets, as ``${env:NAME}`` or ``${file:/path}``: they are
            looked up when a client is made.
        timeout_seconds: how long the first contact and each administrative request may take; default 10.
        origins: where settings come from, for people; default: from the app's own code.
    """

    bootstrap_servers: str
    config: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    timeout_seconds: float = 10.0
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if not has_reference(self.bootstrap_servers):
            check_addresses(self.bootstrap_servers)
        _positive(self, "timeout_seconds")

    @property
    def max_poll_seconds(self) -> float:
        """How long a member may go without a poll before its group takes it for dead."""
        try:
            return float(resolved("max.poll.interval.ms", self.config.get("max.poll.interval.ms", _MAX_POLL_MS))) / 1000
        except ValueError:  # librdkafka refuses it, and says so
            return _MAX_POLL_MS / 1000

    def __repr__(self) -> str:
        servers = masked("bootstrap.servers", self.bootstrap_servers)
        shown = {name: masked(name, value) for name, value in self.config.items()}
        return f"Connection(bootstrap_servers={servers!r}, config={shown!r})"


@dataclass(frozen=True, kw_only=True)
class ExecutorSettings:
    """How an executor process runs.

    Parameters:
        concurrency: tasks at once in each pool of this process; default 16.
        guarantee: exactly-once results (default) or at-least-once.
        events: which events are logged; default full.
        group_protocol: classic (default) or consumer (KIP-848).
        slot: a stable name of this process; makes the membership static. None: the lowest free one of this host.
        pool: overrides the pool of every task type; None: as the types say.
        max_batch: results in one checkpoint; default 2,000.
        max_batch_bytes: data of the results in one checkpoint; default 8 MiB.
        max_waiting: tasks fetched and not yet started; beyond it partitions are paused; default 10,000.
        max_waiting_bytes: the same by size of the records; default 64 MiB.
        drain_seconds: how long running tasks may go on after SIGTERM; default 25.
        revoke_drain_seconds: the same when partitions are revoked; default 5.
        timeout_seconds: how long one request to Kafka may take before it counts as failed; default 15.
        heartbeat_seconds: between two heartbeats on the control topic; default 5, 0: none.
        max_tasks_per_child: after so many tasks a child of pool ``process`` is replaced; default 0, never.
        max_memory_per_child_bytes: what a child of pool ``process`` may have; a task that needs more is CRASHED, a
            child that has used most of it is replaced after its task; default 0, no limit.
        max_tasks: after so many tasks the executor drains and ends; default 0, never.
        burst: end when nothing is left to do of what stood on the inputs when they were assigned; default no.
        timers: whether this process also puts tasks onto their inputs when they are due; default yes.
    """

    concurrency: int = 16
    guarantee: Guarantee = Guarantee.EXACTLY_ONCE
    events: EventDetail = EventDetail.FULL
    group_protocol: GroupProtocol = GroupProtocol.CLASSIC
    slot: str | None = None
    pool: PoolKind | None = None
    max_batch: int = 2_000
    max_batch_bytes: int = 8 << 20
    max_waiting: int = 10_000
    max_waiting_bytes: int = 64 << 20
    drain_seconds: float = 25.0
    revoke_drain_seconds: float = 5.0
    timeout_seconds: float = 15.0
    heartbeat_seconds: float = 5.0
    max_tasks_per_child: int = 0
    max_memory_per_child_bytes: int = 0
    max_tasks: int = 0
    burst: bool = False
    timers: bool = True

    def __post_init__(self) -> None:
        for item in fields(self):
            if type(getattr(self, item.name)) in (int, float):
                _positive(self, item.name)
        for name, kind in _CHOICES.items():
            object.__setattr__(self, name, choice(kind, name.replace("_", " "), getattr(self, name)))
        if self.pool is not None:
            object.__setattr__(self, "pool", choice(PoolKind, "pool", self.pool))
        if self.max_batch > _MOST_PER_POLL:
            raise UsageError(f"max batch is at most {_MOST_PER_POLL:,}, not {self.max_batch:,}.")
        if self.slot is not None and not _SLOT.fullmatch(self.slot):
            raise UsageError(
                f"--slot takes a name of 1 to {MAX_SLOT_BYTES} letters, digits, '.', '_' and '-', not {self.slot!r}."
            )


def check_addresses(bootstrap_servers: str, shown: str | None = None) -> None:
    """Raise UsageError unless it is ``host:port[,host:port...]``; ``shown``: what the error quotes instead."""
    if "@" in bootstrap_servers:
        raise UsageError("A broker address, HOST:PORT, has no user before an '@': set sasl.username and sasl.password.")
    for address in bootstrap_servers.split(","):
        match = _ADDRESS.fullmatch(address.strip())
        if match is None or not 0 < int(match[1]) < 65536:
            quoted = masked("bootstrap.servers", shown or address or bootstrap_servers)
            raise UsageError(f"{quoted!r} is no broker address: give --bootstrap-servers as HOST:PORT[,HOST:PORT...].")


# librdkafka takes a protocol before it, and of IPv6 without brackets all for the host.
_ADDRESS = re.compile(r"(?:(?i:(?:SASL_)?(?:PLAINTEXT|SSL))://)?(?:[\w.-]+|\[[0-9A-Fa-f:.]+(?:%\w+)?\]):([0-9]{1,5})")
_SLOT = re.compile(rf"[A-Za-z0-9._-]{{1,{MAX_SLOT_BYTES}}}")
_CHOICES: Mapping[str, type[StrEnum]] = {
    "guarantee": Guarantee,
    "events": EventDetail,
    "group_protocol": GroupProtocol,
}


_ZERO_TOO = {
    "drain_seconds",
    "revoke_drain_seconds",
    "heartbeat_seconds",
    "max_tasks",
    "max_tasks_per_child",
    "max_memory_per_child_bytes",
}


def choice(kind: type[E], what: str, value: str) -> E:
    """The member of an enumeration that ``value`` is or names. Raises UsageError."""
    try:
        return kind(value)
    except ValueError:
        raise UsageError(f"{value!r} is no {what}: choose one of {', '.join(kind)}.") from None


def _positive(settings: object, name: str) -> None:
    value = getattr(settings, name)
    zero_too = name in _ZERO_TOO
    if not (math.isfinite(value) and (value > 0 or (zero_too and value == 0))):
        raise UsageError(f"{name.replace('_', ' ')} must be {'0 or more' if zero_too else 'positive'}, not {value}.")
