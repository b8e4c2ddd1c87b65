"""The demo's account: what is lost, doubled or run again is counted, and only that."""

from __future__ import annotations

from kantoku_kafka.demo.account import Account, Latency, TopicContents, latency, take_account
from kantoku_kafka.model import Event, Result, Source, Status, TaskEnvelope

AT_US = 1_800_000_000_000_000


def task(name: str, parent: str | None = None) -> TaskEnvelope:
    return TaskEnvelope(name, "hash" if parent else "fetch", b"", AT_US, parent_id=parent)


def result(name: str, data: bytes = b"", status: Status = Status.OK, after_ms: int = 100) -> tuple[Result, int]:
    source = Source("t", 0, 0)
    made = Result(name, "fetch", status, data, None, 1, "e", None, AT_US, source)
    return made, AT_US // 1000 + after_ms


def ended(*names: str) -> list[Event]:
    return [Event(name, "fetch", "sent_outputs", 1, AT_US) for name in names]


def account(contents: TopicContents, *accepted: str, runs: tuple[str, ...] = ()) -> Account:
    return take_account(contents, accepted=set(accepted), burst=set(accepted), runs=runs)


def test_all_is_well() -> None:
    contents = TopicContents(
        tasks=[task("a"), task("b"), task("child", "a")],
        results=[result("a", b"child"), result("b", status=Status.FAILED), result("child", after_ms=500)],
        events=ended("a", "b", "child"),
    )
    found = account(contents, "a", "b", runs=("a", "b", "a", "child"))
    assert found.ok
    assert (found.spawned, found.children, found.lost, found.duplicated, found.uneventful) == (3, 1, 0, 0, 0)
    assert found.status == {"OK": 2, "FAILED": 1}
    assert (found.runs, found.run_again) == (4, 1)
    assert found.latency == Latency(100.0, 100.0), "of what was spawned at once"
    assert found.tasks_per_second == 6.0, "three results in half a second"


def test_a_task_without_result_is_lost_also_one_that_only_the_client_knows() -> None:
    contents = TopicContents(tasks=[task("a"), task("b")], results=[result("a")], events=ended("a"))
    found = account(contents, "a", "b", "never-written")
    assert (found.ok, found.lost, found.duplicated) == (False, 2, 0)


def test_a_child_that_is_promised_and_not_there_is_lost() -> None:
    contents = TopicContents(tasks=[task("a")], results=[result("a", b"child")], events=ended("a"))
    assert (account(contents, "a").lost, account(contents, "a").ok) == (1, False)


def test_second_results_and_second_children_are_duplicates() -> None:
    contents = TopicContents(
        tasks=[task("a"), task("c1", "a"), task("c2", "a")],
        results=[result("a", b"c1"), result("a", b"c1"), result("a", b"c1"), result("c1"), result("c2")],
        events=ended("a", "a", "c1"),
    )
    found = account(contents, "a")
    assert (found.ok, found.lost, found.duplicated) == (False, 0, 3)
    assert found.uneventful == 2, "a ends twice in the events, c2 never"


def test_nothing_to_measure_is_zero() -> None:
    found = account(TopicContents(tasks=[], results=[], events=[]))
    assert (found.tasks_per_second, found.latency) == (0.0, Latency(0.0, 0.0))


def test_percentiles() -> None:
    assert latency(range(1000)) == Latency(500, 990)
    assert latency([7.04]) == Latency(7.0, 7.0)
