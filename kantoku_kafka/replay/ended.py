"""Tasks that have ended, by the results topic: where the log of events tells nothing of them, or not any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kantoku_kafka.errors import EnvelopeError
from kantoku_kafka.kafka.records import value_of
from kantoku_kafka.kafka.scan import Record, Scan, beginnings, ends
from kantoku_kafka.model import Event, EventName
from kantoku_kafka.replay.fold import LoggedEvent, TaskState
from kantoku_kafka.replay.store import TaskStore

if TYPE_CHECKING:
    from kantoku_kafka.app import Kantoku

__all__ = ["Ended"]


class Ended:
    """Reads the results at the first question, up to their ends at that time, into a scratch. One thread uses it."""

    def __init__(self, kantoku: Kantoku) -> None:
        self._kantoku = kantoku
        self._store: TaskStore | None = None

    def get(self, task_id: str) -> TaskState | None:
        """How a task ended; None if the topic has no result of it.

        Raises:
            TopicMismatch, AccessDenied, BrokerUnavailable.
            WaitTimeout: an open transaction holds an end back.
        """
        if self._store is None:
            store = TaskStore(None, self._kantoku.topics.results)
            try:
                self._read(store)
            except BaseException:
                store.close()
                raise
            self._store = store
        return self._store.get(task_id)

    def close(self) -> None:
        """Idempotent."""
        if self._store is not None:
            self._store.close()

    def _read(self, store: TaskStore) -> None:
        clients, topic = self._kantoku.clients, self._kantoku.topics.results
        for records in Scan(clients, topic, beginnings(clients, topic), ends(clients, topic)).batches():
            with store.writing():
                store.add([self._end(record) for record in records if record.value() is not None], {})

    def _end(self, record: Record) -> LoggedEvent:
        """What a result says, as an event would; of one that cannot be read only that it is there."""
        try:
            result = self._kantoku.codec.decode_result(value_of(record))
        except EnvelopeError:
            task_id = (record.key() or b"").decode("utf-8", "replace")
            event = Event(task_id, "", EventName.SENT_OUTPUTS, 1, 0)
        else:
            attributes = {"status": result.status.value}
            event = Event(
                result.task_id,
                result.type,
                EventName.SENT_OUTPUTS,
                result.attempt,
                result.finished_at_us,
                source=result.source,
                attributes=attributes,
            )
        return LoggedEvent(event, record.partition() or 0, record.offset() or 0)
