"""What stands between a user and a running executor, checked in the order in which it would show."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from importlib import metadata
from typing import Any

import confluent_kafka
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, ConsumerGroupType, KafkaException

from kantoku_kafka.errors import AccessDenied, BrokerUnavailable, KantokuError, TopicMismatch, UsageError
from kantoku_kafka.kafka.clients import Clients
from kantoku_kafka.kafka.drift import Difference, Seen, compare
from kantoku_kafka.kafka.group import describe
from kantoku_kafka.kafka.permissions import missing_rights, try_transaction
from kantoku_kafka.kafka.reachability import Finding, look
from kantoku_kafka.kafka.rights import Resource, Right
from kantoku_kafka.kafka.takeover import transactional_id
from kantoku_kafka.kafka.topics import broker_count, missing
from kantoku_kafka.kafka.user_settings import librdkafka_config
from kantoku_kafka.kafka.wanted import TopicPlan, plan
from kantoku_kafka.names import Topics

__all__ = ["Finding", "diagnose"]

_ASSIGNOR = "cooperative-sticky"
_MOST_SKEW_MS = 10_000
_MARK = b"doctor"
"""The key of a tombstone on the control topic: nobody takes it for anything, and compaction removes it."""


def diagnose(
    clients: Clients,
    topics: Topics,
    inputs: Sequence[str],
    rights: Iterable[Right],
    *,
    app: str | None = None,
    foreign: Sequence[str] = (),
    timers: bool = True,
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
) -> Iterator[Finding]:
    """Check one thing after the other; stops at the first failure that all later ones would only repeat.

    Parameters:
        inputs: the input topics of an app; what every namespace has is looked at anyway.
        rights: that the executor needs.
        app: ``MODULE:ATTRIBUTE``, for the commands that help.
        foreign: topics of others that have to be there.
        timers: whether the executor is to fire timers; else nothing that these need is looked at.
        now_ms: this machine's clock.
    """
    yield Finding("versions", _versions())
    yield from (reached := _reached(clients))
    if reached[-1].error is not None:
        return
    plans = [one for one in plan(topics, [], inputs=inputs) if timers or one.name != topics.schedules]
    steps = _Steps(clients, topics, plans, rights, app, foreign, now_ms)
    checks = [steps.broker, steps.topics, steps.policies, steps.rights, steps.transactions, steps.group, steps.clock]
    for check in [*checks, steps.timers] if timers else checks:
        try:
            yield Finding(check.__name__, check())
        except KantokuError as error:
            yield Finding(check.__name__, str(error), error)
            if check == steps.broker or isinstance(error, BrokerUnavailable):
                return


def _reached(clients: Clients) -> list[Finding]:
    """How far we get without a client of Kafka."""
    try:
        return look(librdkafka_config(clients.connection))
    except UsageError as error:  # a reference in the settings that leads nowhere
        return [Finding("settings", str(error), error)]


class _Steps:
    """What is asked of a cluster, once it answers. Each step tells what it found, or raises KantokuError."""

    def __init__(
        self,
        clients: Clients,
        topics: Topics,
        plans: Sequence[TopicPlan],
        rights: Iterable[Right],
        app: str | None,
        foreign: Sequence[str],
        now_ms: Callable[[], int],
    ) -> None:
        self._clients = clients
        self._topics = topics
        self._plans = plans
        self._rights = [right for right in rights if right.resource is not Resource.TRANSACTIONAL_ID]
        self._app = app
        self._foreign = foreign
        self._now_ms = now_ms

    def broker(self) -> str:
        self._clients.check()
        return f"the cluster takes us; brokers: {broker_count(self._clients)}"

    def topics(self) -> str:
        if ours := self._names(Seen.MISSING):
            raise TopicMismatch(f"Topics are missing: {_list(ours)}. Create them: {self._command('topics create')}")
        if hidden := self._names(Seen.NOTHING):
            raise AccessDenied(f"Topics that we may not look at: {_list(hidden)}. Ask for the right Describe.")
        if others := missing(self._clients, self._foreign):
            raise TopicMismatch(f"Topics of others are missing, not ours to create: {_list(others)}. See from_topics.")
        return f"all {len(self._plans)} are there: {_list(one.name for one in self._plans)}"

    def policies(self) -> str:
        harms = [(one.plan.name, harm) for one in self._differences for harm in one.harms]
        if harms:
            told = "; ".join(f"{name}: {harm} ({harm.remedy})" for name, harm in harms)
            raise TopicMismatch(f"{len(harms)} settings lose data: {told}.")
        unread = self._names(Seen.SHAPE)
        return f"nothing is known of {_list(unread)}" if unread else "nothing is lost by a setting"

    def rights(self) -> str:
        lacking = missing_rights(self._clients, self._rights)
        if lacking:
            told = _list(f"{right.operation} on {right.resource} {right.name}" for right in lacking)
            raise AccessDenied(f"{len(lacking)} rights are missing: {told}. See: {self._command('acls plan')}")
        return f"all {len(self._rights)} that an executor needs on topics and groups"

    def transactions(self) -> str:
        try_transaction(self._clients, transactional_id(self._topics.group, ""))
        return f"allowed for {self._topics.group}.*"

    def group(self) -> str:
        return self._members(self._topics.group)

    def clock(self) -> str:
        if self._topics.control in self._names(Seen.MISSING):
            return f"not compared: there is no {self._topics.control}"
        before_ms, stamped_ms, after_ms = self._stamp()
        if stamped_ms is None:
            return f"not compared: {self._topics.control} is not stamped by the broker"
        skew_ms = max(before_ms - stamped_ms, stamped_ms - after_ms, 0)
        if skew_ms > _MOST_SKEW_MS:
            way = "ahead of" if before_ms > stamped_ms else "behind"
            raise UsageError(
                f"The clock of this machine is {skew_ms / 1000:.0f} s {way} that of the broker: delays and schedules "
                "are off by that much, and results may not be found. Let both follow a time server (NTP)."
            )
        return f"within {skew_ms / 1000:g} s of the broker's"

    def timers(self) -> str:
        try_transaction(self._clients, transactional_id(self._topics.timers_group, ""))
        return self._members(self._topics.timers_group)

    @cached_property
    def _differences(self) -> list[Difference]:
        return compare(self._clients, self._plans)

    def _names(self, seen: Seen) -> list[str]:
        return [one.plan.name for one in self._differences if one.seen is seen]

    def _command(self, words: str) -> str:
        return f"kantoku-kafka {words}" + (", and name your app" if self._app is None else f" {self._app}")

    def _members(self, name: str) -> str:
        found = describe(self._clients, name)
        if not found.members:
            return f"{name}: nobody has joined yet"
        if found.type is ConsumerGroupType.CLASSIC and found.partition_assignor not in ("", _ASSIGNOR):
            raise UsageError(
                f"Group {name} has members that are no executors (they share by {found.partition_assignor}): stop "
                "them, or take another namespace (-n)."
            )
        return f"{name}: {len(found.members)} members, protocol {found.type.name.lower()}"

    def _stamp(self) -> tuple[int, int | None, int]:
        """Our time, the broker's, and ours again. Not the broker's where the control topic has that of writers."""
        seconds, control = self._clients.connection.timeout_seconds, self._topics.control
        reports: list[Any] = []
        producer = self._clients.producer(
            **{"enable.idempotence": False, "acks": 1, "message.timeout.ms": round(1_000 * seconds)}
        )
        doing = f"writing to topic {control}"
        try:
            producer.list_topics(control, timeout=seconds)  # connects
            before_ms = self._now_ms()
            producer.produce(control, None, _MARK, on_delivery=lambda *report: reports.append(report))
            producer.flush(seconds + 1)
        except KafkaException as error:
            raise self._clients.error(error.args[0], doing) from error
        after_ms = self._now_ms()
        if not reports:
            raise self._clients.unreachable(doing)
        refused, message = reports[0]
        if refused is not None:
            raise self._clients.error(refused, doing) from KafkaException(refused)
        kind, stamped_ms = message.timestamp()
        return before_ms, int(stamped_ms) if kind == TIMESTAMP_LOG_APPEND_TIME else None, after_ms


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)


def _versions() -> str:
    return (
        f"kantoku-kafka {metadata.version('kantoku-kafka')}, Python {platform.python_version()}, "
        f"confluent-kafka {confluent_kafka.__version__}, librdkafka {confluent_kafka.libversion()[0]}"
    )
