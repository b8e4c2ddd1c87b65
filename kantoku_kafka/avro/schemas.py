"""The released schemas: where they stand, their fingerprints, and how each version is read.

A writer's schema is known by the fingerprint in the record, or the record is refused. Fingerprints are
CRC-64-AVRO of the parsing canonical form, little-endian (Avro 1.12, "Single-object encoding").
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from fastavro.schema import fingerprint, parse_schema, to_parsing_canonical_form

__all__ = ["MARKER", "directory", "fingerprint_of", "load", "text", "versions"]

MARKER = b"\xc3\x01"
_PACKAGED = Path(__file__).parent.parent / "schemas"
_CHECKOUT = Path(__file__).parent.parent.parent / "schemas"

Schema = dict[str, Any]


def directory() -> Path:
    """The folder of the ``.avsc`` files: inside the installed package, or beside it in a checkout."""
    return _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT


@cache
def text(file_name: str) -> str:
    """One schema as it stands in its file, e.g. ``text("Task.avsc")``."""
    return (directory() / file_name).read_text(encoding="utf-8")


@cache
def load(file_name: str) -> Schema:
    """One schema as plain JSON, e.g. ``load("Task.avsc")``; treat it as read-only."""
    schema: Schema = json.loads(text(file_name))
    return schema


def fingerprint_of(schema: Schema) -> bytes:
    """The 8 bytes that follow the marker in a record of this schema."""
    return bytes.fromhex(fingerprint(to_parsing_canonical_form(parse_schema(schema)), "CRC-64-AVRO"))


def versions(name: str) -> Iterator[tuple[bytes, Schema]]:
    """Fingerprint and schema of every released version of ``Task``, ``Result`` or ``Event``, newest first."""
    older = sorted((directory() / "history").glob(f"{name}.*.avsc"), reverse=True)
    for file_name in (f"{name}.avsc", *(f"history/{path.name}" for path in older)):
        schema = load(file_name)
        yield fingerprint_of(schema), schema
