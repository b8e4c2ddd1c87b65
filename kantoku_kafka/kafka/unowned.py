"""Partitions that a classic group has given to nobody, and nobody asks for.

In a cooperative rebalance a member first lets go of what is to move, and then asks for another rebalance, in which
somebody else gets it (KIP-429). A static member that is killed in between comes back without any rebalance (KIP-345):
what it was to let go of would have no owner until somebody else joins or leaves. So somebody does.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import ConsumerGroupState, KafkaException

from kantoku_kafka.errors import AccessDenied, KantokuError
from kantoku_kafka.job import Place
from kantoku_kafka.kafka.clients import Clients
from kantoku_kafka.kafka.group import describe
from kantoku_kafka.kafka.leaving import leave
from kantoku_kafka.kafka.takeover import names
from kantoku_kafka.kafka.topics import partition_count

__all__ = ["UnownedWatch"]

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 3.0
_PATIENCE_SECONDS, _JITTER_SECONDS = 15.0, 5.0  # longer than a member takes that lets go of what moves
_JOIN_SECONDS, _CLOSE_SECONDS = 30.0, 5.0


class UnownedWatch(threading.Thread):
    """Runs from the start of a static member until every partition of its topics has an owner.

    Parameters:
        clients: the connection.
        group: its group.
        topics: to which it subscribes.
        group_config: settings of a consumer that is a member of it.
    """

    def __init__(self, clients: Clients, group: str, topics: Sequence[str], group_config: Mapping[str, object]) -> None:
        super().__init__(name="unowned", daemon=True)
        self._clients = clients
        self._group = group
        self._topics = list(topics)
        self._group_config = group_config
        self._over = threading.Event()

    def run(self) -> None:
        before: set[Place] | None = None
        due = self._due()
        while not self._over.wait(_LOOK_SECONDS):
            try:
                unowned = self._unowned()
                if unowned is not None and not unowned:
                    return
                if unowned is None or unowned != before:
                    due = self._due()
                elif time.monotonic() > due:
                    _log.warning(
                        "nobody has %s: asking for a rebalance", names(sorted(unowned)), extra={"action": "unowned"}
                    )
                    self._pass_by()
                    due = self._due()
                before = unowned
            except AccessDenied as error:
                _log.warning("who owns what stays unknown: %s", error, extra={"action": "unowned"})
                return
            except (KantokuError, KafkaException) as error:
                _log.info("who owns what is unknown: %s", error, extra={"action": "unowned"})

    def close(self) -> None:
        """Look no more; waits a moment for what is under way."""
        self._over.set()
        if self.is_alive():
            self.join(_CLOSE_SECONDS)

    def _due(self) -> float:
        """When to do something about what has no owner now; members that look at once do not act at once."""
        return time.monotonic() + _PATIENCE_SECONDS + random.uniform(0, _JITTER_SECONDS)

    def _unowned(self) -> set[Place] | None:
        """What has no owner; None while that is being settled. Raises KantokuError."""
        group = describe(self._clients, self._group)
        if group.state is not ConsumerGroupState.STABLE:
            return None
        assignments = [member.assignment for member in group.members if member.assignment]
        owned = {(place.topic, place.partition) for held in assignments for place in held.topic_partitions}
        return {(t, n) for t in self._topics for n in range(partition_count(self._clients, t))} - owned

    def _pass_by(self) -> None:
        """Join and leave: either makes the group rebalance."""
        joined = threading.Event()
        passer: Any = self._clients.consumer(**self._group_config)
        try:
            passer.subscribe(self._topics, on_assign=lambda *_: joined.set())
            deadline = time.monotonic() + _JOIN_SECONDS
            while not joined.is_set() and not self._over.is_set() and time.monotonic() < deadline:
                passer.poll(0.1)
        finally:
            leave(passer)
