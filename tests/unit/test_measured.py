"""What meters are told, and what becomes of it in the table of metrics. No Kafka."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from recording import Broker, Inputs

from kantoku_kafka import Kantoku
from kantoku_kafka.engine.checkpoint import Checkpoint
from kantoku_kafka.engine.doneset import MAX_BITMAP_SPAN
from kantoku_kafka.engine.intake import Intake
from kantoku_kafka.engine.scheduler import Ordering, Scheduler, TypeLimits
from kantoku_kafka.errors import UsageError
from kantoku_kafka.job import Job, Message, Move, Offset
from kantoku_kafka.kafka.clients import Clients
from kantoku_kafka.kafka.statistics import Watch, read_statistics
from kantoku_kafka.meter import TASKS, TIMERS, ClientStatistics, Committed, Fetched, Meter, Meters, Standing, Undone
from kantoku_kafka.model import ErrorInfo, EventName, Status, now_us
from kantoku_kafka.observability.exposition import Exposition
from kantoku_kafka.observability.measured import Measured, lag
from kantoku_kafka.observability.metrics import BUCKETS, METRICS, PROCESS, Kind
from kantoku_kafka.protocols import CheckpointRefused
from kantoku_kafka.settings import Connection, EventDetail

Shown = Callable[..., float]


@pytest.fixture
def measured() -> Measured:
    found = Measured()
    app = Kantoku("shop", plugins=[found])
    app.task("work")(lambda data: data)
    return found


def shown(measured: Measured) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample of the text that is scraped."""
    _, text = Exposition(measured).text("text/plain")
    samples = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            place = sample.name, frozenset(sample.labels.items())
            assert place not in samples
            samples[place] = sample.value
    return samples


def value(measured: Measured, name: str, **labels: str) -> float:
    return shown(measured)[name, frozenset(labels.items())]


def ended(*jobs: Job) -> Committed:
    return Committed(jobs, 0, 0, 0.0)


def a_job(task_type: str | None = "work") -> Job:
    job = Inputs().job("id")
    if task_type is None:
        del job.task_id, job.type
    else:
        job.type = task_type
    return job


def test_all_of_the_table_is_shown_from_the_start_and_nothing_else(measured: Measured) -> None:
    names = {name for name, _ in shown(measured)}
    expected = set()
    for metric in METRICS:
        histogram = metric.kind is Kind.HISTOGRAM
        expected |= {metric.name + suffix for suffix in (("_bucket", "_count", "_sum") if histogram else ("",))}
    assert names == expected - {"kantoku_lag_records"}, "that one has no partition yet"
    assert value(measured, "kantoku_tasks_total", type="unknown", status="REJECTED") == 0
    assert value(measured, "kantoku_rebalances_total", loop="timers", change="lost") == 0


def test_the_table_keeps_the_rules_of_its_readers() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    assert {metric.name for metric in METRICS if metric.kind is Kind.HISTOGRAM} == BUCKETS.keys()
    for metric in METRICS:
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER), metric
        assert metric in PROCESS or metric.name.startswith("kantoku_"), metric
        assert metric.help.endswith("."), metric
        for unit in ("seconds", "bytes"):
            assert (metric.unit == unit) == (unit in metric.name), metric
    assert all(list(bounds) == sorted(set(bounds)) for bounds in BUCKETS.values())


