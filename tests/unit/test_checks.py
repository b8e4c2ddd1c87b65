"""The invariants as pure functions: sound evidence is accepted, and each way to break it is named."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kantoku_kafka.avro.codec import AvroCodec
from kantoku_kafka.model import Event, Source, TaskEnvelope
from kantoku_kafka.replay.fold import LoggedEvent
from kantoku_kafka.settings import EventDetail
from kantoku_kafka.verify import Evidence, Journal, judge
from kantoku_kafka.verify.evidence import Coordinates, Gathering, Input, Letter, Outcome, Position, Spawn

TASKS = ("a", "b", "c")
INPUT, TIMERS = "ns.tasks.work", "ns.timers"
AT_MS = 1_790_000_000_000
HOUR_MS = 3_600_000


def sound() -> Evidence:
    """Three tasks with a result each; the last one is done beyond the committed offset; behind it one waits."""
    evidence = Evidence(timers=TIMERS)
    done = Position(2, ((3, 4),))
    records = {offset: Spawn(task_id, 1, AT_MS) for offset, task_id in zip((0, 1, 3), TASKS, strict=True)}
    records[4] = Spawn("waits", 1, AT_MS)
    evidence.inputs[INPUT, 0] = Input(0, done, done, records)
    for offset, task_id in zip((0, 1, 3), TASKS, strict=True):
        end(evidence, task_id, offset)
    return evidence


def end(
    evidence: Evidence, task_id: str, offset: int, status: str = "OK", *, attempt: int = 1, topic: str = INPUT
) -> None:
    """A result and all the events before it."""
    at = len(evidence.outcomes)
    source = Coordinates(topic, 0, offset)
    evidence.outcomes.append(Outcome(Coordinates("ns.results", 0, at), task_id, status, attempt, "host", source))
    begin = 10 * len(evidence.histories[task_id])
    for number, name in enumerate(("spawned", "received_task", "executed_task", "sent_outputs")):
        log(evidence, task_id, name, begin + number, offset, status=status, attempt=attempt, topic=topic)


def log(
    evidence: Evidence,
    task_id: str,
    name: str,
    at: int,
    offset: int | None = None,
    status: str = "OK",
    attempt: int = 1,
    topic: str = INPUT,
) -> None:
    source = None if offset is None else Source(topic, 0, offset, 1)
    attributes = {"status": status} if name == "sent_outputs" else {}
    event = Event(task_id, "work", name, attempt, 1_000 * at, "host", source=source, attributes=attributes)
    evidence.histories[task_id].append(LoggedEvent(event, 0, at))


def all_done(evidence: Evidence, up_to: int = 5) -> None:
    evidence.inputs[INPUT, 0].before = evidence.inputs[INPUT, 0].after = Position(up_to)


def broken(
    evidence: Evidence, journal: Journal | None = None, *, at_rest: bool = False, events: EventDetail | None = None
) -> set[str]:
    report = judge(evidence, journal, at_rest=at_rest, events=events)
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
    all_done(evidence)


def _result_without_mark(evidence: Evidence) -> None:
    evidence.inputs[INPUT, 0].before = evidence.inputs[INPUT, 0].after = Position(2)


def _mark_one_too_far(evidence: Evidence) -> None:
    evidence.inputs[INPUT, 0].before = evidence.inputs[INPUT, 0].after = Position(2, ((4, 5),))


def _no_terminal_event(evidence: Evidence) -> None:
    evidence.histories["a"].pop()


def _terminal_event_alone(evidence: Evidence) -> None:
    log(evidence, "waits", "sent_outputs", 9)


def _terminal_event_of_a_zombie(evidence: Evidence) -> None:
    """Its result was refused, and the task ran again elsewhere."""
    event, _, _ = evidence.histories["a"][-1]
    evidence.histories["a"].insert(0, LoggedEvent(event._replace(executor_id="zombie"), 0, -1))


def _cancelled_by_a_timer_as_well(evidence: Evidence) -> None:
    end(evidence, "a", 5, "CANCELLED", topic=TIMERS)


def _retried_though_it_had_ended(evidence: Evidence) -> None:
    evidence.inputs[INPUT, 0].records[4] = Spawn("a", 2, AT_MS + 2 * HOUR_MS, moved=True)
    all_done(evidence)
    end(evidence, "a", 4, attempt=2)


def _result_from_nowhere(evidence: Evidence) -> None:
    source = Coordinates("no.such.topic", 0, 5)
    evidence.outcomes.append(Outcome(Coordinates("ns.results", 0, 9), "ghost", "OK", 1, "silent", source))


def _result_from_no_partition(evidence: Evidence) -> None:
    source = Coordinates(INPUT, 7, 5)
    evidence.outcomes.append(Outcome(Coordinates("ns.results", 0, 9), "ghost", "OK", 1, "silent", source))


def _ended_by_a_timer(evidence: Evidence) -> None:
    source = Coordinates(TIMERS, 0, 5)
    evidence.outcomes.append(Outcome(Coordinates("ns.results", 0, 9), "ghost", "OK", 1, "silent", source))


def _another_status(evidence: Evidence) -> None:
    evidence.outcomes[0] = evidence.outcomes[0]._replace(status="FAILED")


def _goes_on_after_the_end(evidence: Evidence) -> None:
    log(evidence, "a", "received_task", 9)


def _delayed_after_the_end(evidence: Evidence) -> None:
    log(evidence, "a", "delayed", 9)


def _second_attempt_first(evidence: Evidence) -> None:
    evidence.histories["a"] = evidence.histories["a"][:1]
    for at, (attempt, name) in enumerate(((2, "received_task"), (1, "received_task"), (1, "executed_task"))):
        log(evidence, "a", name, at + 1, 0, attempt=attempt)
    log(evidence, "a", "retry_scheduled", 4, 0)
    log(evidence, "a", "executed_task", 5, 0, attempt=2)
    log(evidence, "a", "sent_outputs", 6, 0, attempt=1)


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
        (_result_of_another_record, {"I3", "I4", "I6"}),
        (_done_without_result, {"I2", "I6"}),
        (_result_without_mark, {"I4"}),
        (_mark_one_too_far, {"I2", "I4", "I6"}),
        (_no_terminal_event, {"I4"}),
        (_terminal_event_alone, {"I4"}),
        (_terminal_event_of_a_zombie, {"I4"}),
        (_cancelled_by_a_timer_as_well, {"I2"}),
        (_retried_though_it_had_ended, {"I2", "I5"}),
        (_result_from_nowhere, {"I3"}),
        (_result_from_no_partition, {"I3"}),
        (_ended_by_a_timer, {"I3"}),
        (_another_status, {"I4"}),
        (_goes_on_after_the_end, {"I5"}),
        (_delayed_after_the_end, {"I5"}),
        (_second_attempt_first, {"I5"}),
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
    all_done(evidence)
    assert broken(evidence) == {"I2", "I6"}
    log(evidence, "waits", name, 5, offset=4)
    evidence.pending["waits"] = Coordinates("ns.timers", 0, 0)
    assert broken(evidence) == set()


def test_a_dead_letter_is_an_end() -> None:
    evidence = sound()
    evidence.inputs[INPUT, 0].records[4] = Spawn(None, 0, AT_MS)
    all_done(evidence)
    assert broken(evidence) == {"I6"}
    evidence.letters.append(Letter(Coordinates("ns.dead", 0, 0), Coordinates(INPUT, 0, 4)))
    assert broken(evidence, at_rest=True) == set()


def test_so_it_is_for_a_task_that_waits() -> None:
    evidence = sound()
    all_done(evidence)
    log(evidence, "waits", "delayed", 5, offset=4)
    assert broken(evidence) == {"I2"}
    gathering = Gathering(AvroCodec())
    gathering.evidence = evidence
    task = AvroCodec().encode_task(TaskEnvelope("waits", "work", b"", 1))
    place = {"topic": TIMERS.encode(), "partition": b"0", "offset": b"7"}
    headers = tuple((f"kantoku-source-{name}", text) for name, text in place.items())
    gathering.letter(Coordinates("ns.dead", 0, 0), task, headers)
    assert broken(evidence, at_rest=True) == set()


def test_of_a_task_that_was_spawned_thrice_one_event_is_enough() -> None:
    """Compaction keeps one of the events with the same key."""
    evidence = sound()
    for offset in (4, 5):
        evidence.inputs[INPUT, 0].records[offset] = Spawn("a", 1, AT_MS)
    all_done(evidence, 6)
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
    evidence.inputs[INPUT, 0].records[4] = Spawn("a", 1, AT_MS + HOUR_MS)
    all_done(evidence)
    end(evidence, "a", 4)
    assert broken(evidence, at_rest=True) == set()
    evidence.inputs[INPUT, 0].records[4] = Spawn("a", 1, AT_MS + HOUR_MS - 1)
    assert "I2" in broken(evidence, at_rest=True)


def test_an_executor_that_logs_nothing_breaks_nothing() -> None:
    evidence = sound()
    _no_terminal_event(evidence)
    assert broken(evidence) == {"I4"}
    evidence.outcomes[0] = evidence.outcomes[0]._replace(executor_id="silent")
    assert broken(evidence) == set()
    assert broken(evidence, events=EventDetail.FULL) == {"I4"}


def test_a_task_without_events_may_have_been_pruned() -> None:
    evidence = sound()
    evidence.inputs[INPUT, 0].records[5] = Spawn("a", 1, AT_MS)
    evidence.inputs[INPUT, 0].before = evidence.inputs[INPUT, 0].after = Position(2, ((3, 4), (5, 6)))
    gathering = Gathering(AvroCodec())
    gathering.evidence = evidence
    assert broken(evidence) == {"I6"}
    for name in ("spawned", "received_task", "executed_task", "sent_outputs"):
        gathering.event(Coordinates("ns.events", 0, 9), f"a/1/{name}".encode(), None)
    assert broken(evidence) == set()
    assert broken(evidence, events=EventDetail.TERMINAL) == {"I4"}
    assert broken(evidence, events=EventDetail.FULL) == {"I4", "I6"}
    evidence.histories.clear()
    assert broken(evidence) == set() == broken(evidence, events=EventDetail.OFF)
    assert broken(evidence, events=EventDetail.TERMINAL) == {"I4"}


@pytest.mark.parametrize("kept", ["sent_outputs", "nothing"])
def test_where_few_events_are_logged_a_task_may_have_gone_on_elsewhere(kept: str) -> None:
    """Its retry waits or runs; or it was spawned twice, and runs."""
    for again in (Spawn("b", 2, AT_MS, moved=True), Spawn("b", 1, AT_MS)):
        evidence = sound()
        evidence.outcomes.pop(1)
        for task_id in TASKS:
            history = [logged for logged in evidence.histories.pop(task_id) if logged.event.name == kept]
            evidence.histories |= {task_id: history} if history and task_id != "b" else {}
        evidence.inputs[INPUT, 0].records[5] = again
        assert broken(evidence) == set()
        assert "I6" in broken(evidence, events=EventDetail.FULL)


def test_of_what_began_before_nothing_is_said() -> None:
    evidence = sound()
    evidence.settled_from_ms = AT_MS
    for offset, spawn in ((4, Spawn("duplicate", 1, AT_MS)), (5, Spawn("retried", 2, AT_MS))):
        evidence.inputs[INPUT, 0].records[offset] = spawn
    all_done(evidence, 6)
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
