"""From bytes to envelopes: by hand for the current schemas, driven by the writer's schema for older ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, lru_cache, partial
from typing import Any

from kantoku_kafka.avro import schemas
from kantoku_kafka.avro.wire import (
    Reader,
    read_array,
    read_boolean,
    read_bytes,
    read_int,
    read_long,
    read_map,
    read_optional,
    read_string,
    read_time,
)
from kantoku_kafka.errors import EnvelopeError
from kantoku_kafka.model import (
    CatchUp,
    Command,
    ErrorInfo,
    Event,
    Heartbeat,
    Overlap,
    Result,
    Schedule,
    ScheduleState,
    Source,
    Status,
    TaskEnvelope,
    Timer,
)

STATUSES = tuple(Status)
_new = tuple.__new__  # what a NamedTuple's own does besides costs as much again
_ID_START, _ID_END = 11, 47  # of a task id of 36 characters, behind header and length
_USUAL, _LARGEST_USUAL = 127, 600
_NO_LIMITS = _NO_LINEAGE = bytes(4)  # four unions in their null branch


def read_task(buf: bytes, pos: int) -> tuple[TaskEnvelope, int]:
    """The body of a current ``Task``."""
    task_id, pos = read_string(buf, pos)
    type_, pos = read_string(buf, pos)
    data, pos = read_bytes(buf, pos)
    created_at_us, pos = read_time(buf, pos)
    attempt, pos = read_int(buf, pos)
    max_attempts = timeout_ms = not_before_us = expires_at_us = None
    parent_id = context_id = restarted_from = idempotency_key = None
    if buf.startswith(_NO_LIMITS, pos):
        pos += 4
    else:
        max_attempts, pos = read_optional(read_int, buf, pos)
        timeout_ms, pos = read_optional(read_long, buf, pos)
        not_before_us, pos = read_optional(read_long, buf, pos)
        expires_at_us, pos = read_optional(read_long, buf, pos)
    if buf.startswith(_NO_LINEAGE, pos):
        pos += 4
    else:
        parent_id, pos = read_optional(read_string, buf, pos)
        context_id, pos = read_optional(read_string, buf, pos)
        restarted_from, pos = read_optional(read_string, buf, pos)
        idempotency_key, pos = read_optional(read_string, buf, pos)
    labels, pos = read_map(read_string, buf, pos)
    options, pos = read_map(read_bytes, buf, pos)
    task = TaskEnvelope(
        task_id,
        type_,
        data,
        created_at_us,
        attempt,
        max_attempts,
        timeout_ms,
        not_before_us,
        expires_at_us,
        parent_id,
        context_id,
        restarted_from,
        idempotency_key,
        labels,
        options,
    )
    return task, pos


def read_result(buf: bytes, pos: int) -> tuple[Result, int]:
    """The body of a current ``Result``."""
    task_id, pos = read_string(buf, pos)
    type_, pos = read_string(buf, pos)
    status, pos = _read_status(buf, pos)
    data, pos = read_bytes(buf, pos)
    error, pos = read_optional(_read_error, buf, pos)
    attempt, pos = read_int(buf, pos)
    executor_id, pos = read_string(buf, pos)
    started_at_us, pos = read_optional(read_time, buf, pos)
    finished_at_us, pos = read_time(buf, pos)
    source, pos = _read_source(buf, pos)
    result = task_id, type_, status, data, error, attempt, executor_id, started_at_us, finished_at_us, source, ()
    return _new(Result, result), pos


def read_event(buf: bytes, pos: int) -> tuple[Event, int]:
    """The body of a current ``Event``."""
    task_id, pos = read_string(buf, pos)
    type_, pos = read_string(buf, pos)
    name, pos = read_string(buf, pos)
    attempt, pos = read_int(buf, pos)
    at_us, pos = read_time(buf, pos)
    executor_id, pos = read_optional(read_string, buf, pos)
    source, pos = read_optional(_read_source, buf, pos)
    error, pos = read_optional(_read_error, buf, pos)
    attributes, pos = read_map(read_string, buf, pos)
    return _new(Event, (task_id, type_, name, attempt, at_us, executor_id, source, error, attributes)), pos


def read_usual_event(value: bytes) -> Event | None:
    """A whole record of a current ``Event`` as nearly all of them are; None for any other, :func:`read_event` reads it.

    What is the same in many events (type and name, executor and input, attributes) is read once for all of them.
    """
    try:
        type_end = _ID_END + 1 + (value[_ID_END] >> 1)
        name_end = type_end + 1 + (value[type_end] >> 1)
        time_end = name_end + 9
        if value[_ID_START - 1] != 72 or name_end > _USUAL or len(value) > _LARGEST_USUAL:
            return None
        kind = _kind(value[_ID_END : name_end + 1])
        at_us, end = read_time(value, name_end + 1)
        if kind is None or end != time_end:
            return None
        task_id = value[_ID_START:_ID_END].decode()
        type_, name, attempt = kind
        if value.startswith(b"\0\0\0", time_end):
            tail = _attributes(value[time_end + 3 :])
            if tail is None:
                return None
            return _new(Event, (task_id, type_, name, attempt, at_us, None, None, None, dict(tail)))
        executor_end = time_end + 2 + (value[time_end + 1] >> 1)
        topic_end = executor_end + 2 + (value[executor_end + 1] >> 1)
        place_end = topic_end + (1 if value[topic_end] < 128 else 2)
        place = _place(value[time_end:place_end])
        if place is None:
            return None
        offset, end = read_long(value, place_end)
        epoch, end = read_int(value, end)
        tail = _attributes(value[end + 1 :])
        if value[end] or tail is None:
            return None
        executor_id, topic, partition = place
        source = _new(Source, (topic, partition, offset, epoch))
        return _new(Event, (task_id, type_, name, attempt, at_us, executor_id, source, None, dict(tail)))
    except (IndexError, UnicodeDecodeError, EnvelopeError):
        return None


@lru_cache(maxsize=1024)
def _kind(raw: bytes) -> tuple[str, str, int] | None:
    """Type, name and attempt, if that is all of it."""
    try:
        type_, pos = read_string(raw, 0)
        name, pos = read_string(raw, pos)
        attempt, pos = read_int(raw, pos)
    except EnvelopeError:
        return None
    return (type_, name, attempt) if pos == len(raw) else None


@lru_cache(maxsize=4096)
def _place(raw: bytes) -> tuple[str, str, int] | None:
    """Executor, topic and partition, if that is all of it, and both unions have their value."""
    try:
        executor_id, pos = read_string(raw, 1)
        topic, end = read_string(raw, pos + 1)
        partition, end = read_int(raw, end)
    except EnvelopeError:
        return None
    usual = end == len(raw) and raw[0] == raw[pos] == 2
    return (executor_id, topic, partition) if usual else None


@lru_cache(maxsize=1024)
def _attributes(raw: bytes) -> tuple[tuple[str, str], ...] | None:
    """The items of a map, if that is all of it."""
    try:
        items, pos = read_map(read_string, raw, 0)
    except EnvelopeError:
        return None
    return tuple(items.items()) if pos == len(raw) else None


def read_by_schema(name: str, value: bytes, header_bytes: int) -> tuple[Any, int]:
    """A record of any released version, by its own schema: the envelope, and the position behind it.

    Raises:
        EnvelopeError: if no version of ``name`` has the fingerprint of the record.
    """
    mark = value[len(schemas.MARKER) : header_bytes]
    if not value.startswith(schemas.MARKER) or len(mark) < 8:
        raise EnvelopeError("The record is not in Avro single-object encoding: it must begin with C3 01.")
    schema = _versions(name).get(mark)
    if schema is None:
        raise EnvelopeError(f"The fingerprint {mark.hex()} is that of no released {name} schema; upgrade the reader.")
    fields, pos = _reader_of(schema)(value, header_bytes)
    return _BUILD[name](fields), pos


@cache
def _versions(name: str) -> Mapping[bytes, schemas.Schema]:
    return dict(schemas.versions(name))


def _read_status(buf: bytes, pos: int) -> tuple[Status, int]:
    index, pos = read_int(buf, pos)
    if not 0 <= index < len(STATUSES):
        raise EnvelopeError(f"The envelope has a status of unknown index {index}.")
    return STATUSES[index], pos


def _read_error(buf: bytes, pos: int) -> tuple[ErrorInfo, int]:
    type_, pos = read_string(buf, pos)
    message, pos = read_string(buf, pos)
    detail, pos = read_optional(read_string, buf, pos)
    retryable, pos = read_boolean(buf, pos)
    return ErrorInfo(type_, message, detail, retryable), pos


def _read_source(buf: bytes, pos: int) -> tuple[Source, int]:
    topic, pos = read_string(buf, pos)
    partition, pos = read_int(buf, pos)
    offset, pos = read_long(buf, pos)
    epoch, pos = read_int(buf, pos)
    return _new(Source, (topic, partition, offset, epoch)), pos


def _read_header(buf: bytes, pos: int) -> tuple[tuple[str, bytes | None], int]:
    name, pos = read_string(buf, pos)
    value, pos = read_optional(read_bytes, buf, pos)
    return (name, value), pos


# --- by schema: records of primitives, optionals, maps, records and arrays of headers

_PRIMITIVES: Mapping[str, Reader[Any]] = {
    "string": read_string,
    "bytes": read_bytes,
    "int": read_int,
    "long": read_long,
    "boolean": read_boolean,
}


def _reader_of(schema: Any) -> Reader[Any]:
    if isinstance(schema, str):
        return _PRIMITIVES[schema]
    if isinstance(schema, list):
        return partial(read_optional, _reader_of(schema[1]))
    kind = schema["type"]
    if kind == "map":
        return partial(read_map, _reader_of(schema["values"]))
    if kind == "array":
        return partial(read_array, _read_header)
    if kind == "enum":
        return _read_status
    if kind != "record":
        return _reader_of(kind)
    fields = [(field["name"], _reader_of(field["type"])) for field in schema["fields"]]

    def read_record(buf: bytes, pos: int) -> tuple[dict[str, Any], int]:
        record: dict[str, Any] = {}
        for name, read in fields:
            record[name], pos = read(buf, pos)
        return record, pos

    return read_record


_TIMES = {"created_at", "not_before", "expires_at", "started_at", "finished_at", "at", "due_at"}
_TIMES |= {"changed_at", "start_at", "end_at", "every", "jitter", "grace"}


def _arguments(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Field names as the model has them: a time carries its unit, nested records are tuples of ours."""
    found = {f"{name}_us" if name in _TIMES else name: value for name, value in fields.items()}
    if "headers" in found:
        found["headers"] = tuple(found["headers"])
    if found.get("error"):
        found["error"] = ErrorInfo(**found["error"])
    if found.get("source"):
        found["source"] = Source(**found["source"])
    return found


def _schedule(fields: Mapping[str, Any]) -> Schedule:
    arguments = _arguments(fields)
    try:
        arguments |= {"overlap": Overlap(arguments["overlap"]), "catch_up": CatchUp(arguments["catch_up"])}
    except ValueError as error:
        raise EnvelopeError(f"The schedule cannot be read: {error}; upgrade the reader.") from error
    return Schedule(**arguments)


def _older_result(fields: Mapping[str, Any]) -> Result:
    return Result(**{"started_at_us": None, "error": None, **_arguments(fields)})


_BUILD: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "Task": lambda fields: TaskEnvelope(**_arguments(fields)),
    "Result": _older_result,
    "Event": lambda fields: Event(**_arguments(fields)),
    "Heartbeat": lambda fields: Heartbeat(**_arguments(fields)),
    "Command": lambda fields: Command(**_arguments(fields)),
    "Timer": lambda fields: Timer(**_arguments(fields)),
    "Schedule": _schedule,
    "ScheduleState": lambda fields: ScheduleState(**_arguments(fields)),
}
