"""The dead letters: read, chosen, and put back to work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from kantoku_kafka.engine.deadletter import cause_of, source_of
from kantoku_kafka.engine.judge import PUT_BACK, limits_of
from kantoku_kafka.engine.rules import Rules
from kantoku_kafka.errors import EnvelopeError, SignatureError, TopicMismatch, UsageError
from kantoku_kafka.ids import restarted_id
from kantoku_kafka.job import Message
from kantoku_kafka.kafka.outputs import EventWriter
from kantoku_kafka.kafka.records import headers_of, value_of
from kantoku_kafka.kafka.scan import Record, Scan, beginnings, decided_ends
from kantoku_kafka.kafka.topics import existing_topics
from kantoku_kafka.model import Event, Headers, Task, TaskEnvelope, lasting_headers, now_us
from kantoku_kafka.names import is_task_type
from kantoku_kafka.replay.again import again
from kantoku_kafka.replay.ended import Ended
from kantoku_kafka.replay.fold import Phase
from kantoku_kafka.replay.store import TaskStore
from kantoku_kafka.signing.seal import seal_for

if TYPE_CHECKING:
    from kantoku_kafka.app import Kantoku

__all__ = ["Letter", "LetterFilter", "Redriven", "letters", "redrive"]

_WITHOUT_RESULT = SignatureError.REASONS | {EnvelopeError.__name__}
REDRIVEN = "letter.redriven"
"""Event of a task that had no result yet and was put back on its input as it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A dead letter: where it stands, the original record, and why it died.

    Attributes:
        task: what the record says, None if it cannot be read (by this version), or came by a foreign topic.
        cause: the system's headers, without their prefix ``kantoku-``: ``error-type``, ``source-topic``, ...
    """

    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: Headers
    task: TaskEnvelope | None
    cause: Mapping[str, str]

    @property
    def failed_at_us(self) -> int | None:
        """When it died; None if the header is missing or no time."""
        try:
            return round(datetime.fromisoformat(self.cause["failed-at"]).timestamp() * 1_000_000)
        except (KeyError, ValueError):
            return None

    @property
    def source(self) -> tuple[str, int, int] | None:
        """Topic, partition and offset of the record when it died; None if the headers do not say."""
        return source_of(self.cause)


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterFilter:
    """Which letters are wanted; what is None does not matter.

    Parameters:
        task_type: of the task; a letter that cannot be read has none.
        error: the type of the error.
        since_us, until_us: died at or after, and before.
        ids: of tasks.
    """

    task_type: str | None = None
    error: str | None = None
    since_us: int | None = None
    until_us: int | None = None
    ids: frozenset[str] | None = None

    def __call__(self, letter: Letter) -> bool:
        at_us = letter.failed_at_us or 0
        return (
            self.task_type in (None, letter.task and letter.task.type)
            and self.error in (None, letter.cause.get("error-type"))
            and (self.since_us is None or at_us >= self.since_us)
            and (self.until_us is None or at_us < self.until_us)
            and (self.ids is None or (letter.task is not None and letter.task.id in self.ids))
        )


def letters(kantoku: Kantoku, wanted: LetterFilter) -> Iterator[Letter]:
    """The letters that stand there as this is called, each partition's in their order.

    What is read behind the call, events and results, knows how the task of each of them had ended.

    Raises:
        WaitTimeout: a transaction stays open.
        TopicMismatch, AccessDenied, BrokerUnavailable.
    """
    clients, topic = kantoku.clients, kantoku.topics.dlq
    scan = Scan(clients, topic, beginnings(clients, topic), decided_ends(clients, topic))
    found = (_letter(kantoku, record) for records in scan.batches() for record in records)
    return filter(wanted, found)


def _letter(kantoku: Kantoku, record: Record) -> Letter:
    headers = headers_of(record) or ()
    cause, value = cause_of(headers), record.value() or b""
    task = None
    if cause.get("input") != "":
        value = value_of(record)
        with suppress(EnvelopeError):
            task = kantoku.codec.decode_task(value)
    return Letter(
        partition=record.partition() or 0,
        offset=record.offset() or 0,
        key=record.key(),
        value=value,
        headers=lasting_headers(headers),
        task=task,
        cause=cause,
    )


class Redriven(NamedTuple):
    """What becomes of a letter: the task that it is now, or why there is none. ``known``: it was redriven before."""

    letter: Letter
    task_id: str | None
    reason: str | None = None
    known: bool = False


def redrive(
    kantoku: Kantoku,
    store: TaskStore,
    chosen: Iterable[Letter],
    *,
    dry_run: bool = False,
    chunk: int = 200,
    pause: Callable[[int], None] = lambda _: None,
) -> Iterator[Redriven]:
    """Put dead letters back to work, so many in one transaction, whose events say which: to repeat it doubles nothing.

    A task that had its result, which is every one that could be read, is spawned anew under an id derived from the old
    one; a record that could not be read goes back to its input as it was. With a seal both are signed anew, and what is
    not as it was signed stays where it is. Where events do not tell what became of a
    task, results do. What neither of them keeps any more is not known here.

    Parameters:
        store: the states of all tasks, up to date as of a time behind the call of :func:`letters`.
        pause: called behind each transaction with the number of its letters.

    Raises:
        TopicMismatch: the input of a letter is gone. What came before has been redriven.
        WaitTimeout: results are needed, and an open transaction holds them back.
    """
    topics = existing_topics(kantoku.clients)
    events = EventWriter.connect(kantoku.clients, kantoku.topics.events, kantoku.codec)
    seen: set[str] = set()
    with closing(Ended(kantoku)) as ended:
        for batch in batched(chosen, chunk):
            fates = [_fate(kantoku, store, ended, letter, topics, seen) for letter in batch]
            fresh = [fate for fate in fates if fate.task_id is not None and not fate.known]
            if fresh and not dry_run:
                with kantoku.transaction():
                    for fate in fresh:
                        _put_back(kantoku, events, fate)
                pause(len(fresh))
            yield from fates


def batched(items: Iterable[Letter], size: int) -> Iterator[list[Letter]]:
    """So many at a time."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def _fate(
    kantoku: Kantoku, store: TaskStore, ended: Ended, letter: Letter, topics: set[str], seen: set[str]
) -> Redriven:
    task = letter.task
    if task is None and "input" in letter.cause:
        topic = letter.cause.get("source-topic")
        return Redriven(letter, None, f"no task could be read from it, and {topic} is not ours to write it to")
    if task is None:
        return Redriven(letter, None, "it cannot be read by this version")
    if not is_task_type(task.type):
        return Redriven(letter, None, "it has a type that none can have")
    if (distrust := _distrust(kantoku, letter, task)) is not None:
        return Redriven(letter, None, distrust)
    topic = _input_of(kantoku, letter)
    if topic not in topics:
        raise TopicMismatch(
            f"Task {task.id} is of type {task.type!r}, whose input {topic} is gone: create it, or leave that type out "
            "by --type."
        )
    fate = _as_it_was(store, ended, letter, task) or _anew(kantoku.namespace, store, ended, letter, task)
    assert fate.task_id is not None, "a task that can be read goes somewhere"
    if fate.task_id in seen and not fate.known:
        return fate._replace(reason="another letter is of the same task", known=True)
    seen.add(fate.task_id)
    return fate


