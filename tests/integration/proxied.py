"""A checkpoint's transaction on a broker behind the proxy, without the executor around it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from confluent_kafka import Consumer
from executors import until

from kantoku_kafka import Kantoku
from kantoku_kafka.job import Offset
from kantoku_kafka.kafka.committed import CommittedOffsets
from kantoku_kafka.kafka.transaction import ExactlyOnceTransaction


class _Membership:
    """Of the only member of its group."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    def shares(self, offsets: Sequence[Offset]) -> Sequence[tuple[Any, Sequence[Offset]]]:
        return [(self._consumer.consumer_group_metadata(), offsets)]

    def refused(self, group_metadata: bytes) -> None:
        raise AssertionError("the group refused its only member")


@contextmanager
def transaction_of_an_only_member(
    kan: Kantoku, source: str, timeout_seconds: float
) -> Iterator[ExactlyOnceTransaction]:
    """Of who reads this input, alone in its group."""
    consumer = kan.clients.consumer(**{"group.id": kan.topics.group})
    consumer.subscribe([source])
    until(lambda: consumer.poll(0.1) or consumer.assignment(), 20, "the assignment")
    yield ExactlyOnceTransaction(
        kan.clients,
        group=kan.topics.group,
        memberships=_Membership(consumer),
        committed=CommittedOffsets(kan.clients, kan.topics.group, "a", timeout_seconds),
        transactional_id=f"{kan.topics.group}.a",
        on_fenced=lambda: pytest.fail("fenced by nobody"),
        own_topics=[kan.topics.results],
        batch_size_bytes=1_000_000,
        timeout_seconds=timeout_seconds,
    )
    consumer.close()
