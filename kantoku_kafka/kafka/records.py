"""What a consumed record holds."""

from __future__ import annotations

import logging
from operator import methodcaller
from typing import Any

from kantoku_kafka.avro.framing import joined
from kantoku_kafka.avro.schemas import MARKER

__all__ = ["headers_of", "value_of"]

_log = logging.getLogger(__name__)


def value_of(message: Any) -> bytes:
    """The value of a consumed record, as a codec takes it: what names its schema in a header has it in front."""
    value: bytes = message.value() or b""
    return value if value.startswith(MARKER) else joined(value, headers_of(message))


def headers_of(message: Any) -> list[tuple[str, bytes | None]] | None:
    """The headers of a consumed record. Kafka's are text; where one is not UTF-8, none of the record can be read."""
    try:
        found: list[tuple[str, bytes | None]] | None = _read_headers(message)
    except SystemError:  # confluent-kafka answers and leaves the UnicodeDecodeError behind
        place = message.topic(), message.partition(), message.offset()
        _log.warning("the headers of %s[%s] offset %s are not UTF-8: left out", *place, extra={"action": "bad_headers"})
        return None
    return found


# A call by way of C: the interpreter's own, once specialised, would not notice the error that was left behind.
_read_headers = methodcaller("headers")
