"""The invariants as pure functions: sound evidence is accepted, and each way to break it is named."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kantoku_kafka.model import Event, Source
from kantoku_kafka.replay.fold import LoggedEvent
from kantoku_kafka.verify import Evidence, Journal, judge
from kantoku_kafka.verify.evidence import Coordinates, Input, Letter, Outcome, Position, Spawn

TASKS = ("a", "b", "c")
INPUT = "ns.tasks.work"
AT_MS = 1_000


def sound() -> Evidence:
    """Three tasks with a result each; the last one is done beyond the committed offset; behind it one waits."""
    evidence = Evidence()
    done = Position(2, ((3, 4),))
    records = {offset: Spawn(task_id, 1, AT_MS) for offset, task_id in zip((0, 1, 3), TASKS, strict=True)}
    records[4] = Spawn("waits", 1, AT_MS)
    evidence.inputs[INPUT, 0] = Input(0, done, done, records)
    for offset, task_id in zip((0, 1, 3), TASKS, strict=True):
        end(evidence, task_id, offset)
    return evidence


def end(evidence: Evidence, task_id: str, offset: int, status: str = "OK") -> None:
    """A result and all the events before it."""
    at = len(evidence.outcomes)
    source = Coordinates(INPUT, 0, offset)
    evidence.outcomes.append(Outcome(Coordinates("ns.results", 0, at), task_id, status, 1, "host", source))
    for number, name in enumerate(("spawned", "received_task", "executed_task", "sent_outputs")):
        log(evidence, task_id, name, number, status=status)


def log(evidence: Evidence, task_id: str, name: str, at: int, offset: int | None = None, status: str = "OK") -> None:
    source = None if offset is None else Source(INPUT, 0, offset, 1)
    attributes = {"status": status} if name == "sent_outputs" else {}
    event = Event(task_id, "work", name, 1, 1_000 * at, "host", source=source, attributes=attributes)
    evidence.histories[task_id].append(LoggedEvent(event, 0, at))


def broken(evidence: Evidence, journal: Journal | None = None, *, at_rest: bool = False) -> set[str]:
    report = judge(evidence, journal, at_rest=at_rest)
    assert report.ok is not any(finding.violations for finding in report.findings)
    return {finding.name for finding in report.findings if finding.violations}


def test_sound_evidence_is_accepted() -> None:
    report = judge(sound())
    assert report.ok and (report.tasks, report.results, report.pending) == (4, 3, 1)
    assert {finding.name: finding.cases for finding in report.findings if finding.name in ("I2", "I6")} == {
        "I2": 4,
        "I6": 4,
    }


def test_at_rest_nothing_may_wait() -> None:
    assert broken(sound(), at_rest=True) == {"I2", "I6"}


def _twice(evidence: Evidence) -> None:
    evidence.outcomes.append(evidence.outcomes[0]._replace(at=Coordinates("ns.results", 0, 9)))


def _result_without_task(evidence: Evidence) -> None:
    evidence.outcomes[0] = evidence.outcomes[0]._replace(source=Coordinates(INPUT, 0, 2))


def _result_of_another_record(evidence: Evidence) -> None:
    evidence.outcomes[0] = evidence.outcomes[0]._replace(source=Coordinates(INPUT, 0, 1))


def _done_without_result(evidence: Evidence) -> None:
    evidence.inputs[INPUT, 0].before = evidence.inputs[INPUT, 0].after = Position(5)


def _result_without_mark(evidence: Evidence) -> None:
    evidence.inputs[INPUT, 0].before = evidence.inputs[INPUT, 0].after = Position(2)


def _mark_one_too_far(evidence: Evidence) -> None:
    evidence.inputs[INPUT, 0].before = evidence.inputs[INPUT, 0].after = Position(2, ((4, 5),))


def _no_terminal_event(evidence: Evidence) -> None:
    evidence.histories["a"].pop()


def _terminal_event_alone(evidence: Evidence) -> None:
    log(evidence, "waits", "sent_outputs", 9)


def _another_status(evidence: Evidence) -> None:
    evidence.outcomes[0] = evidence.outcomes[0]._replace(status="FAILED")


def _goes_on_after_the_end(evidence: Evidence) -> None:
    log(evidence, "a", "received_task", 9)


def _impossible_without_a_result(evidence: Evidence) -> None:
    log(evidence, "waits", "executed_task", 9)


def _unreadable_result(evidence: Evidence) -> None:
    evidence.unreadable.append(Coordinates("ns.results", 0, 7))


def _hanging_transaction(evidence: Evidence) -> None:
    evidence.stuck.append("ns.results[0] does not go on")


@pytest.mark.parametrize(
    ("breaks", "names"),
    [
        (_twice, {"I2"}),
        (_result_without_task, {"I3", "I4", "I6"}),
        (_result_of_another_record, {"I3", "I6"}),
        (_done_without_result, {"I2", "I6"}),
        (_result_without_mark, {"I4"}),
        (_mark_one_too_far, {"I2", "I4", "I6"}),
        (_no_terminal_event, {"I4"}),
        (_terminal_event_alone, {"I4"}),
        (_another_status, {"I4"}),
        (_goes_on_after_the_end, {"I5"}),
        (_impossible_without_a_result, {"I5"}),
        (_unreadable_result, {"I3"}),
        (_hanging_transaction, {"I8"}),
    ],
)
def test_what_is_broken_is_named(breaks: Callable[[Evidence], None], names: set[str]) -> None:
    evidence = sound()
    breaks(evidence)
    found = broken(evidence)
    assert found == names


@pytest.mark.parametrize("name", ["delayed", "retry_scheduled", "duplicate"])
def test_what_goes_on_elsewhere_is_done(name: str) -> None:
    evidence = sound()
    evidence.inputs[INPUT, 0].before = evidence.inputs[INPUT, 0].after = Position(5)
    assert broken(evidence) == {"I2", "I6"}
    log(evidence, "waits", name, 5, offset=4)
    evidence.pending["waits"] = Coordinates("ns.timers", 0, 0)
    assert broken(evidence) == set()


def test_a_dead_letter_is_an_end() -> None:
    evidence = sound()
    evidence.inputs[INPUT, 0].records[4] = Spawn(None, 0, AT_MS)
    evidence.inputs[INPUT, 0].before = evidence.inputs[INPUT, 0].after = Position(5)
    assert broken(evidence) == {"I6"}
    evidence.letters.append(Letter(Coordinates("ns.dead", 0, 0), Coordinates(INPUT, 0, 4)))
    assert broken(evidence, at_rest=True) == set()


def test_of_a_task_that_was_spawned_thrice_one_event_is_enough() -> None:
    """Compaction keeps one of the events with the same key."""
    evidence = sound()
    for offset in (4, 5):
        evidence.inputs[INPUT, 0].records[offset] = Spawn("a", 1, AT_MS)
    evidence.inputs[INPUT, 0].before = evidence.inputs[INPUT, 0].after = Position(6)
    assert broken(evidence) == {"I6"}
    log(evidence, "a", "duplicate", 6, offset=5)
    assert broken(evidence, at_rest=True) == set()


def test_what_is_older_is_not_judged() -> None:
    evidence = sound()
    _twice(evidence)
    _done_without_result(evidence)
    evidence.settled_from_ms = AT_MS + 1
    assert broken(evidence) == set()


def test_an_id_that_is_spawned_again_when_it_is_forgotten_is_another_task() -> None:
    evidence = sound()
    evidence.inputs[INPUT, 0].records[4] = Spawn("a", 1, AT_MS + 3_600_000)
    evidence.inputs[INPUT, 0].before = evidence.inputs[INPUT, 0].after = Position(5)
    end(evidence, "a", 4)
    assert broken(evidence, at_rest=True) == set()
    evidence.inputs[INPUT, 0].records[4] = Spawn("a", 1, AT_MS + 3_599_999)
    assert "I2" in broken(evidence, at_rest=True)


def test_an_executor_that_logs_nothing_breaks_nothing() -> None:
    evidence = sound()
    del evidence.histories["b"]
    assert broken(evidence) == {"I4"}
    evidence.outcomes[1] = evidence.outcomes[1]._replace(executor_id="silent")
    assert broken(evidence) == set()


def test_of_what_began_before_nothing_is_said() -> None:
    evidence = sound()
    evidence.settled_from_ms = AT_MS
    for offset, spawn in ((4, Spawn("duplicate", 1, AT_MS)), (5, Spawn("retried", 2, AT_MS))):
        evidence.inputs[INPUT, 0].records[offset] = spawn
    evidence.inputs[INPUT, 0].before = evidence.inputs[INPUT, 0].after = Position(6)
    log(evidence, "duplicate", "duplicate", 5, offset=4)
    log(evidence, "retried", "retry_scheduled", 6, offset=5)
    assert broken(evidence) == set()
    evidence.settled_from_ms = 0
    assert "I2" in broken(evidence)


def test_what_the_outside_noted_counts() -> None:
    results = [(outcome.at.offset, outcome.task_id) for outcome in sound().outcomes]
    assert broken(sound(), Journal(frozenset(TASKS), frozenset({"never"}), {0: results})) == set()
    assert broken(sound(), Journal(acknowledged=frozenset({"lost"}))) == {"I1"}
    assert broken(sound(), Journal(refused=frozenset({"a"}))) == {"I1"}
    assert broken(sound(), Journal(seen={0: results[:2]})) == {"I7"}
    assert broken(sound(), Journal(seen={0: [*results, (7, "zombie")]})) == {"I7"}
    assert broken(sound(), Journal(seen={0: results[::-1]})) == {"I7"}
