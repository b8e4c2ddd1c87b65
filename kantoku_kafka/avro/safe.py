"""Avro by schemas that others wrote: which of them are safe to read by, and bytes read by those.

A reader in C follows a schema wherever it leads: some bytes make it recurse until the process dies, build millions of
values that have no bytes of their own, or take minutes for one decimal. Such schemas and decimals are refused.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

import fastavro
from fastavro.read import LOGICAL_READERS

from kantoku_kafka.errors import EnvelopeError, UsageError

__all__ = ["SafeSchema"]

_MOST_LEVELS, _MOST_PARTS, _MOST_CHARACTERS = 128, 10_000, 1 << 20
_MOST_VALUES_A_BYTE = 8
_MOST_DECIMAL_BYTES = 1_024  # some 2,400 digits; the time for one grows with their square
_DECIMAL = "kantoku-decimal"
"""The logical type that stands for decimals where we read: fastavro takes readers of further types by their names."""
_PRIMITIVES = {"null": 0, "boolean": 1, "int": 1, "long": 1, "float": 4, "double": 8, "bytes": 1, "string": 1}


class SafeSchema:
    """A schema that records may be read by, and values written. Immutable: safe in any thread.

    Parameters:
        schema: as JSON, or parsed from it.
        references: schemas, as JSON, of the names that it uses and does not define; in an order in which each uses only
            those before it.

    Raises:
        UsageError: it is no Avro schema, or none that is safe: recursive, deeper than 128 levels of JSON, with more
            than 10,000 parts, with arrays or maps of more than 8 values a byte (records and nulls have none of their
            own), or with decimals of more than 1,024 bytes.
    """

    def __init__(self, schema: str | Mapping[str, Any] | list[Any], references: Iterable[str] = ()) -> None:
        named: dict[str, Any] = {}
        named_to_read: dict[str, Any] = {}
        try:
            self.text = _as_json(schema)
            for text in (*references, self.text):
                if len(text) > _MOST_CHARACTERS:
                    raise UsageError(f"it has {len(text):,} characters, more than {_MOST_CHARACTERS:,}")
                raw = json.loads(text)
                _check_levels(raw)
                self._parsed = fastavro.parse_schema(raw, named_schemas=named)
                self._to_read = fastavro.parse_schema(_with_our_decimals(raw), named_schemas=named_to_read)
            _Measure(named).of(self._parsed)
        except UsageError as error:
            raise UsageError(f"The schema cannot be used: {error}.") from None
        except Exception as error:  # of the parser: anything, by schemas that are none
            raise UsageError(f"The schema is no Avro schema: {type(error).__name__}: {str(error)[:200]}.") from error

    @property
    def parsed(self) -> Any:
        """As fastavro takes it; treat it as read-only."""
        return self._parsed

    def decode(self, body: bytes, reader: SafeSchema | None = None) -> Any:
        """The value in bytes that were written by this schema, as ``reader`` has it.

        Raises:
            EnvelopeError: they are not one value of this schema, or ``reader`` cannot make one of its own of it.
        """
        source = io.BytesIO(body)
        try:
            value = fastavro.schemaless_reader(source, self._to_read, None if reader is None else reader._to_read)
        except Exception as error:  # of the reader: anything, by bytes that are none
            raise EnvelopeError(
                f"The data are not of their schema: {type(error).__name__}: {str(error)[:200]}."
            ) from error
        left = len(body) - source.tell()
        if left:
            raise EnvelopeError(f"{left} bytes follow the data; there has to be one value and no more.")
        return value

    def encode(self, value: Any) -> bytes:
        """The bytes of a value. Raises whatever fastavro does if the value is none of this schema."""
        body = io.BytesIO()
        fastavro.schemaless_writer(body, self._parsed, value)
        return body.getvalue()


def _as_json(schema: str | Mapping[str, Any] | list[Any]) -> str:
    """A bare name of a primitive is a schema, too."""
    if isinstance(schema, str):
        return json.dumps(schema.strip()) if schema.strip() in _PRIMITIVES else schema
    return json.dumps(schema)


def _check_levels(schema: Any) -> None:
    level = [schema]
    for _ in range(_MOST_LEVELS):
        level = [part for whole in level for part in _parts(whole) if isinstance(part, dict | list)]
        if not level:
            return
    raise UsageError(f"it has more than {_MOST_LEVELS} levels")


def _parts(schema: Any) -> Iterable[Any]:
    if isinstance(schema, dict):
        return schema.values()
    return schema if isinstance(schema, list) else ()


def _with_our_decimals(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_with_our_decimals(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    changed = {name: _with_our_decimals(part) for name, part in schema.items()}
    if (schema.get("type"), schema.get("logicalType")) == ("bytes", "decimal"):
        LOGICAL_READERS.setdefault(f"bytes-{_DECIMAL}", _read_decimal)
        changed["logicalType"] = _DECIMAL
    return changed


def _read_decimal(data: bytes, *schemas: Any) -> Any:
    if len(data) > _MOST_DECIMAL_BYTES:
        raise ValueError(f"a decimal has {len(data):,} bytes, more than {_MOST_DECIMAL_BYTES:,}")
    return LOGICAL_READERS["bytes-decimal"](data, *schemas)


class _Measure:
    """Of a schema how many values it may have beyond 8 for each of its bytes, and how many parts, written out.

    No body becomes more values than 8 for each of its bytes and that surplus, if no item of an array has any.
    """

    def __init__(self, named: Mapping[str, Any]) -> None:
        self._named = named
        self._known: dict[str, tuple[int, int]] = {}
        self._within: list[str] = []

    def of(self, schema: Any) -> tuple[int, int]:
        """Least bytes and most parts. Raises UsageError if it is recursive, or too much."""
        surplus, parts = self._named_one(schema) if isinstance(schema, str) else self._whole(schema)
        if parts > _MOST_PARTS:
            raise UsageError(f"it has more than {_MOST_PARTS:,} parts")
        return surplus, parts

    def _named_one(self, name: str) -> tuple[int, int]:
        if name in _PRIMITIVES:
            return _one_of(_PRIMITIVES[name]), 1
        if name not in self._known:
            if name in self._within:
                raise UsageError(f"{name} is recursive")
            if len(self._within) > _MOST_LEVELS:
                raise UsageError(f"it has more than {_MOST_LEVELS} levels")
            self._within.append(name)
            self._known[name] = self._whole(self._named[name])
            self._within.pop()
        return self._known[name]

    def _whole(self, schema: Any) -> tuple[int, int]:
        if isinstance(schema, list):
            branches = [self.of(branch) for branch in schema]
            surplus = max((surplus for surplus, _ in branches), default=0) - _MOST_VALUES_A_BYTE
            return surplus, 1 + sum(parts for _, parts in branches)
        match schema["type"]:
            case "record" | "error":
                if schema["name"] not in self._within:
                    return self._named_one(schema["name"])
                fields = [self.of(field["type"]) for field in schema["fields"]]
                return 1 + sum(surplus for surplus, _ in fields), 1 + sum(parts for _, parts in fields)
            case "array":
                return self._many(schema["items"], 0)
            case "map":
                return self._many(schema["values"], 1)
            case "fixed":
                if schema.get("logicalType") == "decimal" and schema["size"] > _MOST_DECIMAL_BYTES:
                    raise UsageError(f"a decimal has more than {_MOST_DECIMAL_BYTES:,} bytes")
                return _one_of(max(0, schema["size"])), 1
            case "enum":
                return _one_of(1), 1
            case other:
                return self.of(other)

    def _many(self, item: Any, key_bytes: int) -> tuple[int, int]:
        surplus, parts = self.of(item)
        if surplus > key_bytes * _MOST_VALUES_A_BYTE:
            raise UsageError(f"an array or a map may hold more than {_MOST_VALUES_A_BYTE} values a byte")
        return _one_of(1), 1 + parts


def _one_of(size_bytes: int) -> int:
    """The surplus of one value of at least so many bytes."""
    return 1 - size_bytes * _MOST_VALUES_A_BYTE
