"""How the topics of a cluster differ from what they should be, and which differences lose data. Changes nothing."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from confluent_kafka import KafkaError
from confluent_kafka.admin import TopicDescription  # type: ignore[attr-defined]  # re-exported without __all__

from kantoku_kafka.configuration.masks import masked
from kantoku_kafka.errors import KantokuError
from kantoku_kafka.kafka.clients import Clients
from kantoku_kafka.kafka.codes import NO_TOPIC
from kantoku_kafka.kafka.topics import broker_count, described, topic_configs
from kantoku_kafka.kafka.wanted import TopicPlan

__all__ = ["Deviation", "Difference", "Seen", "Shape", "compare", "deviations", "warn_of_losses"]

_log = logging.getLogger(__name__)
_DAY_MS = 86_400_000
_WARNING_SECONDS = 0.5


class Shape(NamedTuple):
    """How many partitions a topic has, and how many replicas each of them."""

    partitions: int
    replicas: int


@dataclass(frozen=True, slots=True)
class Deviation:
    """One setting of a topic that is not as planned.

    Attributes:
        setting: Kafka's name of it, or ``partitions``, ``replication.factor``.
        harm: what is lost by it, or which promise is broken; empty: it is the user's choice.
        remedy: how it is changed.
    """

    setting: str
    actual: str
    wanted: str
    harm: str
    remedy: str

    def __str__(self) -> str:
        if not self.harm:
            return f"{self.setting} is {self.actual}, planned {self.wanted}"
        return f"{self.setting} is {self.actual}, should be {self.wanted}: {self.harm}"


class Seen(StrEnum):
    """What of a topic there is to see."""

    MISSING = "missing"
    """There is no such topic."""
    NOTHING = "nothing"
    """We may not look at it, if it is there."""
    SHAPE = "shape"
    """Partitions and replicas: we may not read its settings."""
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Difference:
    """How one topic differs from its plan, as far as it is seen."""

    plan: TopicPlan
    seen: Seen
    deviations: tuple[Deviation, ...] = ()

    @property
    def missing(self) -> bool:
        """There is no such topic."""
        return self.seen is Seen.MISSING

    @property
    def harms(self) -> list[Deviation]:
        """Those by which something is lost."""
        return [one for one in self.deviations if one.harm]


def compare(clients: Clients, plans: Iterable[TopicPlan], *, seconds: float | None = None) -> list[Difference]:
    """How the cluster differs from the plans, by three requests.

    Parameters:
        seconds: for each of them; default: the connection's timeout.

    Raises:
        AccessDenied, BrokerUnavailable.
    """
    wanted = list(plans)
    found = described(clients, [p.name for p in wanted], seconds=seconds)
    brokers = broker_count(clients, seconds)
    existing = [name for name, one in found.items() if not isinstance(one, KafkaError)]
    configs = topic_configs(clients, existing, seconds)
    servers = masked("bootstrap.servers", clients.connection.bootstrap_servers)
    return [_difference(one, found[one.name], configs.get(one.name), brokers, servers) for one in wanted]


def _difference(
    plan: TopicPlan, found: TopicDescription | KafkaError, config: Mapping[str, str] | None, brokers: int, servers: str
) -> Difference:
    if isinstance(found, KafkaError):
        return Difference(plan, Seen.MISSING if found.code() in NO_TOPIC else Seen.NOTHING)
    shape = Shape(len(found.partitions), max((len(p.replicas) for p in found.partitions), default=0))
    differ = tuple(deviations(plan, shape, config or {}, brokers, servers))
    return Difference(plan, Seen.SHAPE if config is None else Seen.ALL, differ)


def warn_of_losses(clients: Clients, plans: Iterable[TopicPlan]) -> None:
    """Say in the log by what data may be lost: one line for each setting. What we may not read, nothing is said of.

    It takes 3 requests, and no more than some 1.5 s: nobody waits for it longer.
    """
    try:
        differences = compare(clients, plans, seconds=_WARNING_SECONDS)
    except KantokuError as error:
        _log.debug("the topics were not compared: %s", error, extra={"action": "topics_unread"})
        return
    alike: dict[tuple[str, str, str], list[tuple[str, Deviation]]] = {}
    for difference in differences:
        for one in difference.harms:
            alike.setdefault((one.setting, one.actual, one.wanted), []).append((difference.plan.name, one))
    for (topic, first), *rest in alike.values():
        others = f"; so it is with {', '.join(name for name, _ in rest)}" if rest else ""
        text = "topic %s: %s. Remedy: %s%s"
        _log.warning(text, topic, first, first.remedy, others, extra={"action": "topic_loses", "topic": topic})


def deviations(
    plan: TopicPlan, shape: Shape, config: Mapping[str, str], brokers: int, bootstrap_servers: str
) -> Iterator[Deviation]:
    """What of a topic is not as planned. Pure.

    Parameters:
        config: its settings; of those that are not named nothing is said.
        brokers: how many the cluster has.
        bootstrap_servers: where the commands of the remedies find it.
    """
    alter = f"--bootstrap-server {shlex.quote(bootstrap_servers)} --alter --topic {plan.name}"
    if shape.partitions != plan.partitions:
        remedy = (
            "leave it: the number is for ever"
            if plan.fixed
            else f"kafka-topics.sh {alter} --partitions {plan.partitions}"
        )
        yield Deviation("partitions", str(shape.partitions), str(plan.partitions), "", remedy)
    factor = plan.replication_factor or min(brokers, 3)
    if shape.replicas < factor and (plan.replication_factor is not None or shape.replicas == 1):
        harm = f"{plan.holds} are lost with one broker's disk" if shape.replicas == 1 else ""
        yield Deviation(
            "replication.factor", str(shape.replicas), str(factor), harm, "kafka-reassign-partitions.sh, or a new topic"
        )
    for setting, wanted in {**plan.config, **_implied(plan, shape)}.items():
        actual = config.get(setting)
        if actual is not None and not _same(setting, actual, wanted):
            harm = _harm(plan.holds, setting, actual, wanted)
            remedy = f"kafka-configs.sh {alter} --add-config {_given(setting, wanted)}"
            yield Deviation(setting, actual, wanted, harm, remedy)


def _implied(plan: TopicPlan, shape: Shape) -> dict[str, str]:
    """What nobody sets, because it is Kafka's default or follows from the number of replicas."""
    implied = {"unclean.leader.election.enable": "false"}
    if "delete" in plan.config["cleanup.policy"]:
        implied["retention.bytes"] = "-1"
    if shape.replicas > 2:
        implied["min.insync.replicas"] = "2"
    return implied


