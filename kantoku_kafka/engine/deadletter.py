"""Dead letters: original bytes, the cause in headers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from kantoku_kafka.job import Job, Message
from kantoku_kafka.model import SIGNATURE, ErrorInfo, utf8_safe

__all__ = ["cause_of", "dead_letter", "source_of"]

_PREFIX, _FIRST = "kantoku-", "kantoku-error-type"


def dead_letter(topic: str, job: Job, error: ErrorInfo) -> Message:
    """The dead letter of a job: key, value and headers as they were, in their order, then the system's own.

    ``kantoku-input`` is there if the record came by a foreign topic: the input of ours for another try; empty if no
    task was read from it.
    """
    partition = job.partition
    cause = {
        _FIRST: error.type,
        "kantoku-error-message": error.message,
        "kantoku-attempt": str(getattr(job, "attempt", 1)),
        "kantoku-source-topic": partition.topic,
        "kantoku-source-partition": str(partition.number),
        "kantoku-source-offset": str(job.offset),
        "kantoku-failed-at": datetime.now(UTC).isoformat(),
    }
    if job.home is not None:
        cause["kantoku-input"] = job.home
    headers = (*(job.raw_headers or ()), *((name, utf8_safe(value).encode()) for name, value in cause.items()))
    return Message(topic, job.key, job.value or (None if job.is_null else b""), headers)


def cause_of(headers: Iterable[tuple[str, bytes | None]]) -> dict[str, str]:
    """The system's headers of a dead letter, without their prefix. What stands before the last cause was on the
    original."""
    cause: dict[str, str] = {}
    for name, text in headers:
        if name == _FIRST:
            cause = {}
        if name.startswith(_PREFIX) and name != SIGNATURE:
            cause[name.removeprefix(_PREFIX)] = (text or b"").decode("utf-8", "replace")
    return cause


def source_of(cause: Mapping[str, str]) -> tuple[str, int, int] | None:
    """Topic, partition and offset of the record when it died; None if its headers do not say."""
    try:
        return cause["source-topic"], int(cause["source-partition"]), int(cause["source-offset"])
    except (KeyError, ValueError):
        return None
