"""Payloads whose schemas stand in a registry: Avro as Confluent's serializers write it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from kantoku_kafka.avro.framing import marked, split
from kantoku_kafka.avro.safe import SafeSchema
from kantoku_kafka.errors import (
    AccessDenied,
    BadPayload,
    NotFound,
    RegistryUnavailable,
    Retryable,
    TopicMismatch,
    UsageError,
)
from kantoku_kafka.payloads import MAX_PAYLOAD_BYTES, check_size
from kantoku_kafka.registry.client import Registered, Registry

__all__ = ["RegistryAvro"]


class RegistryAvro:
    """Avro in Confluent's wire format. Thread-safe.

    It reads data of any schema in the registry. While the registry does not answer, or does not have the schema (yet),
    the task is tried again by its retry policy. It registers nothing.

    Parameters:
        registry: where the schemas are.
        subject: under which the schema of what it writes stands, e.g. ``orders-value``.
        schema: what is written, and what a function gets, whatever version the data are of. Default: data as they were
            written, and to write the newest of the subject, as it is at the first time.
        max_bytes: longer data are refused before they are looked at; default 4 MiB.

    Raises:
        UsageError: for a schema that is none, or none that is safe.
    """

    blocking = True

    def __init__(
        self,
        registry: Registry,
        subject: str,
        schema: str | Mapping[str, Any] | list[Any] | None = None,
        *,
        max_bytes: int = MAX_PAYLOAD_BYTES,
    ) -> None:
        self.registry = registry
        self.subject = subject
        self.schema = None if schema is None else SafeSchema(schema)
        self._max_bytes = max_bytes
        self._written_as: Registered | None = None

    def open(self, *, to_write: bool) -> None:
        """See that the registry answers; to write, that it has the schema. An executor does so when it starts.

        Raises:
            TopicMismatch: the schema is not registered under the subject.
            RegistryUnavailable, AccessDenied, UsageError.
        """
        if to_write:
            self._registered()
        else:
            with suppress(NotFound):  # its writers may register it later
                self.registry.latest(self.subject)

    def load(self, data: bytes) -> Any:
        check_size(data, self._max_bytes)
        mark, body = split(data)
        self._connect()
        try:
            writer = self.registry.schema(mark)
        except (NotFound, RegistryUnavailable, AccessDenied) as error:
            raise Retryable(str(error)) from error
        except UsageError as error:
            raise BadPayload(f"Schema {mark} of the data: {error}") from error
        return writer.decode(body, self.schema)

    def dump(self, value: Any) -> bytes:
        self._connect()
        try:
            written_as = self._registered()
        except (TopicMismatch, RegistryUnavailable, AccessDenied) as error:
            raise Retryable(str(error)) from error
        return marked(written_as.id) + written_as.schema.encode(value)

    def _connect(self) -> None:
        try:
            self.registry.connect()
        except UsageError as error:  # its settings are wrong, not the data
            raise Retryable(str(error)) from error

    def _registered(self) -> Registered:
        """What is written, as the registry has it."""
        if self._written_as is None:
            registry, subject, schema = self.registry, self.subject, self.schema
            try:
                self._written_as = registry.latest(subject) if schema is None else registry.find(subject, schema.text)
            except NotFound as error:
                raise TopicMismatch(
                    f"The schema is not registered under subject {subject}: kantoku-kafka schemas register."
                ) from error
        return self._written_as
