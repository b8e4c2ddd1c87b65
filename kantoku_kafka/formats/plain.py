"""Records whose value is the task's data as it is. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NoReturn

from kantoku_kafka.avro.framing import joined
from kantoku_kafka.errors import EnvelopeError, UsageError
from kantoku_kafka.formats.base import ForeignRecord, ForeignTask, Format, checked_id, text_of
from kantoku_kafka.model import Headers, Result

__all__ = ["Json", "Raw", "parsed"]


@dataclass(frozen=True, kw_only=True)
class Raw(Format):
    """The value is the data. A record without a value (null: a tombstone) is no task. If a header names the schema of
    the value, as Confluent's header form has it, the data begin with that header's bytes, for ``RegistryAvro``.

    As ``reply_format``: the value is what the function returned, empty if it failed.

    Parameters:
        id_header: the header that names the task: a record with the same name is a repetition. Default: a task has no
            name but its topic, partition and offset.
        type_header: the header that ``types`` chooses by.
        types, since, reply_header, reply_topics: see :class:`Format`.
    """

    id_header: str | None = None
    type_header: str | None = None

    def __post_init__(self) -> None:
        Format.__post_init__(self)
        if bool(self.types) != (self.type_header is not None):
            raise UsageError(f"{self._name}: types chooses by type_header; name both or neither.")

    def read(self, record: ForeignRecord) -> ForeignTask:
        _, value, headers = record
        if value is None:
            raise EnvelopeError("The record has no value (it is a tombstone): there is nothing to do for a task.")
        kind = self._required(headers, self.type_header)
        return ForeignTask(self._data(value, headers), self._id(value, headers), kind, headers)

    def write(self, result: Result) -> tuple[bytes, Headers]:
        return result.data, result.headers

    def _data(self, value: bytes, headers: Headers) -> bytes:
        return joined(value, headers)

    def _id(self, value: bytes, headers: Headers) -> str | None:  # noqa: ARG002 - for those that look into it
        return self._required(headers, self.id_header)

    def _required(self, headers: Headers, name: str | None) -> str | None:
        if name is None:
            return None
        text = text_of(headers, name)
        if text is None:
            raise EnvelopeError(f"The record has no header {name!r}.")
        return text


@dataclass(frozen=True, kw_only=True)
class Json(Raw):
    """The value is a JSON document (RFC 8259, UTF-8), and the data as it is.

    As ``reply_format``: the value is what the function returned, or ``{"error": {"type": ..., "message": ...}}`` if it
    failed, with ``content-type: application/json``.

    Parameters:
        id_field: the field of the outermost object that names the task, a text or a whole number; instead of id_header.
        id_header, type_header, types, since, reply_header, reply_topics: as of :class:`Raw`.
    """

    id_field: str | None = None

    def __post_init__(self) -> None:
        Raw.__post_init__(self)
        if self.id_field is not None and self.id_header is not None:
            raise UsageError("Json: the id comes by id_field or by id_header; name one of them.")

    def _data(self, value: bytes, headers: Headers) -> bytes:  # noqa: ARG002 - the document alone
        return value

    def write(self, result: Result) -> tuple[bytes, Headers]:
        value, error = result.data, result.error
        if error is not None:
            value = json.dumps({"error": {"type": error.type, "message": error.message}}).encode()
        others = tuple(header for header in result.headers if header[0] != "content-type")
        return value, (*others, ("content-type", b"application/json"))

    def _id(self, value: bytes, headers: Headers) -> str | None:
        document = parsed(value)
        if self.id_field is None:
            return Raw._id(self, value, headers)
        if not isinstance(document, dict) or self.id_field not in document:
            raise EnvelopeError(f"The JSON document has no field {self.id_field!r}.")
        name = document[self.id_field]
        if not isinstance(name, str | int) or isinstance(name, bool):
            kind = type(name).__name__
            raise EnvelopeError(f"The field {self.id_field!r} is a {kind}, where a text or a whole number is wanted.")
        return checked_id(f"The field {self.id_field!r}", str(name))


def parsed(value: bytes) -> Any:
    """The JSON document. Raises EnvelopeError."""
    try:
        return json.loads(value.decode(), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise EnvelopeError(f"The value is no JSON document: {error}.") from error


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
