"""Records of topics that others write become tasks of ours, where they are read. No I/O."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from uuid import NAMESPACE_URL, uuid5

from kantoku_kafka.engine.reply import OPTION as REPLY_TO
from kantoku_kafka.errors import EnvelopeError, UsageError
from kantoku_kafka.formats.base import ForeignRecord, Format, checked_headers
from kantoku_kafka.ids import idempotent_id
from kantoku_kafka.job import Job
from kantoku_kafka.model import TaskEnvelope, carried_headers, now_us
from kantoku_kafka.names import Topics
from kantoku_kafka.protocols import Codec

__all__ = ["ForeignReader", "foreign_readers"]

_log = logging.getLogger(__name__)


class ForeignReader:
    """Reads the tasks of one foreign topic; see :class:`~kantoku_kafka.protocols.TaskReader`.

    What a record becomes depends on the record alone: read again, elsewhere or later, it is the same task.

    Parameters:
        topic: where the records stand.
        formats: by task type; of several, each names its own ``types``, and differs in nothing else.
        topics: of the namespace.
        codec: of the envelopes.
    """

    def __init__(self, topic: str, formats: Mapping[str, Format], topics: Topics, codec: Codec) -> None:
        self._topic = topic
        self._topics = topics
        self._codec = codec
        self._all, self.format = next(iter(formats.items()))
        self._by_kind = {kind: task_type for task_type, one in formats.items() for kind in one.types}
        for task_type, one in formats.items():
            if _but_types(one) != _but_types(self.format):
                raise UsageError(
                    f"Task types {self._all!r} and {task_type!r} read topic {topic} differently: give both the same "
                    "format; only types differ."
                )
        named = [kind for one in formats.values() for kind in set(one.types)]
        if len(formats) > 1 and (len(named) > len(self._by_kind) or not all(one.types for one in formats.values())):
            raise UsageError(
                f"Task types {', '.join(map(repr, formats))} share topic {topic}: each names the types of records that "
                "are for it, and no two the same."
            )

    def __call__(self, job: Job) -> bool:
        job.home = ""
        try:
            return self._make_ours(job)
        except EnvelopeError:
            raise
        except Exception as error:
            _log.exception("a format failed", extra={"action": "format_failed", "topic": self._topic})
            raise EnvelopeError(f"{type(self.format).__name__} failed: {type(error).__name__}.") from error

    def _make_ours(self, job: Job) -> bool:
        record = ForeignRecord(job.key, None if job.is_null else job.value, tuple(job.raw_headers or ()))
        found = self.format.read(record)
        task_type = self._by_kind.get(found.kind or "") if self._by_kind else self._all
        if task_type is None:
            return False
        reply_topic = self.format.reply_topic(record.headers)
        task = TaskEnvelope(
            id=self._id(task_type, found.id, job),
            type=task_type,
            data=found.data,
            created_at_us=1_000 * max(0, getattr(job, "written_at_ms", 0)) or now_us(),
            idempotency_key=found.id,
            options={} if reply_topic is None else {REPLY_TO: reply_topic.encode()},
        )
        headers = checked_headers(carried_headers(found.headers))  # the system's own are not for others to set
        job.value = self._codec.encode_task(task)
        job.raw_headers = headers
        job.key = task.id.encode() if job.key is None else job.key
        job.home = self._topics.of_type(task_type)
        return True

    def _id(self, task_type: str, name: str | None, job: Job) -> str:
        if name is not None:
            return idempotent_id(self._topics.namespace, task_type, name)
        return str(uuid5(NAMESPACE_URL, f"{self._topic}/{job.partition.number}/{job.offset}"))


def _but_types(one: Format) -> tuple[object, ...]:
    return type(one), {**vars(one), "types": ()}


def foreign_readers(
    from_topics: Mapping[str, Mapping[str, Format]], topics: Topics, codec: Codec
) -> dict[str, ForeignReader]:
    """The reader of each foreign topic.

    Parameters:
        from_topics: formats by task type and topic.

    Raises:
        UsageError: task types that share a topic do not go together.
    """
    by_topic: dict[str, dict[str, Format]] = {}
    for task_type, formats in from_topics.items():
        for topic, one in formats.items():
            if topics.is_ours(topic):
                raise UsageError(f"Task {task_type!r}: {topic} is a topic of ours, and cannot be in from_topics.")
            by_topic.setdefault(topic, {})[task_type] = one
    return {topic: ForeignReader(topic, formats, topics, codec) for topic, formats in by_topic.items()}
