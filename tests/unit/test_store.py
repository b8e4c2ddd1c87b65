"""Task states in SQLite."""

from __future__ import annotations

import random
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kantoku_kafka.errors import KantokuError
from kantoku_kafka.model import ErrorInfo, Event, Source
from kantoku_kafka.replay.fold import Fold, LoggedEvent, Phase
from kantoku_kafka.replay.query import TaskQuery
from kantoku_kafka.replay.store import StoreUnusable, TaskStore

logs = st.lists(
    st.builds(
        lambda number, type_, name, attempt, at_us, status, error: Event(
            f"task-{number}",
            type_,
            name,
            attempt,
            at_us,
            "host",
            Source("in", 1, number),
            error,
            {"status": status, "label.n": str(number)},
        ),
        st.integers(0, 4),
        st.sampled_from(["a", "a", "a", "b"]),
        st.sampled_from(["spawned", "received_task", "executed_task", "sent_outputs", "x.y"]),
        st.integers(1, 2),
        st.integers(0, 10**15),
        st.sampled_from(["OK", "FAILED", 'quote"\u2028']),
        st.none() | st.just(ErrorInfo("E", "m\u0000\n", None, True)),
    ),
    max_size=40,
).map(lambda events: [LoggedEvent(event, 1, offset) for offset, event in enumerate(events)])


def expected(log: list[LoggedEvent]) -> dict[str, object]:
    histories = defaultdict(list)
    for logged in log:
        histories[logged.event.task_id].append(logged)
    return {task_id: Fold().state(history) for task_id, history in histories.items()}


@given(logs, st.data())
def test_folded_in_batches_it_is_the_fold_of_the_whole_log(log: list[LoggedEvent], data: st.DataObject) -> None:
    store = TaskStore(None, "t")
    at = 0
    while at < len(log):
        size = data.draw(st.integers(1, 20))
        again = data.draw(st.integers(0, min(at, 5)))  # an interrupted run is repeated
        with store.writing():
            store.add(log[at - again : at + size], {1: at + size})
        at += size
    wanted = expected(log)
    assert {state.task_id: state for state in store.find(TaskQuery())} == wanted
    assert all(store.get(task_id) == state for task_id, state in wanted.items())
    failed = {task_id for task_id, state in wanted.items() if state.status == "FAILED"}  # type: ignore[attr-defined]
    assert {state.task_id for state in store.find(TaskQuery(status="FAILED"))} == failed
    assert store.count(TaskQuery(status="FAILED")) == len(failed)
    store.close()


@given(logs, st.data())
def test_tombstones_take_steps_and_at_last_the_task(log: list[LoggedEvent], data: st.DataObject) -> None:
    store = TaskStore(None, "t")
    keys = {(h.event.task_id, h.event.attempt, h.event.name) for h in log}
    gone = {key for key in keys if data.draw(st.booleans())}
    with store.writing():
        store.add(log, {1: len(log)})
        store.remove(gone, {1: len(log) + 1})
    left = [h for h in log if (h.event.task_id, h.event.attempt, h.event.name) not in gone]
    assert {state.task_id: state for state in store.find(TaskQuery())} == expected(left)
    store.close()


def a_log(count: int = 3) -> list[LoggedEvent]:
    return [
        LoggedEvent(Event(f"task-{n}", "t", "spawned", 1, n * 1000, attributes={"label.n": str(n)}), 0, n)
        for n in range(count)
    ]


def test_queries() -> None:
    store = TaskStore(None, "t")
    with store.writing():
        store.add(a_log(5), {})

    def ids(query: TaskQuery, limit: int | None = None, newest_first: bool = False) -> list[str]:
        return [state.task_id for state in store.find(query, limit, newest_first)]

    assert ids(TaskQuery(labels={"n": "2"})) == ["task-2"]
    assert ids(TaskQuery(since_us=1000, until_us=3000)) == ["task-1", "task-2"]
    assert ids(TaskQuery(text="task-4")) == ["task-4"]
    assert ids(TaskQuery(text="label.n")) == [f"task-{n}" for n in range(5)]
    assert ids(TaskQuery(text="null")) == ids(TaskQuery(text="spawned")) == ids(TaskQuery(text='"')) == []
    assert ids(TaskQuery(phase=Phase.WAITING), 2, True) == ["task-4", "task-3"]
    assert ids(TaskQuery(task_type="u")) == []
    assert store.count(TaskQuery(labels={"n": "2", "m": "2"})) == 0
    store.close()


