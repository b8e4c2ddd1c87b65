"""A real Apache Kafka for development and tests (extra ``broker``). Importing it loads nothing heavy."""

from __future__ import annotations

from kantoku_kafka.dev.broker import EmbeddedBroker
from kantoku_kafka.dev.errors import EmbeddedBrokerError

__all__ = ["EmbeddedBroker", "EmbeddedBrokerError"]