def test_jobs_are_counted_by_what_became_of_them(measured: Measured) -> None:
    good, bad, retried, again, strange, unreadable = (a_job() for _ in range(6))
    good.succeed(b"")
    good.finished_at_us = (good.started_at_us or 0) + 30_000
    bad.fail(Status.FAILED, ErrorInfo("E", "m"))
    bad.letter = Message("dlq", None, b"")
    retried.fail(Status.TIMED_OUT, ErrorInfo("E", "m"))
    retried.carry_on(Move((), EventName.RETRY_SCHEDULED))
    again.started_at_us = None
    again.carry_on(Move((), EventName.DUPLICATE))
    strange.type, strange.started_at_us = "x" * 200, None
    strange.fail(Status.REJECTED, ErrorInfo("E", "m"))
    unreadable = a_job(None)
    unreadable.started_at_us, unreadable.letter = None, Message("dlq", None, b"")
    measured.committed(TASKS, Committed([good, bad, retried, again, strange, unreadable], 9, 1_500, 0.3))
    fired, planned = a_job(), a_job()
    fired.started_at_us = planned.started_at_us = None
    fired.carry_on(Move((Message("t", None, b""),), marks=(Message("timers", None, None),)))
    planned.carry_on(Move((Message("t", None, b""),), EventName.SPAWNED))
    measured.committed(TIMERS, ended(fired, planned))

    assert value(measured, "kantoku_tasks_total", type="work", status="OK") == 1
    assert value(measured, "kantoku_tasks_total", type="work", status="FAILED") == 1
    assert value(measured, "kantoku_tasks_total", type="work", status="TIMED_OUT") == 0, "it is tried again"
    assert value(measured, "kantoku_tasks_total", type="unknown", status="REJECTED") == 1
    assert value(measured, "kantoku_dead_letters_total", type="work") == 1
    assert value(measured, "kantoku_dead_letters_total", type="unknown") == 1
    assert value(measured, "kantoku_retries_total", type="work") == 1
    assert value(measured, "kantoku_duplicates_total", type="work") == 1
    assert value(measured, "kantoku_timers_fired_total", type="work") == 1
    assert value(measured, "kantoku_scheduled_total", type="work") == 1
    assert value(measured, "kantoku_execution_seconds_count", type="work") == 3
    assert value(measured, "kantoku_execution_seconds_bucket", type="work", le="0.05") >= 1
    assert value(measured, "kantoku_checkpoint_seconds_bucket", loop="tasks", le="0.25") == 0
    assert value(measured, "kantoku_checkpoint_seconds_bucket", loop="tasks", le="0.5") == 1
    assert value(measured, "kantoku_checkpoint_bytes_sum", loop="tasks") == 1_500
    assert value(measured, "kantoku_checkpoint_records_bucket", loop="tasks", le="+Inf") == 1


def test_a_clock_that_was_set_back_makes_no_negative_duration(measured: Measured) -> None:
    job = a_job()
    job.succeed(b"")
    job.finished_at_us = (job.started_at_us or 0) - 5_000_000
    measured.committed(TASKS, ended(job))
    assert value(measured, "kantoku_execution_seconds_sum", type="work") == 0


@settings(max_examples=20)
@given(st.lists(st.text(min_size=1), max_size=30))
def test_strangers_add_no_series(names: list[str]) -> None:
    measured = Measured()
    app = Kantoku("shop", plugins=[measured])
    app.task("work")(lambda data: data)
    before = shown(measured).keys()
    for name in names:
        job = a_job(name)
        job.fail(Status.REJECTED, ErrorInfo("E", "m"))
        measured.committed(TASKS, ended(job))
    assert shown(measured).keys() == before


