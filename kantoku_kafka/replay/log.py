"""The audit topic as a log: replayed from any point to a consistent end, followed live, folded into task states."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from kantoku_kafka.avro.schemas import MARKER
from kantoku_kafka.errors import EnvelopeError, KantokuError, UsageError
from kantoku_kafka.kafka.clients import Clients
from kantoku_kafka.kafka.partitioner import partition_of
from kantoku_kafka.kafka.records import value_of
from kantoku_kafka.kafka.scan import Offsets, Record, Scan, beginnings, ends, first_at
from kantoku_kafka.kafka.topics import tombstones_kept_ms, topic_identity
from kantoku_kafka.model import Event, now_us
from kantoku_kafka.protocols import Codec
from kantoku_kafka.replay.fold import Fold, LoggedEvent
from kantoku_kafka.replay.store import StoreUnusable, TaskStore, remove

__all__ = ["EventFilter", "EventLog", "Replay"]

_log = logging.getLogger(__name__)
_new = tuple.__new__  # what a NamedTuple's own does besides costs as much again
_REMEMBERED = 100_000
_FOLLOW_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True)
class EventFilter:
    """Which events are wanted; what is None does not matter.

    ``status`` is that of a result, which ``sent_outputs`` tells. ``labels`` stand in the event ``spawned``; the later
    events of a task follow it, if it was read: of the last 100,000 tasks that matched.
    """

    task_id: str | None = None
    type: str | None = None
    name: str | None = None
    status: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    def predicate(self) -> Callable[[Event], bool] | None:
        """A function that tells; None if all events are wanted. It remembers: one for each pass."""
        if self == EventFilter():
            return None
        wanted = {f"label.{name}": value for name, value in self.labels.items()}.items()
        matched: dict[str, None] = {}

        def matches(event: Event) -> bool:
            if wanted and event.name == "spawned" and wanted <= event.attributes.items():
                matched[event.task_id] = None
                if len(matched) > _REMEMBERED:
                    del matched[next(iter(matched))]
            return (
                (self.task_id is None or event.task_id == self.task_id)
                and (self.type is None or event.type == self.type)
                and (self.name is None or event.name == self.name)
                and (self.status is None or event.attributes.get("status") == self.status)
                and (not wanted or event.task_id in matched)
            )

        return matches


class Replay:
    """One pass over the log; iterating gives the events. One thread uses it.

    Attributes:
        unreadable: how many records were left out, because they are no events of a schema that is known here.
    """

    def __init__(self, scan: Scan, codec: Codec, wanted: EventFilter, timeout_seconds: float | None = None) -> None:
        self._scan = scan
        self._decode = codec.decode_event
        self._wanted = wanted
        self._timeout_seconds = timeout_seconds
        self.unreadable = 0

    @property
    def offsets(self) -> Offsets:
        """Up to where it has read: where another replay goes on. True between two batches, and at the end."""
        return self._scan.offsets

    def __iter__(self) -> Iterator[Event]:
        for batch in self.batches():
            for logged in batch:
                yield logged.event

    def batches(self) -> Iterator[list[LoggedEvent]]:
        """The same with the place of each event, in the portions in which they came; some are empty."""
        matches, logged_of = self._wanted.predicate(), self.logged
        for records in self.records():
            events = [logged for record in records if (logged := logged_of(record)) is not None]
            yield events if matches is None else [logged for logged in events if matches(logged.event)]

    def records(self) -> Iterator[Sequence[Record]]:
        """The records themselves, unfiltered: tombstones as well, and what cannot be read."""
        return self._scan.batches(self._timeout_seconds)

    def logged(self, record: Record) -> LoggedEvent | None:
        """The event in a record; None if there is none."""
        value = record.value()
        if value is None:
            return None
        if not value.startswith(MARKER):
            value = value_of(record)
        try:
            return _new(LoggedEvent, (self._decode(value), record.partition() or 0, record.offset() or 0))
        except EnvelopeError as error:
            self.unreadable += 1
            if self.unreadable == 1:
                place = record.topic(), record.partition(), record.offset()
                _log.warning("left out: %s[%s] offset %s: %s", *place, error, extra={"action": "unreadable_event"})
            return None


class EventLog:
    """The events of an app, as its topic holds them. Thread-safe; every call reads by itself.

    Parameters:
        clients: the connection.
        topic: the audit topic.
        codec: reads the events.
    """

    def __init__(self, clients: Clients, topic: str, codec: Codec) -> None:
        self._clients = clients
        self.topic = topic
        self._codec = codec

    def replay(
        self,
        *,
        since: datetime | Mapping[int, int] | None = None,
        until: datetime | Mapping[int, int] | None = None,
        wanted: EventFilter | None = None,
    ) -> Replay:
        """Events from a point to an end that is fixed now, each partition's (and so each task's) in order.

        Parameters:
            since: a time, or offsets by partition; default: the beginning. Times are those of the records.
            until: likewise, what is not given any more; default: all that is there now.
            wanted: a filter; default: every event.

        Raises:
            UsageError: a time in the future, or offsets that the topic does not have.
            TopicMismatch, AccessDenied, BrokerUnavailable: as the connection has it.
            WaitTimeout: while reading, if an open transaction holds an end back.
        """
        wanted = wanted or EventFilter()
        present = ends(self._clients, self.topic)
        start = self._point(since, present) if since is not None else beginnings(self._clients, self.topic)
        end = self._point(until, present) if until is not None else present
        if wanted.task_id is not None:
            only = partition_of(wanted.task_id.encode(), len(present))
            start = {only: start[only]}
        return Replay(Scan(self._clients, self.topic, start, end), self._codec, wanted)

    def tail(self, *, since: datetime | Mapping[int, int] | None = None, wanted: EventFilter | None = None) -> Replay:
        """Events as they are committed, without end; from now on, or from a point on. Raises as :meth:`replay`."""
        present = ends(self._clients, self.topic)
        start = self._point(since, present) if since is not None else present
        return Replay(Scan(self._clients, self.topic, start), self._codec, wanted or EventFilter(), _FOLLOW_SECONDS)

    @contextmanager
    def snapshot(
        self, *, as_of: datetime | Mapping[int, int] | None = None, fold: Fold | None = None
    ) -> Iterator[TaskStore]:
        """The state of every task, now or as of a time, folded from the log into a scratch on disk.

        Parameters:
            as_of: a time, or offsets by partition: what was logged before; default: all that is there now.
            fold: how states come about; default: :class:`~kantoku_kafka.replay.fold.Fold`.

        Raises:
            As :meth:`replay`; KantokuError if the disk is full.
        """
        store = TaskStore(None, self.topic, fold)
        try:
            self.fold_into(store, until=as_of)
            yield store
        finally:
            store.close()

    @contextmanager
    def view(self, path: Path, fold: Fold | None = None) -> Iterator[TaskStore]:
        """The state of every task now, from a file that is brought up to date; a view that is unusable is made anew.

        Parameters:
            path: the file. It can be deleted at any time.
            fold: as of :meth:`snapshot`; a file that was folded otherwise has to be another one.

        Raises:
            As :meth:`replay`; KantokuError if the file cannot be written, or turns out to be damaged in use.
            UsageError: the file is no view; it is left as it is.
        """
        # Another version may read what this one cannot, and fold otherwise.
        origin = f"{topic_identity(self._clients, self.topic)} by {version('kantoku-kafka')}"
        try:
            store = self._opened(path, origin, fold)
        except StoreUnusable as error:
            _log.info("%s It is made anew.", error, extra={"action": "view_renewed"})
            remove(path)
            store = self._opened(path, origin, fold)
        try:
            yield store
        except StoreUnusable as error:
            remove(path)
            raise KantokuError(f"The view {path} was damaged and has been deleted; do the same once more.") from error
        finally:
            store.close()

    def _opened(self, path: Path, origin: str, fold: Fold | None) -> TaskStore:
        """The view, up to date."""
        store = TaskStore(path, origin, fold)
        try:
            stale_us = now_us() - store.refreshed_at_us
            if store.offsets and stale_us > 1000 * tombstones_kept_ms(self._clients, self.topic):
                raise StoreUnusable(f"{path} is so old that what was pruned since cannot be told.")
            if folded := store.offsets:  # first: another process may fold further meanwhile
                present = ends(self._clients, self.topic)
                if any(offset > present.get(partition, 0) for partition, offset in folded.items()):
                    raise StoreUnusable(f"{path} is ahead of {self.topic}, which was truncated.")
            self.fold_into(store)
        except BaseException:
            store.close()
            raise
        return store

    def fold_into(self, store: TaskStore, *, until: datetime | Mapping[int, int] | None = None) -> Replay:
        """Bring a store up to date, from where it stands. What was read is kept if this is interrupted."""
        asked_us = now_us()
        replay = self.replay(since=store.offsets or None, until=until)
        for records in replay.records():
            before = replay.unreadable
            with store.writing():
                done = store.offsets  # another process may have folded further meanwhile
                fresh = [r for r in records if (r.offset() or 0) >= done.get(r.partition() or 0, 0)]
                _fold_batch(store, replay, fresh)
                if replay.unreadable > before:
                    store.leave_out(replay.unreadable - before)
        with store.writing():
            store.add([], replay.offsets)
            store.refreshed(asked_us)
        return replay

    def _point(self, point: datetime | Mapping[int, int], present: Offsets) -> Offsets:
        if not isinstance(point, datetime):
            if not isinstance(point, Mapping):
                raise UsageError(f"since, until and as_of take a datetime or offsets by partition, not {point!r}.")
            if bad := [p for p in point if p not in present or not 0 <= point[p] <= present[p]]:
                raise UsageError(
                    f"{self.topic}[{bad[0]}] has no offset {point[bad[0]]}: they are of another topic, "
                    "or it was created anew. Replay from the beginning."
                )
            return {p: point.get(p, 0) for p in present}
        if point.tzinfo is None:
            raise UsageError(f"{point.isoformat()} has no time zone; add one, e.g. +00:00.")
        if point.timestamp() > time.time() + 1:
            raise UsageError(f"{point.isoformat()} is in the future; the log ends now.")
        return first_at(self._clients, self.topic, max(0, round(point.timestamp() * 1000)))


def _fold_batch(store: TaskStore, replay: Replay, records: Sequence[Record]) -> None:
    """Events and tombstones in the order of the log."""
    events: list[LoggedEvent] = []
    keys: list[tuple[str, int, str]] = []
    for record in records:
        logged = replay.logged(record)
        if logged is not None:
            if keys:
                store.remove(keys, {})
                keys = []
            events.append(logged)
        elif record.value() is None and (key := _parts(record.key())) is not None:
            if events:
                store.add(events, {})
                events = []
            keys.append(key)
    store.add(events, {})
    store.remove(keys, replay.offsets)


def _parts(key: bytes | None) -> tuple[str, int, str] | None:
    """Task id, attempt and name in the key of an event."""
    try:
        task_id, attempt, name = (key or b"").decode().rsplit("/", 2)
        return task_id, int(attempt), name
    except ValueError:
        return None
