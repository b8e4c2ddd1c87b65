"""Waiting until a Kafka cluster answers clients, not just until its port is open."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from typing import Final

__all__ = ["await_nodes"]

_ASK_SECONDS: Final = 1.0
_PAUSE_SECONDS: Final = 0.02


def await_nodes(
    bootstrap_servers: str,
    nodes: Collection[int],
    *,
    timeout_seconds: float,
    check: Callable[[], None] = lambda: None,
) -> bool:
    """Ask for metadata until they list all the nodes.

    Args:
        bootstrap_servers: whom to ask.
        nodes: the node ids that must be there.
        timeout_seconds: how long to try.
        check: called between two tries; what it raises ends the wait.

    Returns:
        Whether all nodes were there in time.
    """
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    # A logger outside the tree: librdkafka would write its connection errors to stderr.
    logger = logging.Logger("kantoku_kafka.dev.readiness")
    logger.addHandler(logging.NullHandler())
    settings: dict[str, str | int | float | bool] = {
        "bootstrap.servers": bootstrap_servers,
        "reconnect.backoff.ms": 20,
        "reconnect.backoff.max.ms": 100,
        "log_level": 0,
    }
    admin = AdminClient(settings, logger=logger)
    deadline = time.monotonic() + timeout_seconds
    while (left := deadline - time.monotonic()) > 0:
        check()
        try:
            if set(nodes) <= set(admin.list_topics(timeout=min(_ASK_SECONDS, left)).brokers):
                return True
        except KafkaException:
            continue
        time.sleep(_PAUSE_SECONDS)
    return False
