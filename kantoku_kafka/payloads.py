"""Typed values for task functions: how a task's data are read, and its result is written.

A payload is declared with the task type, ``@kan.task("ship", payload=JsonPayload())``. It works where the function
runs: in a thread, in a child process, beside an event loop.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from kantoku_kafka.avro.safe import SafeSchema
from kantoku_kafka.errors import BadPayload, TaskError, UsageError
from kantoku_kafka.protocols import Payload

__all__ = ["AvroPayload", "BytesPayload", "JsonPayload", "Unserialisable", "chosen_payloads", "typed"]

MAX_PAYLOAD_BYTES = 4 << 20


class BytesPayload:
    """Bytes as they are: for a function that takes values and returns bytes, or the other way round."""

    blocking = False

    def load(self, data: bytes) -> bytes:
        return data

    def dump(self, value: Any) -> bytes:
        if type(value) is not bytes:
            raise TypeError("it is not bytes")
        return value


class JsonPayload:
    """JSON in UTF-8. Stateless: safe in any thread.

    Parameters:
        type: what a function takes or returns: a pydantic model, a dataclass, a TypedDict, ``list[...]`` of them;
            checked by pydantic, which has to be installed. Default: whatever JSON is in Python.
            NaN and infinities are no JSON.

    Raises:
        UsageError: pydantic is missing, or cannot make JSON of the type.
    """

    blocking = False

    def __init__(self, type: Any = None) -> None:  # noqa: A002 - the word for it everywhere
        self._adapter = None if type is None else _adapter(type)

    def load(self, data: bytes) -> Any:
        if self._adapter is not None:
            return self._adapter.validate_json(data)
        return json.loads(data, parse_constant=_no_json)

    def dump(self, value: Any) -> bytes:
        if self._adapter is not None:
            checked = self._adapter.validate_python(value)
            dumped: bytes = self._adapter.dump_json(checked, by_alias=True)
            return dumped
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _adapter(type_: Any) -> Any:
    try:
        from pydantic import TypeAdapter
        from pydantic.errors import PydanticUserError
    except ImportError:
        raise UsageError("JsonPayload(type=...) checks by pydantic: pip install pydantic.") from None
    try:
        return TypeAdapter(type_)
    except PydanticUserError as error:
        raise UsageError(f"JsonPayload cannot take {type_!r}: {error.message}.") from error


def _no_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


class AvroPayload:
    """Avro by one schema: the bare body, as schemaless writers have it. Stateless: safe in any thread.

    Parameters:
        schema: as JSON text, or parsed from it; not recursive.
        max_bytes: longer data are refused before they are looked at; default 4 MiB.

    Raises:
        UsageError: for a schema that is none, or none that is safe.
    """

    blocking = False

    def __init__(self, schema: str | Mapping[str, Any] | list[Any], *, max_bytes: int = MAX_PAYLOAD_BYTES) -> None:
        self._schema = SafeSchema(schema)
        self._max_bytes = max_bytes

    def load(self, data: bytes) -> Any:
        check_size(data, self._max_bytes)
        return self._schema.decode(data)

    def dump(self, value: Any) -> bytes:
        return self._schema.encode(value)


def check_size(data: bytes, max_bytes: int) -> None:
    """Raise BadPayload for data that are too long to be looked at."""
    if len(data) > max_bytes:
        raise BadPayload(f"The data have {len(data)} bytes; the payload takes {max_bytes} at most.")


def chosen_payloads(task_type: str, reads: Payload | None, writes: Payload | None) -> tuple[Payload, ...]:
    """That of the data and that of the result; none if the function takes and returns bytes. Raises UsageError."""
    for payload in (reads, writes):
        if payload is not None and (isinstance(payload, type) or not isinstance(payload, Payload)):
            name = getattr(payload, "__name__", type(payload).__name__)
            raise UsageError(f"Task {task_type!r}: {name} is no payload; make one, e.g. payload=JsonPayload().")
    if reads is None:
        return () if writes is None else (BytesPayload(), writes)
    return reads, reads if writes is None else writes


@dataclass(frozen=True, slots=True)
class Unserialisable:
    """In the place of a result: what the function returned cannot be written, and why."""

    reason: str


def typed(
    function: Callable[..., Any], payload: Payload, result_payload: Payload, *, takes_context: bool
) -> Callable[..., Any]:
    """A function of bytes around one of typed values; asynchronous if that one is."""

    def load(data: bytes) -> Any:
        try:
            return payload.load(data)
        except (TaskError, MemoryError):
            raise
        except Exception as error:
            raise BadPayload(f"The data cannot be read: {type(error).__name__}: {error}") from error

    def dump(value: Any) -> bytes | Unserialisable:
        try:
            return result_payload.dump(value)
        except (TaskError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever user code raises fails its task
            name = type(value).__name__
            return Unserialisable(f"What the task returned, {name}, cannot be written: {type(error).__name__}: {error}")

    if inspect.iscoroutinefunction(function):

        async def asynchronous(data: bytes, ctx: Any = None) -> bytes | Unserialisable:
            value = await asyncio.to_thread(load, data) if payload.blocking else load(data)
            result = await (function(value, ctx) if takes_context else function(value))
            return await asyncio.to_thread(dump, result) if result_payload.blocking else dump(result)

        return functools.wraps(function)(asynchronous)

    @functools.wraps(function)
    def plain(data: bytes, ctx: Any = None) -> bytes | Unserialisable:
        value = load(data)
        return dump(function(value, ctx) if takes_context else function(value))

    return plain
