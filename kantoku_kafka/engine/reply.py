"""The reply of a task: its result once more, as a record for a topic that somebody else reads. No I/O."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import NamedTuple

from kantoku_kafka.engine.rules import Rules
from kantoku_kafka.errors import EnvelopeError
from kantoku_kafka.formats.base import Format, checked_headers
from kantoku_kafka.job import Job, Message
from kantoku_kafka.model import TaskEnvelope, utf8_safe
from kantoku_kafka.names import Topics, is_topic

__all__ = ["OPTION", "Replies", "Reply", "drop_reply", "reply_message"]

_log = logging.getLogger(__name__)

OPTION = "reply_to"
"""Under which name the topic travels in the options of an envelope."""
_MAX_MESSAGE = 1_000
_NO_RULES = Rules()


class Reply(NamedTuple):
    """Where the reply of a task goes, and how it is written."""

    topic: str
    format: Format


class Replies:
    """Which reply a task asks for. Immutable, safe in any thread.

    Parameters:
        topics: of the namespace; no reply goes to one of these.
        rules: by task type.
    """

    def __init__(self, topics: Topics, rules: Mapping[str, Rules]) -> None:
        self._topics = topics
        self._rules = rules

    def of(self, task_type: str, envelope: TaskEnvelope | None) -> Reply | None:
        """By the option of the task, or else by its type; None: none. Raises EnvelopeError for what is no topic."""
        rules = self._rules.get(task_type, _NO_RULES)
        topic = rules.reply_to
        if envelope is not None and OPTION in envelope.options:
            topic = envelope.options[OPTION].decode("utf-8", "replace")
            if not is_topic(topic) or self._topics.is_ours(topic):
                raise EnvelopeError(f"The task's option {OPTION!r} names {topic[:249]!r}, where no reply can go.")
        return None if topic is None else Reply(topic, rules.reply_format)


def reply_message(job: Job, reply: Reply, executor_id: str) -> Message:
    """The reply of a job that has a result; its key is that of the task's record."""
    result = job.result(executor_id)
    value, headers = reply.format.write(result)
    if not isinstance(value, bytes):
        raise TypeError(f"{type(reply.format).__name__} wrote a {type(value).__name__}, not bytes")
    told = {"kantoku-task-id": result.task_id, "kantoku-status": result.status.value}
    if result.error is not None:
        told["kantoku-error-type"] = result.error.type
        told["kantoku-error-message"] = result.error.message[:_MAX_MESSAGE]
    own = tuple((name, utf8_safe(text).encode()) for name, text in told.items())
    return Message(reply.topic, job.key, value, (*checked_headers(headers), *own))


def drop_reply(job: Job, error: Exception | None = None) -> None:
    """Give up the reply of a job that has one, because it cannot be encoded or is refused."""
    assert job.reply is not None, "there is one to drop"
    action = {"action": "reply_refused"}
    _log.warning("task %s: no reply to %s", job.task_id, job.reply.topic, exc_info=error, extra=action)
    job.reply = None
