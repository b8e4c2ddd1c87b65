"""Schedules of an app: tasks that are spawned again and again, by whoever fires its timers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from kantoku_kafka.avro.control import decode_schedule, decode_schedule_state, encode_schedule
from kantoku_kafka.engine.recurrence import Recurrence
from kantoku_kafka.engine.rules import check_seconds
from kantoku_kafka.engine.schedule_book import STATE, occurrence
from kantoku_kafka.errors import EnvelopeError, NotFound, UsageError
from kantoku_kafka.job import Message
from kantoku_kafka.kafka.scan import Scan, beginnings, ends
from kantoku_kafka.kafka.topics import partition_count
from kantoku_kafka.model import (
    CatchUp,
    Option,
    Overlap,
    Schedule,
    ScheduleState,
    Task,
    TaskEnvelope,
    carried_headers,
    now_us,
)
from kantoku_kafka.names import is_task_type
from kantoku_kafka.options import labels, time_us
from kantoku_kafka.settings import choice
from kantoku_kafka.signing.seal import SCHEDULE_LABEL, seal_for, template_id
from kantoku_kafka.spawning import prepare

if TYPE_CHECKING:
    from kantoku_kafka.app import Kantoku
    from kantoku_kafka.client import Spawned
    from kantoku_kafka.plugins import SpawnContext

__all__ = ["Planned", "Schedules"]

_PARTITION = 0


class Planned(NamedTuple):
    """A schedule as it stands in its topic, and how far it is; no ``state``: nothing was spawned yet."""

    schedule: Schedule
    state: ScheduleState | None

    @property
    def recurrence(self) -> Recurrence:
        """When it is due."""
        return Recurrence(self.schedule)

    def next_due_us(self, now: int) -> int | None:
        """Its next time; None: it is paused, or over."""
        return None if self.schedule.paused else self.recurrence.next_after(now)


class Schedules:
    """``kan.schedules``: thread-safe. Every method raises TopicMismatch, AccessDenied, BrokerUnavailable."""

    def __init__(self, kantoku: Kantoku) -> None:
        self._kantoku = kantoku

    def add(
        self,
        name: str,
        task: Task,
        *,
        cron: str | None = None,
        every_seconds: float | None = None,
        time_zone: str = "UTC",
        jitter_seconds: float = 0.0,
        start_at: datetime | None = None,
        end_at: datetime | None = None,
        overlap: Overlap | str = Overlap.ALLOW,
        catch_up: CatchUp | str = CatchUp.ONE,
        grace_seconds: float = 60.0,
        paused: bool = False,
    ) -> Schedule:
        """Spawn a task again and again, or change the schedule of this name. What is as it was stays untouched.

        ::

            kan.schedules.add("nightly", Task("report"), cron="30 2 * * *", time_zone="Europe/Berlin", overlap="skip")

        The plugins' hooks of creation run now, once. Each task has the label ``schedule`` and an id that follows from
        namespace, name and time: nobody can spawn it twice.

        Parameters:
            name: letters, digits, ``.``, ``_``, ``-``.
            task: what to spawn; ``delay``, ``at`` and ``idempotency_key`` make no sense here.
            cron: ``minute hour day month weekday``, six fields with the seconds first, or ``@daily`` and its like.
                Daylight saving time as in Debian: what is set for an hour that is skipped runs right after it, what is
                set for an hour that comes twice runs the first time; with ``*`` in minute or hour, and with seconds,
                the time that passes counts.
            every_seconds: instead of cron, at least 1; counted from ``start_at``, or from now. If the app has a seal,
                from 1970 instead of now: its executors check the times.
            time_zone: of cron, a name like ``Europe/Berlin``; default UTC.
            jitter_seconds: each time is later by up to so much, by a hash of name and time; default 0.
            start_at, end_at: no time is before the one, each is before the other; with a time zone.
            overlap: when the last task has not ended yet: ``allow`` (default) another one beside it, ``skip`` this
                time, or ``cancel`` the last one. One whose result the topic no longer keeps counts as ended.
            catch_up: of the times that came while nothing fired timers: ``one``, the last of them (default), ``all``,
                or ``skip`` those that are later than the grace.
            grace_seconds: see ``catch_up``; default 60.
            paused: do not spawn anything until :meth:`resume`.

        Raises:
            UsageError: for what cannot be, an expression that never comes among it.
        """
        if not isinstance(name, str) or not is_task_type(name):
            raise UsageError(f"{name!r} cannot be the name of a schedule: use letters, digits, '.', '_' and '-'.")
        ctx, message = prepare(self._kantoku, task.with_(labels(**{SCHEDULE_LABEL: name})), is_template=True)
        envelope = ctx.envelope
        assert envelope is not None, "it is prepared"
        if envelope.not_before_us is not None or envelope.idempotency_key is not None:
            raise UsageError(f"Schedule {name!r} says itself when its tasks start, and what their ids are.")
        lifetime_us = None
        if envelope.expires_at_us is not None:
            lifetime_us = round((envelope.expires_at_us - envelope.created_at_us) / 1_000) * 1_000
        template = envelope._replace(id=template_id(name), created_at_us=0, expires_at_us=lifetime_us)
        schedule = Schedule(
            name=name,
            changed_at_us=now_us(),
            topic=message.topic,
            task=self._kantoku.codec.encode_task(template),
            cron=cron,
            every_us=None if every_seconds is None else _micros("every_seconds", every_seconds, positive=True),
            time_zone=time_zone,
            jitter_us=_micros("jitter_seconds", jitter_seconds),
            start_at_us=None if start_at is None else time_us("start_at", start_at),
            end_at_us=None if end_at is None else time_us("end_at", end_at),
            overlap=choice(Overlap, "overlap", overlap),
            catch_up=choice(CatchUp, "catch up", catch_up),
            grace_us=_micros("grace_seconds", grace_seconds),
            paused=paused,
            key=ctx.key,
            headers=ctx.headers,
        )
        schedule = sealed(self._kantoku, schedule, template)
        Recurrence(schedule)
        partition_count(self._kantoku.clients, schedule.topic)
        present = self._find().get(name)
        if present is not None and present.schedule == schedule._replace(changed_at_us=present.schedule.changed_at_us):
            return present.schedule
        self._write(schedule)
        return schedule

    def all(self) -> list[Planned]:
        """Every schedule, by name."""
        return sorted(self._find().values(), key=lambda planned: planned.schedule.name)

    def get(self, name: str) -> Planned:
        """One schedule. Raises NotFound."""
        found = self._find().get(name)
        if found is None:
            raise NotFound(f"There is no schedule {name!r} in namespace {self._kantoku.namespace}: see schedules list.")
        return found

    def remove(self, name: str) -> None:
        """Spawn nothing of it any more, and forget it. Raises NotFound."""
        self.get(name)
        topic = self._kantoku.topics.schedules
        keys = (name.encode(), STATE + name.encode())
        self._kantoku.write([Message(topic, key, None, (), _PARTITION) for key in keys])

    def pause(self, name: str) -> None:
        """Spawn nothing of it until :meth:`resume`; what is due meanwhile is not made up for. Raises NotFound."""
        self._change(name, paused=True)

    def resume(self, name: str) -> None:
        """Go on with the next time. Raises NotFound."""
        self._change(name, paused=False)

    def trigger(self, name: str) -> Spawned:
        """Spawn its task now, paused or not, whatever ``overlap`` says. Raises NotFound, and as ``kan.spawn``.

        With a seal it is signed anew. Raises SignatureError if the schedule is not as it was signed.
        """
        schedule = self.get(name).schedule
        envelope, seal = self._kantoku.codec.decode_task(schedule.task), seal_for(self._kantoku.seal, schedule.headers)
        if seal is not None:
            seal.check_template(self._kantoku.namespace, schedule, envelope)
        return self._kantoku.spawn(Task(envelope.type, envelope.data).with_(self._at_once(schedule)))

    def _at_once(self, schedule: Schedule) -> Option:
        def option(ctx: SpawnContext) -> None:
            envelope = occurrence(self._kantoku.codec.decode_task(schedule.task), ctx.id, now_us())
            ctx.fields |= {
                "max_attempts": envelope.max_attempts,
                "timeout_ms": envelope.timeout_ms,
                "expires_at_us": envelope.expires_at_us,
                "context_id": envelope.context_id,
            }
            ctx.labels |= envelope.labels
            ctx.options |= envelope.options
            ctx.headers, ctx.key, ctx.topic = carried_headers(schedule.headers), schedule.key, schedule.topic

        return option

    def _change(self, name: str, *, paused: bool) -> None:
        schedule = self.get(name).schedule
        if schedule.paused is not paused:
            self._write(schedule._replace(paused=paused, changed_at_us=now_us()))

    def _write(self, schedule: Schedule) -> None:
        topic = self._kantoku.topics.schedules
        self._kantoku.write([Message(topic, schedule.name.encode(), encode_schedule(schedule), (), _PARTITION)])

    def _find(self) -> dict[str, Planned]:
        clients, topic = self._kantoku.clients, self._kantoku.topics.schedules
        schedules: dict[str, Schedule | None] = {}
        states: dict[str, ScheduleState | None] = {}
        until = ends(clients, topic)
        for records in Scan(clients, topic, beginnings(clients, topic), until).batches():
            for record in records:
                key, value = record.key() or b"", record.value()
                name = key.removeprefix(STATE).decode("utf-8", "backslashreplace")
                if key.startswith(STATE):
                    states[name] = _read(decode_schedule_state, value)
                else:
                    schedules[name] = _read(decode_schedule, value)
        return {name: Planned(found, states.get(name)) for name, found in schedules.items() if found is not None}


def sealed(kantoku: Kantoku, schedule: Schedule, template: TaskEnvelope) -> Schedule:
    """A schedule, signed if the app has a seal."""
    seal = kantoku.seal
    if seal is None:
        return schedule
    if schedule.every_us is not None and schedule.start_at_us is None:  # to resume it must not move its times
        schedule = schedule._replace(start_at_us=0)
    template, headers = seal.sign_schedule(kantoku.namespace, schedule, template)
    return schedule._replace(task=kantoku.codec.encode_task(template), headers=headers)


def _read(decode: Callable[[bytes], Any], value: bytes | None) -> Any:
    """What stands in a record; None if nothing does, or nothing that we can read: its owner says so in the log."""
    try:
        return decode(value) if value else None
    except EnvelopeError:
        return None


def _micros(what: str, seconds: float, *, positive: bool = False) -> int:
    return round(check_seconds(what, seconds, positive=positive) * 1_000_000)
