"""For Strimzi's operators (0.49 and later): KafkaTopic and KafkaUser resources."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from kantoku_kafka.errors import UsageError
from kantoku_kafka.kafka.rights import Resource, Right
from kantoku_kafka.kafka.wanted import TopicPlan

__all__ = ["topics", "users"]

_RESOURCES = {
    Resource.TOPIC: "topic",
    Resource.GROUP: "group",
    Resource.TRANSACTIONAL_ID: "transactionalId",
}
_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def topics(plans: Iterable[TopicPlan], cluster: str) -> str:
    """A KafkaTopic for each; its ``spec.topicName`` is the name that Kafka knows."""
    documents = []
    for plan in plans:
        factor = "" if plan.replication_factor is None else f"  replicas: {plan.replication_factor}\n"
        config = "".join(f"    {setting}: {_text(value)}\n" for setting, value in plan.config.items())
        documents.append(
            f"{_head('KafkaTopic', _resource_name(plan.name), cluster)}spec:\n"
            f"  topicName: {_text(plan.name)}\n"
            f"  partitions: {plan.partitions}\n{factor}"
            f"  config:\n{config}"
        )
    return "".join(documents)


def users(rights: Mapping[str, Iterable[Right]], cluster: str) -> str:
    """A KafkaUser for each principal: ``User:NAME`` has a SCRAM password, ``User:CN=NAME`` a certificate.

    Raises:
        UsageError: for any other principal, or two of one name.
    """
    documents: dict[str, str] = {}
    for principal, granted in rights.items():
        name = principal.removeprefix("User:").removeprefix("CN=")
        if not principal.startswith("User:") or not _NAME.fullmatch(name) or name in documents:
            raise UsageError(
                f"{principal!r} is no user of Strimzi's: give User:NAME (SCRAM) or User:CN=NAME (TLS), with lower-case "
                "letters, digits, '-' and '.', each name once."
            )
        authentication = "tls" if principal.startswith("User:CN=") else "scram-sha-512"
        documents[name] = _user(name, authentication, granted, cluster)
    return "".join(documents.values())


def _user(name: str, authentication: str, rights: Iterable[Right], cluster: str) -> str:
    operations: dict[tuple[Resource, bool, str], list[str]] = defaultdict(list)
    for right in rights:
        operations[right.resource, right.prefixed, right.name].append(right.operation)
    acls = "".join(
        "      - resource:\n"
        f"          type: {_RESOURCES[resource]}\n"
        f"          name: {_text(resource_name)}\n"
        f"          patternType: {'prefix' if prefixed else 'literal'}\n"
        f"        operations: [{', '.join(allowed)}]\n"
        for (resource, prefixed, resource_name), allowed in operations.items()
    )
    return (
        f"{_head('KafkaUser', name, cluster)}spec:\n"
        f"  authentication:\n    type: {authentication}\n"
        f"  authorization:\n    type: simple\n    acls:\n{acls}"
    )


def _head(kind: str, name: str, cluster: str) -> str:
    return (
        f"---\napiVersion: kafka.strimzi.io/v1\nkind: {kind}\nmetadata:\n"
        f"  name: {_text(name)}\n  labels:\n    strimzi.io/cluster: {_text(cluster)}\n"
    )


def _resource_name(topic: str) -> str:
    """A name that Kubernetes takes: the topic's own if it can be, else one that no other topic has."""
    if _NAME.fullmatch(topic):
        return topic
    readable = re.sub(r"[^a-z0-9]+", "-", topic.lower()).strip("-")[:200].strip("-")
    return f"{readable or 'topic'}-{hashlib.sha256(topic.encode()).hexdigest()[:8]}"


def _text(text: str) -> str:
    """A double-quoted scalar: JSON is YAML."""
    return json.dumps(text)
