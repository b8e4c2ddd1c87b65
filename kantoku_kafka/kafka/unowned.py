"""Partitions that a classic group has given to nobody, and nobody asks for.

In a cooperative rebalance a member first lets go of what is to move, and then asks for another rebalance, in which
somebody else gets it (KIP-429). A static member that is killed in between comes back without any rebalance (KIP-345):
what it was to let go of would have no owner until somebody else joins or leaves. So somebody does.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import ConsumerGroupState

from kantoku_kafka.errors import KantokuError
from kantoku_kafka.kafka.config import Clients
from kantoku_kafka.kafka.group import describe
from kantoku_kafka.kafka.topics import partition_count

__all__ = ["UnownedWatch"]

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 3.0
_JOIN_SECONDS = 30.0

Key = tuple[str, int]


class UnownedWatch(threading.Thread):
    """Runs from the start of a static member until every partition of its topics has an owner.

    Parameters:
        clients: the connection.
        group: its group.
        topics: to which it subscribes.
        membership: settings of its consumer but for what names the member itself.
    """

    def __init__(self, clients: Clients, group: str, topics: Sequence[str], membership: Mapping[str, object]) -> None:
        super().__init__(name="unowned", daemon=True)
        self._clients = clients
        self._group = group
        self._topics = list(topics)
        self._membership = membership
        self._over = threading.Event()

    def run(self) -> None:
        before: set[Key] = set()
        while not self._over.wait(_LOOK_SECONDS):
            try:
                unowned = self._unowned()
                if unowned is not None and not unowned:
                    return
                if unowned and unowned == before:
                    _log.warning("nobody has %s: asking for a rebalance", _names(unowned), extra={"action": "unowned"})
                    self._pass_by()
            except KantokuError as error:
                unowned = None
                _log.info("who owns what is unknown: %s", error, extra={"action": "unowned"})
            before = unowned or set()

    def close(self) -> None:
        """Look no more; waits for what is under way."""
        self._over.set()
        if self.is_alive():
            self.join()

    def _unowned(self) -> set[Key] | None:
        """What has no owner; None while the group is rebalancing."""
        group = describe(self._clients, self._group)
        if group.state is not ConsumerGroupState.STABLE:
            return None
        assignments = [member.assignment for member in group.members if member.assignment]
        owned = {(place.topic, place.partition) for held in assignments for place in held.topic_partitions}
        return {(t, n) for t in self._topics for n in range(partition_count(self._clients, t))} - owned

    def _pass_by(self) -> None:
        """Join and leave: either makes the group rebalance."""
        joined = threading.Event()
        passer: Any = self._clients.consumer(**{"group.id": self._group, **self._membership})
        try:
            passer.subscribe(self._topics, on_assign=lambda *_: joined.set())
            deadline = time.monotonic() + _JOIN_SECONDS
            while not joined.is_set() and not self._over.is_set() and time.monotonic() < deadline:
                passer.poll(0.1)
        finally:
            passer.close()


def _names(keys: set[Key]) -> str:
    return ", ".join(f"{topic}[{number}]" for topic, number in sorted(keys))
