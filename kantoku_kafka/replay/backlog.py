"""Tasks that stand on their inputs and have no event yet: those of other programs, or of spawners that log nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kantoku_kafka.engine.steps import event_of
from kantoku_kafka.errors import EnvelopeError
from kantoku_kafka.kafka.group import InputLag, input_topics, lag_of
from kantoku_kafka.kafka.records import value_of
from kantoku_kafka.kafka.scan import Scan
from kantoku_kafka.model import Event, Source
from kantoku_kafka.replay.fold import LoggedEvent
from kantoku_kafka.replay.store import TaskStore

if TYPE_CHECKING:
    from kantoku_kafka.app import Kantoku

__all__ = ["backlog"]

_NOWHERE = -1


def backlog(kantoku: Kantoku, known: TaskStore, most: int) -> TaskStore:
    """A scratch of the tasks that are not done and of which ``known`` has nothing; whoever takes it closes it.

    Parameters:
        most: so many records of each input partition are looked at, the oldest first.

    Raises:
        AccessDenied, BrokerUnavailable, WaitTimeout.
    """
    found = TaskStore(None, "inputs")
    topics = list(input_topics(kantoku.clients, kantoku.topics))
    for lag in lag_of(kantoku.clients, kantoku.topics, topics, oldest=False):
        if lag.lag:
            spawned = [logged for logged in _spawned(kantoku, lag, most) if known.get(logged.event.task_id) is None]
            with found.writing():
                found.add(spawned, {})
    return found


def _spawned(kantoku: Kantoku, lag: InputLag, most: int) -> list[LoggedEvent]:
    """What the inputs say of the spawns, as an event would."""
    done = {offset for start, end in lag.done for offset in range(start, end)}
    end = min(lag.end, lag.committed + lag.done_beyond + most)
    scan = Scan(kantoku.clients, lag.topic, {lag.partition: lag.committed}, {lag.partition: end})
    events = []
    for records in scan.batches():
        for record in records:
            offset = record.offset() or 0
            if offset in done:
                continue
            try:
                event: Event = event_of(kantoku.codec.decode_task(value_of(record)))
            except EnvelopeError:  # its dead letter is to come
                continue
            source = Source(lag.topic, lag.partition, offset)
            events.append(LoggedEvent(event._replace(source=source), _NOWHERE, _NOWHERE))
    return events
