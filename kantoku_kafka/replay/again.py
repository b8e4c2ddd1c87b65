"""What is done with history: events copied elsewhere, tasks spawned again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from kantoku_kafka.avro.control import decode_timer
from kantoku_kafka.errors import EnvelopeError
from kantoku_kafka.ids import restarted_id
from kantoku_kafka.job import Message
from kantoku_kafka.kafka.outputs import EventWriter
from kantoku_kafka.kafka.records import headers_of, value_of
from kantoku_kafka.kafka.scan import Record, pick
from kantoku_kafka.kafka.spawner import Failures, Spawner, Ticket, Written
from kantoku_kafka.model import Option, Task, TaskEnvelope, carried_headers, lasting_headers
from kantoku_kafka.replay.fold import TaskState
from kantoku_kafka.replay.log import Replay
from kantoku_kafka.signing.seal import seal_for

if TYPE_CHECKING:
    from kantoku_kafka.app import Kantoku
    from kantoku_kafka.plugins import SpawnContext

__all__ = ["Original", "Recorder", "again", "copy_events", "originals"]


class Recorder:
    """Writes records that are no tasks; what was handed over is there once :meth:`flush` returns. For one thread."""

    def __init__(self, kantoku: Kantoku) -> None:
        seconds = kantoku.connection.timeout_seconds
        self._spawner = Spawner(kantoku.clients, queue_timeout_seconds=seconds, delivery_timeout_seconds=seconds)
        self._failures: Failures = []

    def write(self, record: Written) -> None:
        """Raises what :class:`Spawner` raises, for this record or one before it."""
        self._spawner.check(self._failures)
        self._spawner.send(record, Ticket(record[0], self._failures))

    def flush(self) -> None:
        """Raises as :meth:`write`."""
        self._spawner.flush(self._failures)


def copy_events(kantoku: Kantoku, replay: Replay, topic: str) -> int:
    """Write the events of a replay to another topic, as they are: a compacted one then holds each of them once.

    Raises:
        TopicMismatch: there is no such topic.
        SpawnError, AccessDenied, BrokerUnavailable: what came before has been written.
    """
    writer, recorder, copied = EventWriter.connect(kantoku.clients, topic, kantoku.codec), Recorder(kantoku), 0
    for batch in replay.batches():
        for logged in batch:
            recorder.write(writer.message(logged.event))
        copied += len(batch)
    recorder.flush()
    return copied


class Original(NamedTuple):
    """A task as it was put on its input, and the state it came to; None if its input no longer holds it."""

    state: TaskState
    task: Task | None


def originals(
    kantoku: Kantoku, states: Sequence[TaskState], restarts: Callable[[str], int] = lambda _: 0
) -> Iterator[Original]:
    """The tasks to spawn again: type, data, labels, options, key and headers of the original, and ``restarted_from``.

    Parameters:
        restarts: how often the task of an id was restarted before.

    Raises:
        TopicMismatch, AccessDenied, BrokerUnavailable.
        SignatureError, UsageError: one is not as it was signed, and would be signed now; or would not be any more.
        WaitTimeout: an input does not tell in time whether it still holds one.
    """
    by_topic: defaultdict[str, dict[tuple[int, int], TaskState]] = defaultdict(dict)
    for state in states:
        if state.source is not None:
            by_topic[state.source.topic][state.source.partition, state.source.offset] = state
    found: set[str] = set()
    for topic, places in by_topic.items():
        wanted: defaultdict[int, list[int]] = defaultdict(list)
        for partition, offset in places:
            wanted[partition].append(offset)
        for record in pick(kantoku.clients, topic, wanted, insist=True):
            of = places.get((record.partition() or 0, record.offset() or 0))
            task = None if of is None else _as_put(kantoku, record)
            if of is None or task is None:
                continue
            envelope = kantoku.codec.decode_task(task.value or b"")
            if envelope.id != of.task_id:  # the topic was created anew
                continue
            seal = seal_for(kantoku.seal, task.headers)
            if seal is not None:
                seal.check(kantoku.namespace, envelope, task.key, task.headers)
            found.add(of.task_id)
            option = again(kantoku.namespace, envelope, task, restarts(envelope.id))
            yield Original(of, Task(envelope.type, envelope.data).with_(option))
    for state in states:
        if state.task_id not in found:
            yield Original(state, None)


def _as_put(kantoku: Kantoku, record: Record) -> Message | None:
    """A task as it was put on its input, from there or from its timer; None: there is none in this record."""
    value = value_of(record)
    try:
        if record.topic() == kantoku.topics.timers:
            timer = decode_timer(value)
            found = Message(timer.topic, timer.key, timer.task, timer.headers)
        else:
            found = Message(record.topic() or "", record.key(), value, lasting_headers(headers_of(record)))
        kantoku.codec.decode_task(found.value or b"")
    except EnvelopeError:
        return None
    return found


def again(namespace: str, envelope: TaskEnvelope, task: Message, times: int = 0) -> Option:
    """What makes a task the restart of another one, which was put on its input so, after so many restarts before.

    Its id follows from the old one: who restarts it at the same time spawns a duplicate.
    """

    def option(ctx: SpawnContext) -> None:
        ctx.id = restarted_id(namespace, envelope.id, times)
        ctx.fields |= {
            "max_attempts": envelope.max_attempts,
            "timeout_ms": envelope.timeout_ms,
            "context_id": envelope.context_id,
            "restarted_from": envelope.id,
        }
        ctx.labels |= envelope.labels
        ctx.options |= envelope.options
        ctx.headers, ctx.topic = carried_headers(task.headers), task.topic
        if task.key != envelope.id.encode():
            ctx.key = task.key

    return option
