"""kantoku-kafka: distributed task execution on Kafka, at-least-once execution, exactly-once results."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kantoku_kafka import logger
    from kantoku_kafka.app import Kantoku
    from kantoku_kafka.client import Spawned
    from kantoku_kafka.context import Context
    from kantoku_kafka.engine.retry import Retry
    from kantoku_kafka.errors import BadPayload, Crashed, KantokuError, NonRetryable, Reject, Retryable
    from kantoku_kafka.executor import ExecutorProcess
    from kantoku_kafka.model import ErrorInfo, Event, Result, Source, Status, Task
    from kantoku_kafka.options import (
        at,
        delay,
        expires,
        headers,
        idempotency_key,
        key,
        labels,
        priority,
        reply_to,
        retry,
        timeout,
    )
    from kantoku_kafka.payloads import AvroPayload, BytesPayload, JsonPayload
    from kantoku_kafka.plugins import Plugin, SpawnContext
    from kantoku_kafka.settings import Connection, ExecutorSettings
    from kantoku_kafka.signing.file import load_seal
    from kantoku_kafka.signing.keys import Ed25519Key, HmacKey
    from kantoku_kafka.signing.seal import Seal

__all__ = [
    "AvroPayload",
    "BadPayload",
    "BytesPayload",
    "Connection",
    "Context",
    "Crashed",
    "Ed25519Key",
    "ErrorInfo",
    "Event",
    "ExecutorProcess",
    "ExecutorSettings",
    "JsonPayload",
    "HmacKey",
    "Kantoku",
    "KantokuError",
    "NonRetryable",
    "Plugin",
    "Reject",
    "Result",
    "Retry",
    "Retryable",
    "Seal",
    "Source",
    "SpawnContext",
    "Spawned",
    "Status",
    "Task",
    "at",
    "delay",
    "expires",
    "headers",
    "idempotency_key",
    "key",
    "labels",
    "load_seal",
    "logger",
    "priority",
    "reply_to",
    "retry",
    "timeout",
]

_HOME = {
    "app": ["Kantoku"],
    "client": ["Spawned"],
    "context": ["Context"],
    "errors": ["BadPayload", "Crashed", "KantokuError", "NonRetryable", "Reject", "Retryable"],
    "executor": ["ExecutorProcess"],
    "model": ["ErrorInfo", "Event", "Result", "Source", "Status", "Task"],
    "engine.retry": ["Retry"],
    "options": [
        "at",
        "delay",
        "expires",
        "headers",
        "idempotency_key",
        "key",
        "labels",
        "priority",
        "reply_to",
        "retry",
        "timeout",
    ],
    "payloads": ["AvroPayload", "BytesPayload", "JsonPayload"],
    "plugins": ["Plugin", "SpawnContext"],
    "settings": ["Connection", "ExecutorSettings"],
    "signing.file": ["load_seal"],
    "signing.keys": ["Ed25519Key", "HmacKey"],
    "signing.seal": ["Seal"],
}


def __getattr__(name: str) -> Any:
    """Load a public name at first use: pytest imports this package in every run of a user, and must stay quick."""
    for module, names in _HOME.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    if name == "logger":
        return importlib.import_module(f"{__name__}.logger")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
