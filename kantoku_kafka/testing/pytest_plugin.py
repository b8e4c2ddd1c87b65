"""The pytest plugin: fixture ``kantoku_broker``. Every pytest run loads it, so it imports late."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from kantoku_kafka.testing.broker import BrokerHandle

__all__ = ["kantoku_broker"]


@pytest.fixture(scope="session")
def kantoku_broker() -> Iterator[BrokerHandle]:
    """A real Kafka for the whole session; use its ``bootstrap_servers``.

    ``KANTOKU_TEST_ENGINE`` demands ``docker`` or ``embedded``, ``KANTOKU_TEST_BOOTSTRAP`` names a broker;
    else it is a container when Docker answers, else the embedded broker. Without any, the test is skipped; it
    fails where ``CI`` is set or the engine was demanded.
    """
    from kantoku_kafka.errors import BrokerUnavailable
    from kantoku_kafka.testing.broker import ENGINE_VARIABLE, find_broker

    with ExitStack() as running:
        broker, reason = None, ""
        try:
            broker = running.enter_context(find_broker())
        except BrokerUnavailable as error:
            reason = f"no Kafka to test with: {error}"
        if broker is None and (os.environ.get("CI") or os.environ.get(ENGINE_VARIABLE)):
            pytest.fail(reason, pytrace=False)
        if broker is None:
            pytest.skip(reason)
        yield broker
