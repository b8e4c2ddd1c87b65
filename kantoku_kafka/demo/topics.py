"""Topics that live as long as the demo."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import KafkaException

from kantoku_kafka.app import Kantoku
from kantoku_kafka.kafka import topics

__all__ = ["own_topics"]

_log = logging.getLogger(__name__)

_PARTITIONS = 4
_DELETE_SECONDS = 10.0


@contextmanager
def own_topics(kantoku: Kantoku) -> Iterator[None]:
    """The topics of an app whose namespace nobody else has; they and the group are deleted in the end.

    Raises:
        BrokerUnavailable, AccessDenied: they cannot be created.
    """
    clients = kantoku.clients
    clients.check()
    plan = topics.plan(kantoku.topics, kantoku.task_types, inputs=kantoku.inputs, partitions=_PARTITIONS)
    try:
        topics.create(clients, plan)
        yield
    finally:
        _delete(kantoku, [p.name for p in plan])


def _delete(kantoku: Kantoku, names: list[str]) -> None:
    """As far as it goes, within some seconds: with an embedded broker all goes anyway."""
    admin = kantoku.clients.admin()
    groups = [kantoku.topics.group, kantoku.topics.timers_group]
    requested = admin.delete_topics(names) | admin.delete_consumer_groups(groups)
    deadline = time.monotonic() + _DELETE_SECONDS
    left = []
    for name, future in requested.items():
        try:
            future.result(max(0.0, deadline - time.monotonic()))
        except (KafkaException, TimeoutError):
            left.append(name)
    if left:
        _log.warning("not deleted: %s", ", ".join(left), extra={"action": "demo_left"})
