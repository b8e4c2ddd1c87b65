"""From the events of a task to its state: one pure function, for the snapshot, the view and the user's own questions.

A state depends only on the *last* event of each name and attempt, which is what compaction keeps: folded from a
compacted log it is the same as from the whole one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import Any, NamedTuple

from kantoku_kafka.model import ErrorInfo, Event, EventName, Source, Status

__all__ = ["Fold", "LoggedEvent", "Phase", "TaskState"]

_LABEL = "label."
_SPAWNED, _SENT = EventName.SPAWNED.value, EventName.SENT_OUTPUTS.value
_RECEIVED, _EXECUTED, _ERROR = EventName.RECEIVED_TASK.value, EventName.EXECUTED_TASK.value, EventName.ERROR.value
_RETRY, _DELAYED = EventName.RETRY_SCHEDULED.value, EventName.DELAYED.value
_ATTEMPT = frozenset({_RECEIVED, _EXECUTED, _ERROR, _RETRY, EventName.TIMED_OUT.value, EventName.CANCELLED.value})
_STATUSES = frozenset(status.value for status in Status)


class LoggedEvent(NamedTuple):
    """An event, and where it stands in the audit topic."""

    event: Event
    partition: int
    offset: int


class Phase(StrEnum):
    """Where a task is in its life."""

    WAITING = "waiting"
    DELAYED = "delayed"
    RUNNING = "running"
    RETRYING = "retrying"
    FINISHED = "finished"


_PHASES = {
    _DELAYED: Phase.DELAYED,
    _RECEIVED: Phase.RUNNING,
    _EXECUTED: Phase.RUNNING,
    _ERROR: Phase.RUNNING,
    _RETRY: Phase.RETRYING,
    _SENT: Phase.FINISHED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskState:
    """What the log says of one task, up to some offset.

    Attributes:
        phase: where it is in its life; ``status`` how it ended, None before.
        attempt: the number of the last attempt that something is known of; 1 before the first.
        spawned_at_us, received_at_us, finished_at_us: when it was spawned, first received, ended; None if not, or if
            its executor does not log that.
        running_since_us: when its last attempt was received.
        executor_id: who has, or had, the last attempt.
        source: the input record.
        error: of the last attempt.
        labels, parent_id, restarted_from: as it was spawned.
        problems: what cannot be in this history; empty unless a promise was broken.
        history: its last event of each name and attempt, in the order of the log.
        extra: what a :class:`Fold` of the user's own adds; JSON values.
    """

    task_id: str
    type: str
    phase: Phase
    status: str | None
    attempt: int
    spawned_at_us: int | None
    received_at_us: int | None
    running_since_us: int | None
    finished_at_us: int | None
    executor_id: str | None
    source: Source | None
    error: ErrorInfo | None
    labels: Mapping[str, str]
    parent_id: str | None
    restarted_from: str | None
    problems: Sequence[str]
    history: Sequence[LoggedEvent]
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def waited_us(self) -> int | None:
        """From its spawn to its first start."""
        return _between(self.spawned_at_us, self.received_at_us)

    @property
    def ran_us(self) -> int | None:
        """From the start of the last attempt to its end."""
        return _between(self.running_since_us, self.finished_at_us)

    @property
    def updated_at_us(self) -> int:
        """When its last event happened."""
        return max(logged.event.at_us for logged in self.history)


class Fold:
    """How states come about. Pure and thread-safe; override :meth:`extra` for what you want to know besides."""

    def state(self, history: Iterable[LoggedEvent]) -> TaskState:
        """The state of the task whose events these are, in any order; at least one.

        Of several with the same name and attempt the last one in the log counts.
        """
        ordered = _last_of_each(history)
        steps = [logged.event for logged in ordered]
        by_name = {step.name: step for step in steps}  # of several attempts the last one in the log
        spawned, sent = by_name.get(_SPAWNED), by_name.get(_SENT)
        attempts = [step for step in steps if step.name in _PHASES]
        last = sent or (attempts[-1] if attempts else steps[-1])
        received = [step for step in steps if step.name == _RECEIVED]
        attributes: Mapping[str, str] = spawned.attributes if spawned else {}
        return TaskState(
            task_id=last.task_id,
            type=last.type,
            phase=_PHASES.get(last.name, Phase.WAITING),
            status=sent.attributes.get("status") if sent else None,
            attempt=last.attempt,
            spawned_at_us=spawned.at_us if spawned else None,
            received_at_us=min((step.at_us for step in received), default=None),
            running_since_us=next((step.at_us for step in received if step.attempt == last.attempt), None),
            finished_at_us=sent.at_us if sent else None,
            executor_id=last.executor_id,
            source=last.source,
            error=last.error,
            labels={k.removeprefix(_LABEL): v for k, v in attributes.items() if k.startswith(_LABEL)},
            parent_id=attributes.get("parent_id"),
            restarted_from=attributes.get("restarted_from"),
            problems=_problems(ordered),
            history=ordered,
            extra=self.extra(ordered),
        )

    def extra(self, history: Sequence[LoggedEvent]) -> Mapping[str, Any]:  # noqa: ARG002 - for those who override it
        """More of a task by its history, in the order of the log: JSON values by name. Default: nothing."""
        return {}


def _last_of_each(history: Iterable[LoggedEvent]) -> list[LoggedEvent]:
    last: dict[tuple[int, str], LoggedEvent] = {}
    for logged in sorted(history, key=_offset):
        last[logged.event.attempt, logged.event.name] = logged
    return sorted(last.values(), key=_offset)


def _offset(logged: LoggedEvent) -> int:
    return logged.offset


def _problems(history: Sequence[LoggedEvent]) -> list[str]:
    """What the promises rule out. Only what one transaction, or the order of transactions, has to have put in order:
    clocks differ, and a spawner writes on its own."""
    found = []
    by_step: dict[tuple[int, str], int] = {
        (logged.event.attempt, logged.event.name): logged.offset for logged in history
    }
    types = {logged.event.type for logged in history}
    if len(types) > 1:
        found.append(f"one id, but {len(types)} task types: {', '.join(sorted(types))}")
    sent = [(attempt, offset) for (attempt, name), offset in by_step.items() if name == _SENT]
    if len(sent) > 1:
        found.append(f"{len(sent)} terminal results, of attempts {', '.join(str(attempt) for attempt, _ in sent)}")
    for logged in history:
        event, offset = logged.event, logged.offset
        if event.name == _SENT and event.attributes.get("status") not in _STATUSES:
            found.append(f"a result of unknown status {event.attributes.get('status')!r}")
        if event.name in (_EXECUTED, _ERROR):
            received = by_step.get((event.attempt, _RECEIVED))
            if received is None:
                found.append(f"attempt {event.attempt} ended without having been received")
            elif received > offset:
                found.append(f"attempt {event.attempt} was received again after it had ended")
        if event.name in _ATTEMPT | {_DELAYED} and sent and offset > max(at for _, at in sent):
            found.append(f"{event.name} of attempt {event.attempt} after the result")
        before = by_step.get((event.attempt - 1, _EXECUTED))
        if event.name == _RECEIVED and before is not None and (event.attempt - 1, _RETRY) not in by_step:
            found.append(f"attempt {event.attempt}, though attempt {event.attempt - 1} was not to be tried again")
    spans: dict[int, list[int]] = {}
    for logged in history:
        if logged.event.name in _ATTEMPT:
            spans.setdefault(logged.event.attempt, []).append(logged.offset)
    for earlier, later in pairwise(sorted(spans)):
        if max(spans[earlier]) > min(spans[later]):
            found.append(f"attempt {later} began before attempt {earlier} had ended")
    return found


def _between(start_us: int | None, end_us: int | None) -> int | None:
    return None if start_us is None or end_us is None else max(0, end_us - start_us)
