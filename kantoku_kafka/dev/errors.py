"""The one error of the embedded broker."""

from __future__ import annotations

from kantoku_kafka.errors import BrokerUnavailable

__all__ = ["EmbeddedBrokerError"]


class EmbeddedBrokerError(BrokerUnavailable):
    """The broker for development could not be fetched or started; the text says what to do next."""
