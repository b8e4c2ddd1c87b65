"""Topics that live as long as the demo."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager

from confluent_kafka import KafkaException

from kantoku_kafka.app import Kantoku
from kantoku_kafka.kafka import topics

__all__ = ["own_topics"]

_log = logging.getLogger(__name__)

_PARTITIONS = 4
_DELETE_SECONDS = 20.0  # longer than a group remembers executors that had a slot: its session timeout, 10 s
_ASK_AGAIN_SECONDS = 0.5


@contextmanager
def own_topics(kantoku: Kantoku, *, deleted: bool) -> Iterator[None]:
    """The topics of an app whose namespace nobody else has.

    Parameters:
        deleted: in the end, and the groups too; where the broker does not live longer, nothing has to be.

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
        if deleted:
            _delete(kantoku, [p.name for p in plan])


def _delete(kantoku: Kantoku, names: list[str]) -> None:
    """As far as it goes, within some seconds."""
    admin = kantoku.clients.admin()
    deadline = time.monotonic() + _DELETE_SECONDS
    left = _refused(admin.delete_topics(names), deadline)
    groups = [kantoku.topics.group, kantoku.topics.timers_group]
    while (groups := _refused(admin.delete_consumer_groups(groups), deadline)) and time.monotonic() < deadline:
        time.sleep(_ASK_AGAIN_SECONDS)
    if left or groups:
        _log.warning("not deleted: %s", ", ".join([*left, *groups]), extra={"action": "demo_left"})


def _refused(requested: Mapping[str, Future[None]], deadline: float) -> list[str]:
    refused = []
    for name, future in requested.items():
        try:
            future.result(max(0.0, deadline - time.monotonic()))
        except (KafkaException, TimeoutError):
            refused.append(name)
    return refused