@given(st.text(max_size=8), st.text(max_size=3), st.text(max_size=3))
def test_text_is_found_wherever_it_occurs(text: str, before: str, after: str) -> None:
    store = TaskStore(None, "t")
    error = ErrorInfo("E", f"{before}{text}{after}")
    with store.writing():
        store.add([LoggedEvent(Event("id", "t", "error", 1, 1, error=error), 0, 0)], {})
    assert store.count(TaskQuery(text=text)) == 1
    store.close()


def test_offsets_never_go_back() -> None:
    """A slower process that shares the view notes where it is, too."""
    store = TaskStore(None, "t")
    with store.writing():
        store.add([], {0: 5, 1: 7})
        store.add([], {0: 3, 1: 9})
    assert store.offsets == {0: 5, 1: 9}
    store.close()


@pytest.mark.parametrize("seed", range(60))
def test_a_view_with_damaged_bytes_is_refused_and_never_a_bug(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "view"
    store = TaskStore(path, "t")
    with store.writing():
        store.add(a_log(200), {0: 200})
    store.close()
    chance = random.Random(seed)
    value = bytearray(path.read_bytes())
    for _ in range(chance.choice([1, 5, 50])):
        value[chance.randrange(len(value))] = chance.randrange(256)
    path.write_bytes(value)
    known = {logged.event.task_id: Fold().state([logged]) for logged in a_log(200)}
    try:
        store = TaskStore(path, "t")
    except KantokuError:
        return
    with suppress(KantokuError):
        for state in store.find(TaskQuery()):
            assert state == known[state.task_id]
    with suppress(KantokuError):
        store.count(TaskQuery(labels={"n": "2"}, text="2"))
    with suppress(KantokuError):
        assert all(isinstance(offset, int) for offset in store.offsets.values())
    with suppress(KantokuError), store.writing():
        store.add(a_log(5), {0: 3})
    store.close()


def test_a_view_goes_on_where_it_was(tmp_path: Path) -> None:
    first = TaskStore(tmp_path / "view", "t")
    with first.writing():
        first.add(a_log(), {0: 3})
    first.close()
    again = TaskStore(tmp_path / "view", "t")
    assert (again.offsets, again.count(TaskQuery())) == ({0: 3}, 3)
    again.close()


def test_what_was_interrupted_leaves_nothing(tmp_path: Path) -> None:
    store = TaskStore(tmp_path / "view", "t")
    with pytest.raises(KeyboardInterrupt), store.writing():
        store.add(a_log(), {0: 3})
        raise KeyboardInterrupt
    assert (store.offsets, store.count(TaskQuery())) == ({}, 0)
    store.close()


@pytest.mark.parametrize("damage", [b"not a database at all, but long enough to be one" * 100, b"\0" * 8192])
def test_a_damaged_view_is_refused(tmp_path: Path, damage: bytes) -> None:
    TaskStore(tmp_path / "view", "t").close()
    whole = (tmp_path / "view").read_bytes()
    (tmp_path / "view").write_bytes(damage[:68] + whole[68:72] + damage[72:])
    with pytest.raises(StoreUnusable):
        TaskStore(tmp_path / "view", "t")


def test_a_view_of_another_topic_is_refused(tmp_path: Path) -> None:
    TaskStore(tmp_path / "view", "t").close()
    with pytest.raises(StoreUnusable, match="another version or topic"):
        TaskStore(tmp_path / "view", "u")


def test_a_view_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(KantokuError, match="cannot be used"):
        TaskStore(tmp_path / "no" / "such" / "place", "t")
