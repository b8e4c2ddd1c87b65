"""The clients of the hand-written programs, tuned by measurement on a real broker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from confluent_kafka import Consumer, Producer


def make_consumer(bootstrap_servers: str, group: str, tuning: Mapping[str, str]) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "check.crcs": True,
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": 10_000,
            # With its default of 1,000 a consumer whose queue was full rests for a second.
            "fetch.queue.backoff.ms": 5,
            "socket.nagle.disable": True,
            **tuning,
        }
    )


def make_producer(
    bootstrap_servers: str, tuning: Mapping[str, str], *, failures: list[str] | None = None, **more: Any
) -> Producer:
    """`failures` gets a line for each record that was not delivered; a success costs no Python call."""
    if failures is not None:
        more["delivery.report.only.error"] = True
        more["on_delivery"] = lambda error, _message: failures.append(str(error))
    return Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "acks": "all",
            "enable.idempotence": True,
            # The partition that a Java client would choose for the key.
            "partitioner": "murmur2_random",
            "compression.type": "none",
            "linger.ms": 5,
            # AddOffsetsToTxn right after a commit may be refused (CONCURRENT_TRANSACTIONS), and is repeated
            # after this time: with its default of 100, one transaction in 20 took 100 ms longer.
            "retry.backoff.ms": 5,
            "queue.buffering.max.messages": 500_000,
            "socket.nagle.disable": True,
            **more,
            **tuning,
        }
    )