def _distrust(kantoku: Kantoku, letter: Letter, task: TaskEnvelope) -> str | None:
    """Why a letter must not be put back: it would be signed by us, or come back here."""
    try:
        seal = seal_for(kantoku.seal, letter.headers)
        if seal is not None:
            seal.check(kantoku.namespace, task, letter.key, letter.headers, None if seal.can_sign else now_us())
    except (SignatureError, UsageError) as error:
        return str(error)
    return None


def _as_it_was(store: TaskStore, ended: Ended, letter: Letter, task: TaskEnvelope) -> Redriven | None:
    """What becomes of a record that could not be read, or was not signed; None if the task got a result when it died.

    The cause is the same for a task whose options cannot be: that one was refused, with a result, from the same place.
    """
    if letter.cause.get("error-type") not in _WITHOUT_RESULT or _is_refused(task):
        return None
    state = store.get(task.id)
    put_back = state is not None and any(logged.event.name == REDRIVEN for logged in state.history)
    end = state if state is not None and state.phase is Phase.FINISHED else ended.get(task.id)
    if end is not None and end.source is not None and letter.source is not None:
        its_own = end.source[:3] == letter.source
    else:
        its_own = end is not None and not put_back
    if its_own:
        return None
    if end is not None or put_back:
        return Redriven(letter, task.id, "it was redriven before", known=True)
    return Redriven(letter, task.id)


def _is_refused(task: TaskEnvelope) -> bool:
    """Whether executors refuse a task for its options."""
    try:
        limits_of(Rules(), task)
    except EnvelopeError:
        return True
    return False


def _anew(namespace: str, store: TaskStore, ended: Ended, letter: Letter, task: TaskEnvelope) -> Redriven:
    """What becomes of a task that had its result: a new one. Results are asked where the log has forgotten the old one:
    it forgets the new one no sooner."""
    restarts, new_id = store.restarts(task.id), restarted_id(namespace, task.id)
    if restarts:
        return Redriven(letter, restarts[0], "it was restarted before", known=True)
    forgotten = store.get(task.id) is None
    if store.get(new_id) is not None or (forgotten and ended.get(new_id) is not None):
        return Redriven(letter, new_id, "it was restarted before", known=True)
    return Redriven(letter, new_id)


def _put_back(kantoku: Kantoku, events: EventWriter, fate: Redriven) -> None:
    letter, task = fate.letter, fate.letter.task
    assert task is not None and fate.task_id is not None, "only such a letter is put back"
    if fate.task_id != task.id:
        was = Message(_input_of(kantoku, letter), letter.key, letter.value, letter.headers)
        kantoku.spawn(Task(task.type, task.data).with_(again(kantoku.namespace, task, was)))
        return
    event = Event(task.id, task.type, REDRIVEN, task.attempt, now_us())
    place = "/".join(map(str, letter.source or ())).encode()
    headers, seal = letter.headers, kantoku.seal
    if seal is not None and seal.can_sign:
        headers = seal.sign(kantoku.namespace, task, letter.key, headers)
    headers = (*headers, (PUT_BACK, place))
    kantoku.write([Message(_input_of(kantoku, letter), letter.key, letter.value, headers), events.message(event)])


def _input_of(kantoku: Kantoku, letter: Letter) -> str:
    assert letter.task is not None, "only such a letter has an input"
    cause = letter.cause
    return cause.get("input") or cause.get("source-topic") or kantoku.topics.of_type(letter.task.type)
