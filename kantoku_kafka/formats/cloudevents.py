"""CloudEvents 1.0 by the Kafka protocol binding 1.0.2, in binary and in structured (JSON) mode. Pure."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kantoku_kafka.errors import EnvelopeError, UsageError
from kantoku_kafka.formats.base import ForeignRecord, ForeignTask, Format, checked_id, checked_text, text_of
from kantoku_kafka.formats.plain import parsed
from kantoku_kafka.model import Headers, Result, utf8_safe

__all__ = ["CloudEvents"]

_PREFIX, _CONTENT_TYPE = "ce_", "content-type"
_STRUCTURED = "application/cloudevents"
_REQUIRED = ("specversion", "id", "source", "type")
_NO_ATTRIBUTES = ("data", "data_base64", "datacontenttype")
_ATTRIBUTE = re.compile(r"[a-z0-9]+")
_JSON_TYPE = re.compile(r"[^;]*[/+]json\s*(;.*)?", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class CloudEvents(Format):
    """An event is a task: its data are the task's, its attributes the headers ``ce_*`` and ``content-type``.

    Source and id name the task: an event with the same ones is a repetition. JSON data of an event in structured mode
    are written anew, without spaces, with numbers as a double holds them. ``types`` chooses by the event's type.

    As ``reply_format``: an event in binary mode; its id is the task's.

    Parameters:
        source, type: of the events that are written as replies.
        types, since, reply_header, reply_topics: see :class:`Format`.
    """

    source: str | None = None
    type: str | None = None

    def __post_init__(self) -> None:
        Format.__post_init__(self)
        if bool(self.source) != bool(self.type):
            raise UsageError("CloudEvents: the events that are written have a source and a type; name both or neither.")
        for text in (self.source, self.type):
            if text is not None and (not isinstance(text, str) or not text or utf8_safe(text) != text):
                raise UsageError(f"CloudEvents: source and type are texts that UTF-8 can carry, not {text!r}.")

    def read(self, record: ForeignRecord) -> ForeignTask:
        media_type = (text_of(record.headers, _CONTENT_TYPE) or "").lower()
        if media_type.startswith(_STRUCTURED):
            data, attributes, headers = _structured(media_type, record)
        else:
            data, attributes, headers = _binary(record)
        for name in _REQUIRED:
            if not attributes.get(name):
                raise EnvelopeError(f"The event has no attribute {name!r}, which every CloudEvent has.")
        if " " in attributes["source"]:  # between it and the id stands one
            raise EnvelopeError("The attribute 'source' of the event is no URI reference: it has a space.")
        if attributes["specversion"] != "1.0":
            raise EnvelopeError(f"The event is of CloudEvents {attributes['specversion'][:20]!r}, not '1.0'.")
        return ForeignTask(data, f"{attributes['source']} {attributes['id']}", attributes["type"], headers)

    @property
    def can_write(self) -> bool:
        return self.source is not None

    def write(self, result: Result) -> tuple[bytes, Headers]:
        assert self.source is not None and self.type is not None, "checked where it is made a reply format"
        others = tuple(header for header in result.headers if not _is_attribute(header[0]))
        attributes = {"specversion": "1.0", "id": result.task_id, "source": self.source, "type": self.type}
        return result.data, (*others, *_headers(attributes))


def _binary(record: ForeignRecord) -> tuple[bytes, Mapping[str, str], Headers]:
    """An event without a value has no data."""
    if not any(name.startswith(_PREFIX) for name, _ in record.headers):
        raise EnvelopeError(
            "The record is no CloudEvent: it has neither headers ce_* nor content-type application/cloudevents+json."
        )
    attributes = {name: text_of(record.headers, _PREFIX + name) or "" for name in _REQUIRED}
    return record.value or b"", attributes, record.headers


def _structured(media_type: str, record: ForeignRecord) -> tuple[bytes, Mapping[str, str], Headers]:
    if media_type.partition(";")[0].strip() != f"{_STRUCTURED}+json":
        raise EnvelopeError(f"The record is of {media_type[:100]!r}: of CloudEvents in structured mode JSON is read.")
    event = parsed(record.value or b"")
    if not isinstance(event, dict):
        raise EnvelopeError(f"The event is a JSON {type(event).__name__}, not an object.")
    attributes = {name: _text(name, value) for name, value in event.items() if _is_told(name, value)}
    data_type = event.get("datacontenttype")
    if data_type is not None and not isinstance(data_type, str):
        raise EnvelopeError("The attribute 'datacontenttype' of the event is no text.")
    others = tuple(header for header in record.headers if not _is_attribute(header[0]))
    told = () if not data_type else ((_CONTENT_TYPE, checked_id("'datacontenttype'", data_type).encode()),)
    return _data(event, data_type), attributes, (*others, *told, *_headers(attributes))


def _data(event: Mapping[str, Any], data_type: str | None) -> bytes:
    if event.get("data") is not None and event.get("data_base64") is not None:
        raise EnvelopeError("The event has both 'data' and 'data_base64'.")
    encoded = event.get("data_base64")
    try:
        if encoded is not None:
            return base64.b64decode(encoded, validate=True)
        data = event.get("data")
        if data is None and "data" not in event:
            return b""
        if isinstance(data, str) and data_type and not _JSON_TYPE.fullmatch(data_type):
            return data.encode()
        return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise EnvelopeError(f"The data of the event cannot be taken out of it: {error}.") from error


def _is_told(name: str, value: Any) -> bool:
    """Whether it is an attribute that has a value."""
    return name not in _NO_ATTRIBUTES and value is not None


def _text(name: str, value: Any) -> str:
    """An attribute as a header has it."""
    if not _ATTRIBUTE.fullmatch(name):
        raise EnvelopeError(f"{name[:40]!r} is no name for an attribute: lower-case letters and digits alone.")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, str):
        raise EnvelopeError(f"The attribute {name!r} of the event is a {type(value).__name__}.")
    what = f"The attribute {name!r} of the event"
    return checked_id(what, value) if name in _REQUIRED else checked_text(what, value)


def _headers(attributes: Mapping[str, str]) -> Headers:
    return tuple((_PREFIX + name, text.encode()) for name, text in attributes.items())


def _is_attribute(header: str) -> bool:
    return header == _CONTENT_TYPE or header.startswith(_PREFIX)
