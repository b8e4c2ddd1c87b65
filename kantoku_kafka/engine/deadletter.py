"""A record that no task can be read from, on its way to the dead letters: original bytes, the cause in headers."""

from __future__ import annotations

from datetime import UTC, datetime

from kantoku_kafka.job import Job, Message
from kantoku_kafka.model import ErrorInfo, utf8_safe

__all__ = ["dead_letter"]


def dead_letter(topic: str, job: Job, error: ErrorInfo) -> Message:
    """The dead letter of a job: key, value and headers as they were, in their order, then the system's own.

    ``kantoku-input`` is there if the record came by a foreign topic: the input of ours for another try; empty if no
    task was read from it.
    """
    partition = job.partition
    cause = {
        "kantoku-error-type": error.type,
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
