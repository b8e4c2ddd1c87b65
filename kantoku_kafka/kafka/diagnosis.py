"""What stands between a user and a running executor, checked in the order in which it would show."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException

from kantoku_kafka.errors import KantokuError, TopicMismatch
from kantoku_kafka.kafka import topics
from kantoku_kafka.kafka.config import Clients
from kantoku_kafka.kafka.drift import compare
from kantoku_kafka.kafka.reachability import Finding
from kantoku_kafka.kafka.takeover import transactional_id
from kantoku_kafka.names import Topics

__all__ = ["Finding", "diagnose"]

_NO_GROUP = frozenset({KafkaError.GROUP_ID_NOT_FOUND})


def diagnose(clients: Clients, names: Topics, inputs: Sequence[str]) -> Iterator[Finding]:
    """Check one thing after the other; stops after the first failure, which the later ones would only repeat.

    Parameters:
        inputs: the input topics of an app; what every namespace has is looked at anyway.
    """
    checks: list[tuple[str, Callable[[], str]]] = [
        ("versions", _versions),
        ("broker", lambda: _broker(clients)),
        ("topics", lambda: _topics(clients, names, inputs)),
        ("transactions", lambda: _transactions(clients, names)),
        ("group", lambda: _group(clients, names)),
    ]
    for name, check in checks:
        try:
            yield Finding(name, check())
        except KantokuError as error:
            yield Finding(name, str(error), error)
            return


def _versions() -> str:
    return (
        f"kantoku-kafka {metadata.version('kantoku-kafka')}, Python {platform.python_version()}, "
        f"confluent-kafka {confluent_kafka.__version__}, librdkafka {confluent_kafka.libversion()[0]}"
    )


def _broker(clients: Clients) -> str:
    found = clients.metadata("connecting")
    return f"{len(found.brokers)} brokers, cluster {found.cluster_id}, at {clients.connection.bootstrap_servers}"


def _topics(clients: Clients, names: Topics, inputs: Sequence[str]) -> str:
    plans = topics.plan(names, [], inputs=inputs)
    for difference in compare(clients, plans):
        if difference.missing:
            raise TopicMismatch(f"Topic {difference.plan.name} is missing: kantoku-kafka topics create APP --yes")
        if difference.harms:
            raise TopicMismatch(f"Topic {difference.plan.name}: {'; '.join(map(str, difference.harms))}.")
    return f"{len(plans)} topics as they should be: {', '.join(p.name for p in plans)}"


def _transactions(clients: Clients, names: Topics) -> str:
    name = transactional_id(names.group, "doctor")
    producer = clients.producer(**{"transactional.id": name})
    try:
        producer.init_transactions(clients.connection.timeout_seconds)
    except KafkaException as error:
        raise clients.error(error.args[0], f"starting a transaction as {name}") from error
    return f"allowed for {names.group}.*"


def _group(clients: Clients, names: Topics) -> str:
    admin = clients.admin()
    (future,) = admin.describe_consumer_groups([names.group]).values()
    try:
        group = future.result(clients.connection.timeout_seconds)
    except KafkaException as error:
        if error.args[0].code() in _NO_GROUP:
            return f"{names.group}: no executor has joined yet"
        raise clients.error(error.args[0], f"looking at group {names.group}") from error
    except TimeoutError as error:
        raise clients.unreachable(f"looking at group {names.group}") from error
    return f"{names.group}: {len(group.members)} executors"