def test_where_the_loops_stand(measured: Measured) -> None:
    tasks = Standing(
        assigned=3,
        paused=2,
        blocked=1,
        in_flight={"work": 4},
        waiting={"work": 5},
        written_at_ms={"work": now_us() // 1000 - 90_000},
        undone={("in", 0): Undone(10, 4), ("in", 1): Undone(7, 0)},
    )
    measured.stands(TASKS, tasks)
    measured.stands(TIMERS, Standing(1, pending={"shop.timers": 6}, due_at_us=now_us() - 3_000_000))
    text = json.dumps({"topics": {"in": {"topic": "in", "partitions": {"0": partition(0, 12, 0, 15)}}}})
    measured.consumer(TASKS, read_statistics(text))
    assert value(measured, "kantoku_assigned_partitions", loop="tasks") == 3
    assert value(measured, "kantoku_paused_partitions") == 2
    assert value(measured, "kantoku_blocked_partitions") == 1
    assert value(measured, "kantoku_tasks_in_flight", type="work") == 4
    assert value(measured, "kantoku_tasks_waiting", type="work") == 5
    assert 90 <= value(measured, "kantoku_oldest_waiting_seconds", type="work") < 300
    assert value(measured, "kantoku_timers_pending", topic="shop.timers") == 6
    assert value(measured, "kantoku_timers_pending", topic="shop.schedules") == 0
    assert 3 <= value(measured, "kantoku_timers_overdue_seconds") < 300
    assert value(measured, "kantoku_lag_records", topic="in", partition="0") == 7
    assert ("kantoku_lag_records", frozenset({"topic": "in", "partition": "1"}.items())) not in shown(measured)


def partition(number: int, next_offset: int, queued: int, high: int) -> Mapping[str, Any]:
    return {
        "partition": number,
        "desired": True,
        "next_offset": next_offset,
        "fetchq_cnt": queued,
        "fetchq_size": 100 * queued,
        "hi_offset": high,
    }


def test_markers_of_transactions_are_no_lag() -> None:
    """The client has passed over them, and they are beyond what was taken in."""
    assert lag(Undone(10, 0), Fetched(next_offset=12, queued=0, end=12)) == 0
    assert lag(Undone(10, 3), Fetched(next_offset=12, queued=0, end=15)) == 6
    assert lag(Undone(10, 0), Fetched(next_offset=20, queued=9, end=20)) == 10, "what is in its buffer is not done"
    assert lag(Undone(10, 2), Fetched(next_offset=-1001, queued=0, end=0)) == 2


def test_openmetrics_is_spoken_to_who_asks_for_it(measured: Measured) -> None:
    content_type, text = Exposition(measured).text("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text") and text.endswith(b"# EOF\n")
    assert b"kantoku_tasks_total" in text


def test_without_the_extra_the_sentence_names_it(measured: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "prometheus_client", None)
    with pytest.raises(UsageError, match=r"kantoku-kafka\[prometheus\]"):
        Exposition(measured)


# --- who tells


class Told(Meter):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def committed(self, loop: str, checkpoint: Committed) -> None:
        self.calls.append((loop, len(checkpoint.ended), checkpoint.records, checkpoint.size_bytes))

    def refused(self, loop: str) -> None:
        self.calls.append((loop, "refused"))

    def consumer(self, loop: str, statistics: ClientStatistics) -> None:
        self.calls.append((loop, statistics.fetched))


class Broken(Meter):
    def committed(self, loop: str, checkpoint: Committed) -> None:
        raise ValueError("no")


def test_a_checkpoint_tells_once_when_it_is_committed(caplog: pytest.LogCaptureFixture) -> None:
    broker, inputs, told = Broker(refuse=["commit"]), Inputs(), Told()
    checkpoint = Checkpoint(
        outputs=broker,
        events=broker,
        transaction=broker,
        detail=EventDetail.FULL,
        executor_id="host-1-ab",
        writer=lambda _: "host.0",
        meters=Meters([Broken(), told], TASKS),
    )
    for name in ("a", "b"):
        inputs.end(checkpoint, inputs.job(name), b"12345")
    batch = checkpoint.take(inputs.windows)
    with pytest.raises(CheckpointRefused):
        checkpoint.publish(batch)
    checkpoint.restore(batch)
    with caplog.at_level(logging.ERROR):
        checkpoint.publish(checkpoint.take(inputs.windows))
    assert told.calls == [(TASKS, "refused"), (TASKS, 2, 2 + 6, 10)]
    assert [record.__dict__["action"] for record in caplog.records] == ["meter"], "it harms nobody"


def test_the_scheduler_knows_how_long_its_oldest_job_waits() -> None:
    scheduler = Scheduler({"work": TypeLimits(ordering=Ordering.KEY), "idle": TypeLimits()})
    inputs = Inputs()
    jobs = [inputs.job(str(n)) for n in range(4)]
    for job, written_at_ms, key in zip(jobs, (30, 20, 40, 10), (b"a", b"b", b"a", b"b"), strict=True):
        job.written_at_ms, job.key = written_at_ms, key
    scheduler.add(jobs)
    assert scheduler.waiting_by_type() == {"work": (4, 20), "idle": (0, None)}, "the first of each key may start"
    for job in scheduler.take(4):
        scheduler.done(job)
    assert scheduler.waiting_by_type()["work"] == (2, 10)
    assert Scheduler({"work": TypeLimits()}).waiting_by_type() == {"work": (0, None)}


def test_what_waits_for_its_window_is_undone() -> None:
    intake = Intake(10_000, 1 << 20)
    (partition,) = intake.open([Offset("in", 3, 5, "")])
    jobs = [Job(partition, offset, None, b"") for offset in range(5, 5 + MAX_BITMAP_SPAN + 50_000, 2)]
    admitted = intake.admit(jobs)
    window = intake.windows[partition]
    assert len(admitted) < len(jobs) and intake.blocked == 1
    assert intake.undone() == {("in", 3): Undone(jobs[-1].offset + 1, len(jobs))}
    window.finish(jobs[0].offset)
    assert intake.undone()[("in", 3)].records == len(jobs) - 1


WORDS = ("topics", "partitions", "brokers", "rtt", "avg", "tx", "GroupCoordinator", "desired", "partition")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
        max_leaves=20,
    )
)
def test_statistics_of_any_shape_raise_value_error_or_are_read(found: Any) -> None:
    try:
        read_statistics(json.dumps(found))
    except ValueError:
        return


def test_where_a_secret_cannot_be_looked_up_the_consumer_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GONE", raising=False)
    told = Told()
    watch = Watch(
        Clients(Connection(bootstrap_servers="localhost:1", config={"sasl.password": "${env:GONE}"})), Meters([told])
    )
    watch.paused.add(("shop.tasks.work", 0))
    partition = {"partition": 0, "desired": True, "next_offset": 3, "hi_offset": 5}
    take: Any = watch.config["stats_cb"]
    take(json.dumps({"topics": {"shop.tasks.work": {"partitions": {"0": partition}}}}))
    assert told.calls == [(TASKS, {("shop.tasks.work", 0): Fetched(3, 0, 5)})]
