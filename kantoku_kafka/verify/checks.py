"""The invariants, each a pure function from evidence to what breaks it.

They are numbered as in ``docs/reliability.md``: I1 and I7 need what a spawner and a reader noted themselves, the others
follow from the topics and the group's offsets alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from kantoku_kafka.model import Event, EventName
from kantoku_kafka.replay.fold import Fold
from kantoku_kafka.verify.evidence import Coordinates, Evidence, Outcome

__all__ = ["Finding", "Journal", "Report", "Violation", "judge"]

_DUPLICATE = EventName.DUPLICATE.value
_GOES_ON = frozenset({EventName.DELAYED.value, EventName.RETRY_SCHEDULED.value, _DUPLICATE})
_RECEIVED, _SENT = EventName.RECEIVED_TASK.value, EventName.SENT_OUTPUTS.value


class Violation(NamedTuple):
    """What must not be. ``records``: where the log shows it."""

    task_id: str | None
    text: str
    records: Sequence[Coordinates] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """One invariant: what it promises, how many cases were looked at, and which of them break it."""

    name: str
    promise: str
    cases: int
    violations: Sequence[Violation]


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


@dataclass(frozen=True, slots=True)
class Report:
    """What was found. ``pending``: tasks that have not ended, and need not have."""

    findings: Sequence[Finding]
    tasks: int
    results: int
    pending: int

    @property
    def ok(self) -> bool:
        """Nothing is violated."""
        return not any(finding.violations for finding in self.findings)


@dataclass(slots=True)
class _Cases:
    """Counts what is looked at while violations are collected."""

    count: int = 0
    violations: list[Violation] = field(default_factory=list)


class _Facts:
    """The evidence, joined by task id and by source."""

    def __init__(self, evidence: Evidence, journal: Journal | None, at_rest: bool, remembered_seconds: float) -> None:
        self.evidence = evidence
        self.remembered_ms = remembered_seconds * 1_000
        self.journal = journal or Journal()
        self.at_rest = at_rest
        self.outcomes: defaultdict[str, list[Outcome]] = defaultdict(list)
        for outcome in evidence.outcomes:
            self.outcomes[outcome.task_id].append(outcome)
        self.spawns: defaultdict[str, list[Coordinates]] = defaultdict(list)
        self.too_old: set[str] = set()
        for place, spawn in evidence.spawns:
            if spawn.task_id is not None:
                self.spawns[spawn.task_id].append(place)
                if spawn.at_ms < evidence.settled_from_ms:
                    self.too_old.add(spawn.task_id)
        if evidence.settled_from_ms:
            self.too_old |= self._begun_before()

    def _begun_before(self) -> set[str]:
        """Tasks whose first record was not read: what was read of them is another attempt, or a duplicate."""
        attempts = {task_id: min(map(self._attempt_at, places)) for task_id, places in self.spawns.items()}
        retried = {task_id for task_id, attempt in attempts.items() if attempt > 1}
        return retried | (self.duplicated - self.outcomes.keys())

    def _attempt_at(self, place: Coordinates) -> int:
        return self.evidence.inputs[place[:2]].records[place.offset].attempt

    @property
    def judged(self) -> Iterator[tuple[str, list[Coordinates]]]:
        """The tasks whose whole life was read, with their input records."""
        return ((task_id, places) for task_id, places in self.spawns.items() if task_id not in self.too_old)

    @cached_property
    def buried(self) -> frozenset[Coordinates]:
        """Sources of dead letters."""
        return frozenset(letter.source for letter in self.evidence.letters if letter.source is not None)

    def was_done(self, place: Coordinates) -> bool:
        """Whether it was done before the traces were read: then they are there."""
        return self.evidence.inputs[place[:2]].before.is_done(place.offset)

    def is_judged(self, task_id: str) -> bool:
        """Whether its whole life was read."""
        return task_id in self.spawns and task_id not in self.too_old

    def is_pending(self, task_id: str, places: Iterable[Coordinates]) -> bool:
        """Whether it may still get its result: a record of it waits or runs, or a timer has it."""
        return task_id in self.evidence.pending or not all(map(self.was_done, places))

    @property
    def events(self) -> Iterator[Event]:
        """Every event that was logged."""
        return (logged.event for history in self.evidence.histories.values() for logged in history)

    @cached_property
    def traces(self) -> frozenset[Coordinates]:
        """Sources that something tells what became of."""
        return self.buried.union(
            (outcome.source for outcome in self.evidence.outcomes),
            (
                Coordinates(*event.source[:3])
                for event in self.events
                if event.source is not None and event.name in _GOES_ON
            ),
        )

    @cached_property
    def duplicated(self) -> frozenset[str]:
        """Tasks that were spawned more than once: of the events that say so, compaction keeps one."""
        return frozenset(event.task_id for event in self.events if event.name == _DUPLICATE)

    @cached_property
    def logs_all_steps(self) -> bool:
        """Whether every executor that has a result logs every step, so that a missing one is missing."""
        thorough = {event.executor_id for event in self.events if event.name == _RECEIVED}
        return {o.executor_id for o in self.evidence.outcomes} <= thorough and bool(thorough)

    @cached_property
    def log_ends(self) -> frozenset[str | None]:
        """Executors that log at least how tasks end."""
        return frozenset(event.executor_id for event in self.events if event.name == _SENT)

    def is_reused(self, outcomes: Sequence[Outcome]) -> bool:
        """Whether these, of one id, are those of spawns so far from each other that the id was forgotten between."""
        if len(outcomes) < 2:
            return False
        times_ms = []
        for source in {outcome.source for outcome in outcomes}:
            held = self.evidence.inputs.get(source[:2])
            spawn = held.records.get(source.offset) if held else None
            times_ms.append(spawn.at_ms if spawn else 0)
        times_ms.sort()
        apart = all(later - earlier >= self.remembered_ms for earlier, later in pairwise(times_ms))
        return len(times_ms) == len(outcomes) and apart


def judge(
    evidence: Evidence, journal: Journal | None = None, *, at_rest: bool = False, remembered_seconds: float = 3_600.0
) -> Report:
    """Look for violations of every invariant.

    Parameters:
        journal: what was noted outside, if anything.
        at_rest: nothing runs or waits any more: what has not ended is lost.
        remembered_seconds: spawns of one id that are further apart are two tasks; default an hour.
    """
    facts = _Facts(evidence, journal, at_rest, remembered_seconds)
    findings = [_find(name, promise, check, facts) for name, promise, check in _CHECKS]
    judged = dict(facts.judged)
    open_tasks = judged.keys() - facts.outcomes.keys()
    pending = sum(facts.is_pending(task_id, judged[task_id]) for task_id in open_tasks)
    return Report(findings, len(judged), len(evidence.outcomes), pending)


def _find(name: str, promise: str, check: Callable[[_Facts, _Cases], None], facts: _Facts) -> Finding:
    cases = _Cases()
    if not facts.evidence.stuck or name == "I8":  # of what could not be read, nothing can be said
        check(facts, cases)
    return Finding(name, promise, cases.count, cases.violations)


def _acknowledged_is_there(facts: _Facts, cases: _Cases) -> None:
    cases.count = len(facts.journal.acknowledged) + len(facts.journal.refused)
    for task_id in sorted(facts.journal.acknowledged - facts.spawns.keys()):
        cases.violations.append(Violation(task_id, "was acknowledged, and stands in no input"))
    for task_id in sorted(facts.journal.refused & facts.spawns.keys()):
        cases.violations.append(Violation(task_id, "was refused, and stands in an input", facts.spawns[task_id]))


def _one_result(facts: _Facts, cases: _Cases) -> None:
    for task_id, outcomes in facts.outcomes.items():
        whole = facts.is_judged(task_id) or not facts.evidence.settled_from_ms
        if len(outcomes) > 1 and whole and not facts.is_reused(outcomes):
            text = f"has {len(outcomes)} results: {', '.join(outcome.status for outcome in outcomes)}"
            cases.violations.append(Violation(task_id, text, [outcome.at for outcome in outcomes]))
    for task_id, places in facts.judged:
        cases.count += 1
        if task_id in facts.outcomes or not facts.buried.isdisjoint(places):
            continue
        if not facts.is_pending(task_id, places):
            cases.violations.append(Violation(task_id, "is done, and has no result", places))
        elif facts.at_rest:
            cases.violations.append(Violation(task_id, "has no result, and nobody is left to give it one", places))


def _no_result_from_nothing(facts: _Facts, cases: _Cases) -> None:
    for place in facts.evidence.unreadable:
        cases.violations.append(Violation(None, "what stands there is no envelope of ours", [place]))
    for outcome in facts.evidence.outcomes:
        cases.count += 1
        held = facts.evidence.inputs.get(outcome.source[:2])
        if held is None or outcome.source.offset < held.first:
            continue  # of a timer that was cancelled, or its record is deleted
        spawn = held.records.get(outcome.source.offset)
        if spawn is not None and spawn.at_ms < facts.evidence.settled_from_ms:
            continue
        if spawn is None or spawn.task_id != outcome.task_id:
            found = "no record" if spawn is None else f"task {spawn.task_id}"
            text = f"has a result whose source {outcome.source} holds {found}"
            cases.violations.append(Violation(outcome.task_id, text, [outcome.at]))


def _result_event_and_offset(facts: _Facts, cases: _Cases) -> None:
    for outcome in facts.evidence.outcomes:
        cases.count += 1
        held = facts.evidence.inputs.get(outcome.source[:2])
        if held is not None and not held.after.is_done(outcome.source.offset):
            text = f"has a result, but its record {outcome.source} is not marked done"
            cases.violations.append(Violation(outcome.task_id, text, [outcome.at]))
    for task_id in facts.outcomes.keys() | facts.evidence.histories.keys():
        outcomes = [o for o in facts.outcomes.get(task_id, []) if o.executor_id in facts.log_ends]
        sent = [logged for logged in facts.evidence.histories.get(task_id, []) if logged.event.name == _SENT]
        said = {logged.event.attributes.get("status") for logged in sent}
        told = {outcome.status for outcome in outcomes if outcome.at not in facts.evidence.late}
        if not told <= said <= {outcome.status for outcome in outcomes} and facts.is_judged(task_id):
            text = f"has results {_names(o.status for o in outcomes)}, and terminal events {_names(said)}"
            cases.violations.append(Violation(task_id, text, [outcome.at for outcome in outcomes]))


def _possible_histories(facts: _Facts, cases: _Cases) -> None:
    fold = Fold()
    for task_id, history in facts.evidence.histories.items():
        if facts.is_judged(task_id) and not facts.is_reused(facts.outcomes.get(task_id, [])):
            cases.count += 1
            problems = fold.state(history).problems
            cases.violations += [Violation(task_id, problem) for problem in problems]


def _done_left_a_trace(facts: _Facts, cases: _Cases) -> None:
    settled = facts.duplicated.intersection(facts.outcomes.keys() | facts.evidence.pending)
    if not facts.logs_all_steps:  # that it went on elsewhere, or was a duplicate, nobody said
        settled = settled.union(facts.outcomes, facts.evidence.pending)
    for place, spawn in facts.evidence.spawns:
        if spawn.at_ms < facts.evidence.settled_from_ms:
            continue
        cases.count += 1
        if facts.was_done(place):
            forgotten = spawn.task_id is None and spawn.at_ms < facts.evidence.letters_from_ms
            if place not in facts.traces and spawn.task_id not in settled and not forgotten:
                text = "its record is marked done, and nothing tells what became of it"
                cases.violations.append(Violation(spawn.task_id, text, [place]))
        elif facts.at_rest:
            cases.violations.append(Violation(spawn.task_id, "its record is not marked done", [place]))


def _reader_saw_the_log(facts: _Facts, cases: _Cases) -> None:
    if facts.journal.seen is None:
        return
    log: defaultdict[int, list[tuple[int, str]]] = defaultdict(list)
    for outcome in facts.evidence.outcomes:
        log[outcome.at.partition].append((outcome.at.offset, outcome.task_id))
    for partition in log.keys() | facts.journal.seen.keys():
        stands, seen = log[partition], list(facts.journal.seen.get(partition, ()))
        cases.count += len(stands)
        if seen != stands:
            differ = set(seen) ^ set(stands)
            what = f"{len(differ)} results differ, e.g. {min(differ)}" if differ else "they came twice, or out of order"
            cases.violations.append(Violation(None, f"partition {partition}: a reader saw something else: {what}"))


def _nothing_hangs(facts: _Facts, cases: _Cases) -> None:
    cases.count = len(facts.evidence.inputs)
    cases.violations += [Violation(None, text) for text in facts.evidence.stuck]


def _names(words: Iterable[str | None]) -> str:
    counted = Counter(word or "none" for word in words)
    return ", ".join(f"{n} {word}" if n > 1 else word for word, n in sorted(counted.items())) or "none"


_CHECKS: Sequence[tuple[str, str, Callable[[_Facts, _Cases], None]]] = (
    ("I1", "every acknowledged spawn is in an input topic", _acknowledged_is_there),
    ("I2", "every task has exactly one terminal result", _one_result),
    ("I3", "no result without a task", _no_result_from_nothing),
    ("I4", "result, terminal event and the mark that the record is done come together", _result_event_and_offset),
    ("I5", "every history is one that the state machine allows", _possible_histories),
    ("I6", "what is marked done has ended, goes on elsewhere, or is a dead letter", _done_left_a_trace),
    ("I7", "who reads during the run sees what the log says in the end", _reader_saw_the_log),
    ("I8", "no transaction is left open", _nothing_hangs),
)
