"""The evidence joined by task and by source, and what follows from it for a single task. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from kantoku_kafka.model import Event, EventName, Status
from kantoku_kafka.replay.fold import LoggedEvent
from kantoku_kafka.settings import EventDetail
from kantoku_kafka.verify.evidence import Coordinates, Evidence, Outcome

__all__ = ["Facts", "Journal", "source_of"]

_DUPLICATE = EventName.DUPLICATE.value
_GOES_ON = frozenset({EventName.DELAYED.value, EventName.RETRY_SCHEDULED.value, _DUPLICATE})
_RECEIVED, _SENT = EventName.RECEIVED_TASK.value, EventName.SENT_OUTPUTS.value


@dataclass(frozen=True, slots=True)
class Journal:
    """What the outside noted of a run.

    Parameters:
        acknowledged, refused: ids whose spawn the broker acknowledged, or certainly did not take.
        seen: for each partition of results what a reader saw during the run, offset and task id in its order; None:
            nobody read.
    """

    acknowledged: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    seen: Mapping[int, Sequence[tuple[int, str]]] | None = None


class Facts:
    """The evidence, joined.

    Parameters:
        journal, at_rest, remembered_seconds, events: see :func:`~kantoku_kafka.verify.judge`.
    """

    def __init__(
        self,
        evidence: Evidence,
        journal: Journal | None,
        *,
        at_rest: bool,
        remembered_seconds: float,
        events: EventDetail | None,
    ) -> None:
        self.evidence = evidence
        self.journal = journal or Journal()
        self.at_rest = at_rest
        self._remembered_ms = remembered_seconds * 1_000
        self._detail = events
        self.outcomes: defaultdict[str, list[Outcome]] = defaultdict(list)
        for outcome in evidence.outcomes:
            self.outcomes[outcome.task_id].append(outcome)
        self.spawns: defaultdict[str, list[Coordinates]] = defaultdict(list)
        self._first_ms: defaultdict[str, list[int]] = defaultdict(list)
        self._too_old: set[str] = set()
        for place, spawn in evidence.spawns:
            if spawn.task_id is not None:
                self.spawns[spawn.task_id].append(place)
                if spawn.is_first:
                    self._first_ms[spawn.task_id].append(spawn.at_ms)
                if spawn.at_ms < evidence.settled_from_ms:
                    self._too_old.add(spawn.task_id)
        if evidence.settled_from_ms:  # what was read of these is another attempt, or a duplicate
            self._too_old |= self.spawns.keys() - self._first_ms.keys()
            self._too_old |= self.duplicated - self.outcomes.keys()

    @property
    def judged(self) -> Iterator[tuple[str, list[Coordinates]]]:
        """The tasks whose whole life was read, with their input records."""
        return ((task_id, places) for task_id, places in self.spawns.items() if task_id not in self._too_old)

    def is_judged(self, task_id: str) -> bool:
        """Whether its whole life was read."""
        return task_id in self.spawns and task_id not in self._too_old

    def is_known(self, task_id: str) -> bool:
        """Whether anything but a result tells of it."""
        return task_id in self.spawns or task_id in self.evidence.histories

    def lives(self, task_id: str) -> int:
        """How many tasks an id stands for: of spawns so far apart that it was forgotten between each is one.

        Where the records of results are deleted nobody knows: each of those may have been one.
        """
        lives, last_ms = 0, float("-inf")
        for at_ms in sorted(self._first_ms.get(task_id, ())):
            if at_ms - last_ms >= self._remembered_ms:
                lives, last_ms = lives + 1, at_ms
        return lives + len({o.source for o in self.outcomes.get(task_id, ()) if self._is_deleted(o.source)})

    def _is_deleted(self, source: Coordinates) -> bool:
        held = self.evidence.inputs.get(source[:2])
        return held is not None and source.offset < held.first

    # --- what was done

    def was_done(self, place: Coordinates) -> bool:
        """Whether it was done before the traces were read: then they are there."""
        return self.evidence.inputs[place[:2]].before.is_done(place.offset)

    def is_pending(self, task_id: str, places: Iterable[Coordinates]) -> bool:
        """Whether it may still get its result: a record of it waits or runs, or a timer has it."""
        return task_id in self.evidence.pending or not all(map(self.was_done, places))

    @cached_property
    def buried(self) -> frozenset[Coordinates]:
        """Sources of dead letters."""
        return frozenset(letter.source for letter in self.evidence.letters if letter.source is not None)

    @cached_property
    def buried_while_waiting(self) -> frozenset[str]:
        """Tasks that were dead letters when their timers fired: they were not signed as they have to be by then."""
        return frozenset(letter.task_id for letter in self.evidence.letters if letter.task_id is not None)

    @cached_property
    def traces(self) -> frozenset[Coordinates]:
        """Sources that something tells what became of."""
        said = (source_of(event) for event in self._events if event.name in _GOES_ON)
        return self.buried.union(
            (outcome.source for outcome in self.evidence.outcomes), (source for source in said if source is not None)
        )

    @cached_property
    def duplicated(self) -> frozenset[str]:
        """Tasks that were spawned more than once: of the events that say so, compaction keeps one."""
        return frozenset(event.task_id for event in self._events if event.name == _DUPLICATE)

    def is_explained(self, task_id: str) -> bool:
        """Whether a record that left no trace may be one of a task that went on elsewhere, or a duplicate."""
        goes_on = task_id in self.outcomes or task_id in self.evidence.pending
        if goes_on and task_id in self.duplicated:
            return True
        return not self._tells_steps(task_id) and (goes_on or self.is_pending(task_id, self.spawns[task_id]))

    # --- what was logged

    @property
    def _events(self) -> Iterator[Event]:
        return (logged.event for history in self.evidence.histories.values() for logged in history)

    def ends(self, task_id: str) -> list[LoggedEvent]:
        """Its terminal events."""
        return [logged for logged in self.evidence.histories.get(task_id, ()) if logged.event.name == _SENT]

    def tells_end(self, outcome: Outcome) -> bool:
        """Whether a terminal event belongs to it, which is read by now."""
        if outcome.at in self.evidence.late:
            return False
        if self._detail is not None:
            return self._detail is not EventDetail.OFF
        return outcome.executor_id in self._enders and outcome.task_id in self.evidence.histories

    def _tells_steps(self, task_id: str) -> bool:
        """Whether every step of a task is logged."""
        if self._detail is not None:
            return self._detail is EventDetail.FULL
        return self._all_thorough and task_id in self.evidence.histories

    @cached_property
    def _enders(self) -> frozenset[str | None]:
        """Executors that log at least how tasks end."""
        return frozenset(event.executor_id for event in self._events if event.name == _SENT)

    @cached_property
    def _all_thorough(self) -> bool:
        """Whether every executor that has a result logs every step, so that a missing one is missing."""
        thorough = {event.executor_id for event in self._events if event.name == _RECEIVED}
        return {o.executor_id for o in self.evidence.outcomes} <= thorough and bool(thorough)

    # --- where results come from

    def is_timers(self, outcome: Outcome) -> bool:
        """Whether a timer was its source: who is cancelled while it waits ends there, and nothing else does."""
        return outcome.source.topic == self.evidence.timers and outcome.status == Status.CANCELLED


def source_of(event: Event) -> Coordinates | None:
    """The input record that an event names."""
    return None if event.source is None else Coordinates(*event.source[:3])
