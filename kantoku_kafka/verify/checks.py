"""The invariants, each a pure function from evidence to what breaks it.

They are numbered as in ``docs/reliability.md``: I1 and I7 need what a spawner and a reader noted themselves, the others
follow from the topics and the group's offsets alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kantoku_kafka.model import Event
from kantoku_kafka.replay.fold import Fold
from kantoku_kafka.settings import EventDetail
from kantoku_kafka.verify.evidence import Coordinates, Evidence, Outcome
from kantoku_kafka.verify.facts import Facts, Journal, source_of

__all__ = ["Finding", "Report", "Violation", "judge"]


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


def judge(
    evidence: Evidence,
    journal: Journal | None = None,
    *,
    at_rest: bool = False,
    remembered_seconds: float = 3_600.0,
    events: EventDetail | None = None,
) -> Report:
    """Look for violations of every invariant.

    Parameters:
        journal: what was noted outside, if anything.
        at_rest: nothing runs or waits any more: what has not ended is lost.
        remembered_seconds: spawns of one id that are further apart are two tasks; default an hour.
        events: what all executors have logged; default: each is judged by what it logs, and a task without any event
            (they may have been pruned) by the rest.
    """
    facts = Facts(evidence, journal, at_rest=at_rest, remembered_seconds=remembered_seconds, events=events)
    findings = [_find(name, promise, check, facts) for name, promise, check in _CHECKS]
    judged = dict(facts.judged)
    open_tasks = judged.keys() - facts.outcomes.keys()
    pending = sum(facts.is_pending(task_id, judged[task_id]) for task_id in open_tasks)
    return Report(findings, len(judged), len(evidence.outcomes), pending)


def _find(name: str, promise: str, check: Callable[[Facts, _Cases], None], facts: Facts) -> Finding:
    cases = _Cases()
    if not facts.evidence.stuck or name == "I8":  # of what could not be read, nothing can be said
        check(facts, cases)
    return Finding(name, promise, cases.count, cases.violations)


def _acknowledged_is_there(facts: Facts, cases: _Cases) -> None:
    cases.count = len(facts.journal.acknowledged) + len(facts.journal.refused)
    for task_id in sorted(facts.journal.acknowledged - facts.spawns.keys()):
        cases.violations.append(Violation(task_id, "was acknowledged, and stands in no input"))
    for task_id in sorted(facts.journal.refused & facts.spawns.keys()):
        cases.violations.append(Violation(task_id, "was refused, and stands in an input", facts.spawns[task_id]))


def _one_result(facts: Facts, cases: _Cases) -> None:
    for task_id, outcomes in facts.outcomes.items():
        whole = facts.is_judged(task_id) or not facts.evidence.settled_from_ms
        if len(outcomes) > 1 and whole and len(outcomes) > facts.lives(task_id):
            text = f"has {len(outcomes)} results: {', '.join(outcome.status for outcome in outcomes)}"
            cases.violations.append(Violation(task_id, text, [outcome.at for outcome in outcomes]))
    for task_id, places in facts.judged:
        cases.count += 1
        if task_id in facts.outcomes or not facts.buried.isdisjoint(places) or task_id in facts.buried_while_waiting:
            continue
        if not facts.is_pending(task_id, places):
            cases.violations.append(Violation(task_id, "is done, and has no result", places))
        elif facts.at_rest:
            cases.violations.append(Violation(task_id, "has no result, and nobody is left to give it one", places))


def _no_result_from_nothing(facts: Facts, cases: _Cases) -> None:
    for place in facts.evidence.unreadable:
        cases.violations.append(Violation(None, "what stands there is no envelope of ours", [place]))
    for outcome in facts.evidence.outcomes:
        cases.count += 1
        if (wrong := _wrong_source(facts, outcome)) is not None:
            text = f"has a result whose source {outcome.source} {wrong}"
            cases.violations.append(Violation(outcome.task_id, text, [outcome.at]))


def _wrong_source(facts: Facts, outcome: Outcome) -> str | None:
    """What is wrong with where a result comes from; None if nothing is, or nobody can tell."""
    evidence, source = facts.evidence, outcome.source
    held = evidence.inputs.get(source[:2])
    if held is None:
        known = facts.is_timers(outcome) or evidence.settled_from_ms or facts.is_known(outcome.task_id)
        return None if known else "is in no input, and nothing else tells of the task"
    if source.offset < held.first:
        return None
    spawn = held.records.get(source.offset)
    if spawn is None:
        return "holds no record"
    wrong = spawn.task_id != outcome.task_id and spawn.at_ms >= evidence.settled_from_ms
    return f"holds task {spawn.task_id}" if wrong else None


def _result_event_and_offset(facts: Facts, cases: _Cases) -> None:
    for outcome in facts.evidence.outcomes:
        cases.count += 1
        held = facts.evidence.inputs.get(outcome.source[:2])
        if held is not None and not held.after.is_done(outcome.source.offset):
            text = f"has a result, but its record {outcome.source} is not marked done"
            cases.violations.append(Violation(outcome.task_id, text, [outcome.at]))
    for task_id in facts.outcomes.keys() | facts.evidence.histories.keys():
        if facts.is_judged(task_id):
            cases.violations += _torn(facts, task_id)


def _torn(facts: Facts, task_id: str) -> Iterator[Violation]:
    """Each result has the terminal event that came with it, and each of those its result.

    Of an id with several lives compaction keeps the last event of each attempt, and the last result.
    """
    outcomes, ends = facts.outcomes.get(task_id, []), facts.ends(task_id)
    one_life = facts.lives(task_id) <= 1
    come = set(map(_ending, outcomes))
    told = {_told(event) for event, _, _ in ends}
    replaced = set() if one_life else {event.attempt for event, _, _ in ends}
    for outcome in outcomes:
        if facts.tells_end(outcome) and _ending(outcome) not in told and outcome.attempt not in replaced:
            yield Violation(task_id, f"has a result {outcome.status}, and no terminal event with it", [outcome.at])
    for event, partition, offset in ends if one_life else ():
        if _told(event) not in come:
            status = event.attributes.get("status")
            yield Violation(task_id, f"has a terminal event {status} at [{partition}]@{offset}, and no result with it")


def _ending(outcome: Outcome) -> tuple[object, ...]:
    """What a result and its terminal event have in common."""
    return outcome.source, outcome.executor_id, outcome.attempt, outcome.status


def _told(end: Event) -> tuple[object, ...]:
    """The same, by the event."""
    return source_of(end), end.executor_id, end.attempt, end.attributes.get("status")


def _possible_histories(facts: Facts, cases: _Cases) -> None:
    fold = Fold()
    for task_id, history in facts.evidence.histories.items():
        if facts.is_judged(task_id) and facts.lives(task_id) <= 1:
            cases.count += 1
            problems = fold.state(history).problems
            cases.violations += [Violation(task_id, problem) for problem in problems]


def _done_left_a_trace(facts: Facts, cases: _Cases) -> None:
    for place, spawn in facts.evidence.spawns:
        if spawn.at_ms < facts.evidence.settled_from_ms:
            continue
        cases.count += 1
        if facts.was_done(place):
            if spawn.task_id is None:
                explained = spawn.at_ms < facts.evidence.letters_from_ms
            else:
                explained = facts.is_explained(spawn.task_id)
            if place not in facts.traces and not explained:
                text = "its record is marked done, and nothing tells what became of it"
                cases.violations.append(Violation(spawn.task_id, text, [place]))
        elif facts.at_rest:
            cases.violations.append(Violation(spawn.task_id, "its record is not marked done", [place]))


def _reader_saw_the_log(facts: Facts, cases: _Cases) -> None:
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


def _nothing_hangs(facts: Facts, cases: _Cases) -> None:
    cases.count = len(facts.evidence.inputs)
    cases.violations += [Violation(None, text) for text in facts.evidence.stuck]


_CHECKS: Sequence[tuple[str, str, Callable[[Facts, _Cases], None]]] = (
    ("I1", "every acknowledged spawn is in an input topic", _acknowledged_is_there),
    ("I2", "every task has exactly one terminal result", _one_result),
    ("I3", "no result without a task", _no_result_from_nothing),
    ("I4", "result, terminal event and the mark that the record is done come together", _result_event_and_offset),
    ("I5", "every history is one that the state machine allows", _possible_histories),
    ("I6", "what is marked done has ended, goes on elsewhere, or is a dead letter", _done_left_a_trace),
    ("I7", "who reads during the run sees what the log says in the end", _reader_saw_the_log),
    ("I8", "no transaction is left open", _nothing_hangs),
)
