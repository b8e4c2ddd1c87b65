"""The topics of a cluster: what is there, and how what is missing is created."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # confluent_kafka re-exports without __all__
    AclOperation,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
    TopicDescription,
)

from kantoku_kafka.errors import TopicMismatch
from kantoku_kafka.kafka.clients import Clients
from kantoku_kafka.kafka.codes import NO_TOPIC, PASSING
from kantoku_kafka.kafka.wanted import TopicPlan, plan

__all__ = ["broker_count", "create", "described", "max_message_bytes", "missing", "partition_count", "plan"]

_DAY_MS = 86_400_000
_ASK_AGAIN_SECONDS = 0.1


def create(clients: Clients, plans: Iterable[TopicPlan]) -> list[str]:
    """Create the topics that are missing; the others are left as they are. Returns the names created.

    Raises:
        AccessDenied, BrokerUnavailable, KantokuError: nothing more is created then.
    """
    admin = clients.admin()
    existing = existing_topics(clients)
    absent = [p for p in plans if p.name not in existing]
    if not absent:
        return []
    default = -1  # the broker's
    requested = [NewTopic(p.name, p.partitions, p.replication_factor or default, config=dict(p.config)) for p in absent]
    created = []
    for name, future in admin.create_topics(requested).items():
        try:
            future.result(clients.connection.timeout_seconds)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise clients.error(error.args[0], f"creating topic {name}") from error
        except TimeoutError as error:
            raise clients.unreachable(f"creating topic {name}") from error
        else:
            created.append(name)
    _await_served(clients, [p for p in absent if p.name in created])
    return created


def partition_count(clients: Clients, topic: str, *, foreign: bool = False) -> int:
    """How many partitions a topic has; ``foreign``: others make it. Raises TopicMismatch if it is missing."""
    deadline = time.monotonic() + clients.connection.timeout_seconds
    while True:
        found = clients.metadata(f"looking up topic {topic}", topic).topics[topic]
        if found.partitions:
            return len(found.partitions)
        code = KafkaError.UNKNOWN_TOPIC_OR_PART if found.error is None else found.error.code()
        if code not in PASSING or time.monotonic() > deadline:
            break
        time.sleep(_ASK_AGAIN_SECONDS)  # it was created just now, or its leader is being elected
    if found.error is not None and code not in _ABSENT:
        raise clients.error(found.error, f"looking up topic {topic}")
    if foreign:
        raise TopicMismatch(f"Topic {topic} is missing, and not ours to create: see from_topics and reply_to.")
    raise TopicMismatch(f"Topic {topic} is missing. Create it (topics create), or name another namespace (-n).")


def max_message_bytes(clients: Clients, names: Iterable[str]) -> dict[str, int]:
    """What each topic takes as one record; a topic whose settings may not be read counts with Kafka's default."""
    wanted = list(names)
    configs = topic_configs(clients, wanted)
    return {name: int(configs.get(name, {}).get("max.message.bytes", 1_048_588)) for name in wanted}


def topic_configs(clients: Clients, names: Iterable[str], seconds: float | None = None) -> dict[str, dict[str, str]]:
    """The settings of topics, as far as we may read them; ``seconds``: to wait, default the connection's timeout."""
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    found: dict[str, dict[str, str]] = {}
    if not resources:
        return found
    admin, most = clients.admin(), clients.connection.timeout_seconds if seconds is None else seconds
    for resource, future in admin.describe_configs(resources).items():
        try:
            entries = future.result(most)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                continue
            raise clients.error(error.args[0], f"reading the settings of {resource.name}") from error
        except TimeoutError as error:
            raise clients.unreachable(f"reading the settings of {resource.name}") from error
        found[resource.name] = {entry.name: entry.value for entry in entries.values()}
    return found


def described(
    clients: Clients, names: Iterable[str], *, operations: bool = False, seconds: float | None = None
) -> dict[str, TopicDescription | KafkaError]:
    """What brokers say of topics, by one request; an error where one is missing, or we may not ask.

    Parameters:
        operations: ask as well what we may do with them.
        seconds: to wait; default: the connection's timeout.

    Raises:
        AccessDenied, BrokerUnavailable, KantokuError: for all of them.
    """
    admin, most = clients.admin(), clients.connection.timeout_seconds if seconds is None else seconds
    wanted, found = TopicCollection(sorted(names)), {}
    asked = admin.describe_topics(wanted, include_authorized_operations=operations, request_timeout=most)
    for name, future in asked.items():
        try:
            found[name] = future.result(most)
        except KafkaException as error:
            found[name] = error.args[0]
            if found[name].code() not in NO_TOPIC | {KafkaError.TOPIC_AUTHORIZATION_FAILED}:
                raise clients.error(error.args[0], f"looking up topic {name}") from error
        except TimeoutError as error:
            raise clients.unreachable(f"looking up topic {name}") from error
    return found


