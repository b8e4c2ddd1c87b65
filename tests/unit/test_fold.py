"""From events to task states."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kantoku_kafka.model import ErrorInfo, Event, Source
from kantoku_kafka.replay.export import event_json, iso
from kantoku_kafka.replay.fold import Fold, LoggedEvent, Phase

NAMES = ["spawned", "received_task", "executed_task", "sent_outputs", "retry_scheduled", "error", "shop.paid"]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def logged(name: str, offset: int, attempt: int = 1, at_us: int | None = None, **attributes: str) -> LoggedEvent:
    at_us = 1_000_000 * offset if at_us is None else at_us
    return LoggedEvent(Event("id", "t", name, attempt, at_us, "host-1", attributes=attributes), 0, offset)


def whole(*more: LoggedEvent) -> list[LoggedEvent]:
    return [
        logged("spawned", 0, **{"label.shop": "x", "parent_id": "p"}),
        logged("received_task", 2),
        logged("executed_task", 5),
        logged("sent_outputs", 6, status="OK"),
        *more,
    ]


def test_a_life_from_beginning_to_end() -> None:
    phases = [Fold().state(whole()[:upto]).phase for upto in (1, 2, 3, 4)]
    assert phases == [Phase.WAITING, Phase.RUNNING, Phase.RUNNING, Phase.FINISHED]
    state = Fold().state(whole())
    assert (state.status, state.attempt, state.executor_id, state.labels) == ("OK", 1, "host-1", {"shop": "x"})
    assert (state.parent_id, state.waited_us, state.ran_us) == ("p", 2_000_000, 4_000_000)
    assert not state.problems


def test_the_spawner_may_write_its_event_late() -> None:
    late = [logged("received_task", 0), logged("executed_task", 1), logged("sent_outputs", 2, status="OK")]
    state = Fold().state([*late, logged("spawned", 3, at_us=0)])
    assert (state.phase, state.problems) == (Phase.FINISHED, [])
    assert Fold().state([*late[:1], logged("spawned", 3, at_us=0)]).phase is Phase.RUNNING


def test_attempts_are_one_history() -> None:
    first = [logged("received_task", 0), logged("executed_task", 1), logged("retry_scheduled", 2)]
    assert Fold().state(first).phase is Phase.RETRYING
    second = [logged("received_task", 3, 2), logged("executed_task", 4, 2), logged("sent_outputs", 5, 2, status="OK")]
    state = Fold().state(first + second)
    assert (state.attempt, state.phase, state.problems) == (2, Phase.FINISHED, [])
    assert (state.received_at_us, state.running_since_us) == (0, 3_000_000)


def test_executors_that_log_results_only() -> None:
    state = Fold().state([logged("sent_outputs", 0, status="OK")])
    assert (state.phase, state.problems, state.waited_us) == (Phase.FINISHED, [], None)


@pytest.mark.parametrize(
    ("history", "problem"),
    [
        (whole(logged("sent_outputs", 9, 2, status="OK")), "2 terminal results, of attempts 1, 2"),
        (whole(logged("received_task", 9)), "was received again after it had ended"),
        (whole(logged("received_task", 9)), "received_task of attempt 1 after the result"),
        ([logged("executed_task", 1)], "without having been received"),
        ([logged("sent_outputs", 1, status="WELL")], "unknown status 'WELL'"),
        ([logged("sent_outputs", 1)], "unknown status None"),
        ([*whole()[:3], logged("received_task", 7, 2)], "attempt 1 was not to be tried again"),
        ([logged("spawned", 1), LoggedEvent(Event("id", "u", "error", 1, 0), 0, 2)], "2 task types: t, u"),
    ],
)
def test_what_cannot_be_is_said(history: Sequence[LoggedEvent], problem: str) -> None:
    assert any(problem in found for found in Fold().state(history).problems)


histories = st.lists(
    st.builds(
        lambda name, attempt, at_us, status: (name, attempt, at_us, {"status": status}),
        st.sampled_from(NAMES),
        st.integers(1, 3),
        st.integers(0, 10**15),
        st.sampled_from(["OK", "FAILED"]),
    ),
    min_size=1,
    max_size=25,
).map(lambda steps: [logged(n, offset, a, at_us=at, **attrs) for offset, (n, a, at, attrs) in enumerate(steps)])


@given(histories, st.data())
def test_compaction_changes_no_state(history: list[LoggedEvent], data: st.DataObject) -> None:
    """Whatever of the superseded events is gone, in whatever order the rest is read."""
    last = {(h.event.attempt, h.event.name): h.offset for h in history}
    left = [h for h in history if last[h.event.attempt, h.event.name] == h.offset or data.draw(st.booleans())]
    assert Fold().state(data.draw(st.permutations(left))) == Fold().state(history)


def test_a_fold_of_the_users_own() -> None:
    class Paid(Fold):
        def extra(self, history: Sequence[LoggedEvent]) -> Mapping[str, Any]:
            return {"paid": sum(h.event.name == "shop.paid" for h in history)}

    assert Paid().state(whole(logged("shop.paid", 3))).extra == {"paid": 1}


events = st.builds(
    Event,
    TEXT,
    TEXT,
    TEXT,
    st.integers(1, 9),
    st.integers(-(10**15), 4 * 10**15),
    st.none() | TEXT,
    st.none() | st.builds(Source, TEXT, st.integers(0, 99), st.integers(0, 2**62), st.integers(0, 99)),
    st.none() | st.builds(ErrorInfo, TEXT, TEXT, st.none() | TEXT, st.booleans()),
    st.dictionaries(TEXT, TEXT, max_size=3),
)


@given(events, st.integers(0, 9), st.integers(0, 2**62))
def test_an_event_as_json(event: Event, partition: int, offset: int) -> None:
    line = event_json(LoggedEvent(event, partition, offset))
    assert "\n" not in line
    assert json.loads(line) == {
        "task_id": event.task_id,
        "type": event.type,
        "name": event.name,
        "attempt": event.attempt,
        "at": iso(event.at_us),
        "executor_id": event.executor_id,
        "source": event.source._asdict() if event.source else None,
        "error": event.error._asdict() if event.error else None,
        "attributes": event.attributes,
        "partition": partition,
        "offset": offset,
    }


@given(st.integers(0, 4 * 10**15))
def test_times_as_text(at_us: int) -> None:
    from datetime import UTC, datetime, timedelta

    assert datetime.fromisoformat(iso(at_us)) == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us)
