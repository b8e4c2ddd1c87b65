"""Which rights we have on a cluster, as its brokers say; nothing is tried out that would be seen."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AclOperation, NewTopic  # type: ignore[attr-defined]  # re-exported without __all__

from kantoku_kafka.errors import AccessDenied
from kantoku_kafka.kafka.clients import Clients
from kantoku_kafka.kafka.codes import NO_TOPIC
from kantoku_kafka.kafka.rights import Operation, Resource, Right
from kantoku_kafka.kafka.topics import described

__all__ = ["missing_rights", "try_transaction"]

_OPERATIONS = {
    AclOperation.READ: Operation.READ,
    AclOperation.WRITE: Operation.WRITE,
    AclOperation.CREATE: Operation.CREATE,
    AclOperation.DELETE: Operation.DELETE,
    AclOperation.DESCRIBE: Operation.DESCRIBE,
    AclOperation.DESCRIBE_CONFIGS: Operation.DESCRIBE_CONFIGS,
}


def missing_rights(clients: Clients, rights: Iterable[Right]) -> list[Right]:
    """Those of these that we do not have. Of topics that do not exist, or that are named by a prefix, nobody tells.

    Raises:
        AccessDenied: nothing may be asked; BrokerUnavailable.
    """
    wanted = sorted(rights)
    topics = {right.name for right in wanted if right.resource is Resource.TOPIC and not right.open}
    groups = {right.name for right in wanted if right.resource is Resource.GROUP}
    allowed = _of_topics(clients, topics)
    of_groups = {name: _of_group(clients, name) for name in groups}

    def have(right: Right) -> bool:
        if right.resource is Resource.TRANSACTIONAL_ID:
            return _may_begin(clients, right.name)
        if right.resource is Resource.GROUP:
            return right.operation in of_groups[right.name]
        operations = allowed.get(right.name)
        if operations is None:
            return right.operation is not Operation.CREATE or _may_create(clients, right.name)
        return right.operation in operations

    return [right for right in wanted if not have(right)]


def try_transaction(clients: Clients, prefix: str) -> None:
    """Begin a transaction and give it up. Raises AccessDenied, BrokerUnavailable, KantokuError.

    Its id has this prefix and is nobody else's: who uses it would be fenced.
    """
    producer = clients.producer(**{"transactional.id": f"{prefix}trial-{uuid.uuid4()}"})
    seconds = clients.connection.timeout_seconds
    try:
        producer.init_transactions(seconds)
        producer.begin_transaction()
        producer.abort_transaction(seconds)
    except KafkaException as error:
        raise clients.error(error.args[0], f"starting a transaction as {prefix}*") from error


def _of_topics(clients: Clients, names: Iterable[str]) -> dict[str, set[Operation] | None]:
    """What we may do with each topic; None: it does not exist."""
    found: dict[str, set[Operation] | None] = {}
    for name, one in described(clients, names, operations=True).items():
        if isinstance(one, KafkaError):
            found[name] = None if one.code() in NO_TOPIC else set()
        else:
            found[name] = _operations(one)
    return found


def _of_group(clients: Clients, name: str) -> set[Operation]:
    admin, seconds = clients.admin(), clients.connection.timeout_seconds

    def asked() -> Any:
        return admin.describe_consumer_groups([name], include_authorized_operations=True)[name].result(seconds)

    try:
        return _operations(clients.insist(asked, f"looking at group {name}"))
    except AccessDenied:
        return set()


def _operations(description: Any) -> set[Operation]:
    """What a broker said that we may do; Kafka before 2.3 says nothing."""
    return {_OPERATIONS[one] for one in description.authorized_operations or () if one in _OPERATIONS}


def _may_create(clients: Clients, name: str) -> bool:
    admin, seconds = clients.admin(), clients.connection.timeout_seconds
    (future,) = admin.create_topics([NewTopic(name, 1, -1)], validate_only=True).values()
    try:
        future.result(seconds)
    except KafkaException as error:
        return bool(error.args[0].code() != KafkaError.TOPIC_AUTHORIZATION_FAILED)
    except TimeoutError as error:
        raise clients.unreachable(f"asking whether topic {name} may be created") from error
    return True


def _may_begin(clients: Clients, prefix: str) -> bool:
    """Nobody tells; so a transaction under such an id is begun, and given up."""
    try:
        try_transaction(clients, prefix)
    except AccessDenied:
        return False
    return True
