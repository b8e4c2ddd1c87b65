"""A schema registry: its client, payloads and envelopes in Confluent's forms. Needs the extra ``registry``."""

from __future__ import annotations

from kantoku_kafka.registry.client import Registry
from kantoku_kafka.registry.payload import RegistryAvro

__all__ = ["Registry", "RegistryAvro"]
