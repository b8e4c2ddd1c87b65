"""What becomes of single tasks: results, events, side effects, dead letters, as the topics have them."""

from __future__ import annotations

from typing import Any

import pytest
from accounting import Account, read_all

from kantoku_kafka import Kantoku, Status, Task, headers, idempotency_key, key, labels
from kantoku_kafka.kafka import topics
from kantoku_kafka.kafka.partitioner import python_partition_of
from kantoku_kafka.names import Topics
from kantoku_kafka.settings import EventDetail, ExecutorSettings, GroupProtocol, Guarantee


@pytest.mark.parametrize("guarantee", Guarantee)
@pytest.mark.parametrize("protocol", GroupProtocol)
def test_many_tasks_have_one_result_each(
    kan: Kantoku, bootstrap: str, running: Any, guarantee: Guarantee, protocol: GroupProtocol
) -> None:
    with running(ExecutorSettings(guarantee=guarantee, group_protocol=protocol)):
        spawned = kan.spawn_many([Task("echo", b"%d" % n) for n in range(1000)])
        results = kan.gather(spawned, timeout_seconds=60)
    assert [result.data for result in results] == [b"%d" % n for n in range(1000)]
    assert [(r.source.topic, r.source.partition, r.source.offset) for r in results] == [
        (s.topic, s.partition, s.offset) for s in spawned
    ]
    Account.of(bootstrap, kan.namespace).check({task.id for task in spawned})


def test_records_stand_where_every_client_finds_them(kan: Kantoku, bootstrap: str, running: Any) -> None:
    spec = Task("echo", b"d").with_(key("customer"), labels(kind="x"), headers(traceparent="00-1"))
    with running():
        spawned = kan.spawn(spec)
        result = spawned.result(timeout_seconds=30)
    assert result.headers == (("traceparent", b"00-1"),)
    (task,) = read_all(bootstrap, kan.topics.of_type("echo"))
    assert (task.key(), task.partition()) == (b"customer", python_partition_of(b"customer", 4))
    (record,) = read_all(bootstrap, kan.topics.results)
    home = python_partition_of(spawned.id.encode(), 4)
    assert (record.key(), record.partition()) == (spawned.id.encode(), home)
    assert record.headers() == [("traceparent", b"00-1")]
    events = read_all(bootstrap, kan.topics.events)
    assert [(m.key(), m.partition()) for m in events] == [
        (f"{spawned.id}/1/{name}".encode(), home)
        for name in ("spawned", "received_task", "executed_task", "sent_outputs")
    ]


def test_outcomes(kan: Kantoku, running: Any) -> None:
    cases = {
        b"fine": (Status.OK, None),
        b"raise:no luck": (Status.FAILED, ("ValueError", "no luck")),
        b"exit": (Status.FAILED, ("SystemExit", "3")),
        b"reject": (Status.REJECTED, ("Reject", "not today")),
        b"text": (Status.FAILED, ("unserialisable_result", None)),
        b"big:2000000": (Status.FAILED, ("result_too_large", None)),
    }
    with running():
        results = kan.gather(kan.spawn_many([Task("outcome", data) for data in cases]), timeout_seconds=60)
    for result, (status, error) in zip(results, cases.values(), strict=True):
        assert result.status is status
        assert (result.error is None) == (error is None)
        if error is not None and result.error is not None:
            assert result.error.type == error[0]
            assert error[1] is None or result.error.message == error[1]
            assert result.data == b""


@pytest.mark.parametrize("guarantee", Guarantee)
def test_side_effects_are_published_with_the_result_and_only_then(
    kan: Kantoku, bootstrap: str, running: Any, guarantee: Guarantee
) -> None:
    with running(ExecutorSettings(guarantee=guarantee)):
        good, bad = kan.spawn_many([Task("effects", b"fine"), Task("effects", b"fail")])
        assert [r.status for r in kan.gather([good, bad], timeout_seconds=30)] == [Status.OK, Status.FAILED]
        (child,) = read_all(bootstrap, kan.topics.of_type("echo"))
        child_id = (child.key() or b"").decode()
        assert kan.wait(child_id, timeout_seconds=30).data == b"child of " + good.id.encode()
    assert [m.value() for m in read_all(bootstrap, kan.topics.of_type("side"))] == [good.id.encode()]
    account = Account.of(bootstrap, kan.namespace)
    assert {e.task_id for e in account.events if e.name == "image.loaded"} == {good.id}
    (spawned,) = [e for e in account.events if e.task_id == child_id and e.name == "spawned"]
    assert spawned.attributes == {"parent_id": good.id}


def test_two_types_may_share_a_topic(kan: Kantoku, app: Kantoku, running: Any) -> None:
    shared = f"{kan.namespace}.shared"
    for side in (kan, app):
        side.topics = Topics(namespace=kan.namespace, overrides={"tasks.echo": shared, "tasks.nap": shared})
    assert [p.name for p in topics.plan(app.topics, ["echo", "nap"]) if p.name == shared] == [shared]
    topics.create(kan.clients, topics.plan(kan.topics, ["echo", "nap"]))
    with running():
        results = kan.gather(kan.spawn_many([Task("echo", b"0"), Task("nap", b"0")]), timeout_seconds=30)
    assert [result.type for result in results] == ["echo", "nap"]


def test_an_undeliverable_side_output_fails_its_own_task_only(kan: Kantoku, running: Any) -> None:
    specs = [Task("effects", b"side:no-such-topic" if n == 7 else b"fine") for n in range(20)]
    with running():
        results = kan.gather(kan.spawn_many(specs), timeout_seconds=90)
    assert [n for n, result in enumerate(results) if not result.ok] == [7]
    assert results[7].error is not None and results[7].error.type == "undeliverable"


def test_async_tasks_run_side_by_side(kan: Kantoku, running: Any) -> None:
    with running(ExecutorSettings(concurrency=50)):
        results = kan.gather(kan.spawn_many([Task("nap", b"0.5")] * 50), timeout_seconds=30)
    first, last = min(r.started_at_us or 0 for r in results), max(r.finished_at_us for r in results)
    assert last - first < 50 * 500_000 / 5


@pytest.mark.parametrize(
    ("detail", "names"),
    [
        (EventDetail.OFF, set()),
        (EventDetail.TERMINAL, {"sent_outputs"}),
        (EventDetail.FULL, {"received_task", "executed_task", "sent_outputs"}),
    ],
)
def test_how_much_is_logged(kan: Kantoku, bootstrap: str, running: Any, detail: EventDetail, names: set[str]) -> None:
    with running(ExecutorSettings(events=detail)):
        kan.wait(kan.spawn(Task("echo")).id, timeout_seconds=30)
    assert {e.name for e in Account.of(bootstrap, kan.namespace).events} - {"spawned"} == names


def test_a_long_task_is_announced_while_it_runs(kan: Kantoku, bootstrap: str, running: Any) -> None:
    with running(ExecutorSettings(drain_seconds=0.0)):
        spawned = kan.spawn(Task("nap", b"30"))
        for _ in range(100):
            events = Account.of(bootstrap, kan.namespace).events
            if any(event.name == "received_task" for event in events):
                break
        assert {event.name for event in events} == {"spawned", "received_task"}
        assert kan.find_results([spawned.id]) == {}


def test_the_same_idempotency_key_gives_the_same_id(kan: Kantoku, running: Any) -> None:
    first = kan.spawn(Task("echo").with_(idempotency_key("order-1")))
    assert first.id == kan.spawn(Task("echo").with_(idempotency_key("order-1"))).id
    with running():
        assert kan.wait(first.id, timeout_seconds=30).ok
