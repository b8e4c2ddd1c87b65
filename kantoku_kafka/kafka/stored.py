"""Offsets that are committed outside of any transaction: at least once."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from kantoku_kafka.job import Offset, Place

__all__ = ["StoredOffsets"]

_log = logging.getLogger(__name__)


class StoredOffsets:
    """What is to be committed, in the order in which it was stored. :meth:`store` may be called from any thread."""

    def __init__(self) -> None:
        self._stored: deque[Sequence[Offset]] = deque()

    def store(self, offsets: Sequence[Offset]) -> None:
        """Commit these at the next occasion."""
        self._stored.append(offsets)

    def commit(self, consumer: Consumer, *, wait: bool = False) -> None:
        """Commit what was stored. A commit that fails is made up for by a later one: this promises at least once."""
        commit: Any = consumer.commit  # its stub knows either constant of asynchronous, but no bool
        while self._stored:
            positions = [TopicPartition(o.topic, o.partition, o.offset, o.metadata) for o in self._stored.popleft()]
            try:
                commit(offsets=positions, asynchronous=not wait)
            except KafkaException as error:
                _log.info("offsets were not committed: %s", error, extra={"action": "commit_refused"})

    def drop(self, places: Collection[Place]) -> None:
        """These are somebody else's by now."""
        kept = [[o for o in offsets if o.place not in places] for offsets in self._stored]
        self._stored = deque(offsets for offsets in kept if offsets)
