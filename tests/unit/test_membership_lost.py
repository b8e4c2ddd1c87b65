"""Inputs whose client says nothing of its group any more, as one that is closing does."""

from __future__ import annotations

from typing import Any

import pytest

from kantoku_kafka.job import Offset
from kantoku_kafka.kafka.committed import CommittedOffsets
from kantoku_kafka.kafka.inputs import KafkaInputs
from kantoku_kafka.settings import Connection, GroupProtocol


class _Consumer:
    """librdkafka's consumer, as far as it is asked here."""

    def __init__(self) -> None:
        self.closing = False

    def consumer_group_metadata(self) -> bytes:
        if self.closing:
            raise RuntimeError("Consumer group metadata not available")
        return b"CGMDv2:\0\0\0\1group\0member\0\0"

    def commit(self, **_: Any) -> None:
        """Nothing is stored."""


class _Clients:
    connection = Connection(bootstrap_servers="h:1")
    client_id = "test"

    def __init__(self, consumer: _Consumer) -> None:
        self._consumer = consumer

    def setting(self, _: str, default: object) -> object:
        return default

    def consumer(self, **_: Any) -> _Consumer:
        return self._consumer


class _Loop:
    def revoked(self, partitions: object) -> None:
        """Nothing is left to do."""


def test_a_member_that_is_asked_for_nothing_any_more_gives_its_partitions_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """confluent-kafka makes a SystemError of what C raises in a callback: the executor would end with a traceback."""
    consumer = _Consumer()
    clients: Any = _Clients(consumer)  # as far as they are asked
    inputs = KafkaInputs(
        clients,
        "group",
        slot="s",
        static=False,
        group_protocol=GroupProtocol.CLASSIC,
        exactly_once=True,
        timeout_seconds=1.0,
        committed=CommittedOffsets(clients, "group", "s", 1.0),
    )
    monkeypatch.setattr(inputs, "_rebalance", _Loop(), raising=False)
    consumer.closing = True
    inputs._on_revoke(consumer, [])  # type: ignore[arg-type]  # likewise
    assert inputs.memberships.shares([Offset("t", 0, 1, "")]) is None
