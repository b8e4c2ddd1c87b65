"""Which rights we have on a cluster, as its brokers say; nothing is tried out that would be seen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation, NewTopic  # type: ignore[attr-defined]  # re-exported without __all__

from kantoku_kafka.errors import AccessDenied
from kantoku_kafka.kafka.config import NO_TOPIC, Clients
from kantoku_kafka.kafka.rights import Operation, Resource, Right

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
    """Those of these that we do not have. What may be done to a topic that does not exist nobody tells, but to make it.

    Raises:
        AccessDenied: nothing may be asked; BrokerUnavailable.
    """
    wanted = sorted(rights)
    topics = {right.name for right in wanted if right.resource is Resource.TOPIC}
    groups = {right.name for right in wanted if right.resource is Resource.GROUP}
    allowed = {
        **{(Resource.TOPIC, name): found for name, found in _of_topics(clients, topics).items()},
        **{(Resource.GROUP, name): _of_group(clients, name) for name in groups},
    }
    missing = []
    for right in wanted:
        if right.resource is Resource.TRANSACTIONAL_ID:
            has = _may_begin(clients, right.name)
        elif (found := allowed[right.resource, right.name]) is None:  # there is no such topic
            has = right.operation is not Operation.CREATE or _may_create(clients, right.name)
        else:
            has = right.operation in found
        if not has:
            missing.append(right)
    return missing


def try_transaction(clients: Clients, transactional_id: str) -> None:
    """Begin a transaction and give it up. Raises AccessDenied, BrokerUnavailable, KantokuError."""
    producer = clients.producer(**{"transactional.id": transactional_id})
    seconds = clients.connection.timeout_seconds
    try:
        producer.init_transactions(seconds)
        producer.begin_transaction()
        producer.abort_transaction(seconds)
    except KafkaException as error:
        raise clients.error(error.args[0], f"starting a transaction as {transactional_id}") from error


def _of_topics(clients: Clients, names: Iterable[str]) -> dict[str, set[Operation] | None]:
    """What we may do to each topic; None: it does not exist."""
    admin, seconds = clients.admin(), clients.connection.timeout_seconds
    found: dict[str, set[Operation] | None] = {}
    asked = admin.describe_topics(
        TopicCollection(list(names)), include_authorized_operations=True, request_timeout=seconds
    )
    for name, future in asked.items():
        try:
            found[name] = _operations(future.result(seconds))
        except KafkaException as error:
            code = error.args[0].code()
            if code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                found[name] = set()
            elif code in NO_TOPIC:
                found[name] = None
            else:
                raise clients.error(error.args[0], f"looking up topic {name}") from error
        except TimeoutError as error:
            raise clients.unreachable(f"looking up topic {name}") from error
    return found


def _of_group(clients: Clients, name: str) -> set[Operation]:
    admin, seconds = clients.admin(), clients.connection.timeout_seconds

    def asked() -> Any:
        return admin.describe_consumer_groups([name], include_authorized_operations=True)[name].result(seconds)

    try:
        return _operations(clients.insist(asked, f"looking at group {name}"))
    except AccessDenied:
        return set()


def _operations(described: Any) -> set[Operation]:
    """What a broker said that we may do; Kafka before 2.3 says nothing."""
    return {_OPERATIONS[one] for one in described.authorized_operations or () if one in _OPERATIONS}


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
        try_transaction(clients, f"{prefix}doctor")
    except AccessDenied:
        return False
    return True