def missing(clients: Clients, names: Sequence[str]) -> list[str]:
    """Those that do not exist, as far as we may know. Raises AccessDenied, BrokerUnavailable."""
    found = described(clients, names) if names else {}
    return [name for name, one in found.items() if isinstance(one, KafkaError) and one.code() in NO_TOPIC]


def broker_count(clients: Clients, seconds: float | None = None) -> int:
    """How many brokers the cluster has; ``seconds`` to wait, default: the connection's timeout."""
    admin, most = clients.admin(), clients.connection.timeout_seconds if seconds is None else seconds
    return clients.insist(
        lambda: len(admin.describe_cluster().result(most).nodes), "looking at the cluster", seconds=most
    )


def topic_identity(clients: Clients, topic: str) -> str:
    """What no other topic has, nor the same one created anew: its name and its id. Raises TopicMismatch."""
    partition_count(clients, topic)
    admin = clients.admin()
    seconds = clients.connection.timeout_seconds
    found = clients.insist(
        lambda: admin.describe_topics(TopicCollection([topic]))[topic].result(seconds), f"looking up topic {topic}"
    )
    return f"{topic}/{found.topic_id}"


def retention_ms(clients: Clients, topic: str) -> int | None:
    """For how long a topic keeps its records; None: for ever, or it may not be asked."""
    config = topic_configs(clients, [topic]).get(topic, {})
    kept_ms = int(config.get("retention.ms", "-1"))
    return kept_ms if kept_ms >= 0 and "delete" in config.get("cleanup.policy", "") else None


def retention_warnings(clients: Clients, topic: str) -> list[str]:
    """What an audit topic with these settings no longer holds; nothing if it is compacted, or may not be asked."""
    config = topic_configs(clients, [topic]).get(topic, {})
    policy = config.get("cleanup.policy", "compact")
    if "delete" not in policy:
        return []
    hours = int(config.get("retention.ms", "-1")) / 3_600_000
    kept = f"older than {hours:g} h" if hours >= 0 else "beyond its size limit"
    return [f"topic {topic} has cleanup.policy={policy}: events {kept} are missing. It should be: compact"]


def tombstones_kept_ms(clients: Clients, topic: str) -> int:
    """For how long every reader finds the tombstones of a compacted topic; Kafka's default if it may not be asked."""
    config = topic_configs(clients, [topic]).get(topic, {})
    return int(config.get("delete.retention.ms", _DAY_MS))


def forbidden_topics(clients: Clients, names: Iterable[str]) -> list[str]:
    """Those that we may not write to, as far as brokers say."""
    admin, seconds = clients.admin(), clients.connection.timeout_seconds
    wanted = TopicCollection(sorted(names))
    asked = admin.describe_topics(wanted, include_authorized_operations=True, request_timeout=seconds)
    found, deadline = [], time.monotonic() + seconds
    for name, future in asked.items():
        with suppress(KafkaException, TimeoutError):
            operations = future.result(max(0.0, deadline - time.monotonic())).authorized_operations
            if operations is not None and AclOperation.WRITE not in operations:
                found.append(name)
    return found


_ABSENT = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})


def existing_topics(clients: Clients) -> set[str]:
    """The names of all topics that we may see."""
    return set(partition_counts(clients))


def partition_counts(clients: Clients) -> dict[str, int]:
    """How many partitions each topic has that we may see; 0 of one that nobody leads now."""
    found = clients.metadata("listing topics").topics
    return {name: len(topic.partitions) for name, topic in found.items()}


def _await_served(clients: Clients, plans: Iterable[TopicPlan]) -> None:
    """A topic is created before its leaders know that they lead it: wait until each of them answers."""
    latest: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # confluent_kafka leaves it untyped
    unserved = {TopicPartition(p.name, n) for p in plans for n in range(p.partitions)}
    deadline = time.monotonic() + clients.connection.timeout_seconds
    while unserved and time.monotonic() < deadline:
        existing_topics(clients)  # without it librdkafka may remember "no leader" until its next refresh
        admin = clients.admin()
        for partition, future in admin.list_offsets(dict.fromkeys(unserved, latest)).items():
            try:
                future.result(clients.connection.timeout_seconds)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    continue
            except TimeoutError:
                continue
            unserved.discard(partition)
        if unserved:
            time.sleep(0.05)