def _same(setting: str, actual: str, wanted: str) -> bool:
    if setting == "cleanup.policy":
        return set(actual.split(",")) == set(wanted.split(","))
    # More copies than asked for is not less.
    return actual == wanted or (setting == "min.insync.replicas" and int(actual) > int(wanted))


def _harm(holds: str, setting: str, actual: str, wanted: str) -> str:
    """What such a difference costs; nothing where more is kept than planned, or a little less."""
    match setting:
        case "cleanup.policy":
            if "compact" in actual and "compact" not in wanted:
                return f"{holds} with one key replace each other"
            if "delete" in actual and "delete" not in wanted:
                return f"{holds} that are older than its retention are lost"
            return ""
        case "retention.ms" if 0 <= int(actual) < min(_DAY_MS, int(wanted)):
            return f"{holds} are lost after {int(actual) / 3_600_000:g} h"
        case "retention.bytes" if int(actual) >= 0:
            return f"the oldest {holds} are lost where a partition grows beyond that"
        case "max.message.bytes" if int(actual) < int(wanted):
            return f"{holds} that are as large as inputs take are refused"
        case "message.timestamp.type":
            return f"the clocks of writers say when {holds} were written: who asks for a time may miss some"
        case "min.insync.replicas":
            return f"{holds} that were acknowledged are lost with one broker"
        case "unclean.leader.election.enable":
            return f"{holds} are lost when a replica that lags becomes the leader"
    return ""


def _given(setting: str, wanted: str) -> str:
    value = f"[{wanted}]" if "," in wanted else wanted  # else Kafka's tool takes it for two settings
    return shlex.quote(f"{setting}={value}")
