"""What records of others look like: read as tasks (``from_topics``), written as replies (``reply_format``)."""

from __future__ import annotations

from kantoku_kafka.formats.base import ForeignRecord, ForeignTask, Format
from kantoku_kafka.formats.cloudevents import CloudEvents
from kantoku_kafka.formats.plain import Json, Raw

__all__ = ["CloudEvents", "ForeignRecord", "ForeignTask", "Format", "Json", "Raw"]
