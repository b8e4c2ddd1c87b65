"""What executors and schedulers show over HTTP while they work, hang, drain."""

from __future__ import annotations

import json
import re
import signal
import socket
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from access import as_user, rights
from conftest import Running
from executors import ExecutorUnderTest, until
from hanging_app import kan as hanging
from prometheus_client.parser import text_string_to_metric_families
from retry_app import kan as retrying

from kantoku_kafka import Kantoku, Task, delay, idempotency_key, key
from kantoku_kafka.dev.layout import reserved_ports
from kantoku_kafka.job import Message
from kantoku_kafka.kafka import topics
from kantoku_kafka.model import TaskEnvelope, now_us
from kantoku_kafka.observability.exposition import Exposition
from kantoku_kafka.observability.measured import Measured
from kantoku_kafka.settings import ExecutorSettings

Made = Callable[[Kantoku], Kantoku]


@pytest.fixture
def made(bootstrap: str) -> Iterator[Made]:
    """A spawning side in a namespace of its own, with the topics of an app."""
    with ExitStack() as stack:

        def make(app: Kantoku) -> Kantoku:
            kan = Kantoku(f"t-{uuid.uuid4().hex[:8]}", **as_user(bootstrap))
            stack.callback(kan.close)
            stack.enter_context(rights(kan.namespace, map(kan.topics.of_type, app.task_types)))
            topics.create(kan.clients, topics.plan(kan.topics, app.task_types))
            return kan

        yield make


class Shown:
    """What stands at an address."""

    def __init__(self, url: str) -> None:
        self.url = url

    @classmethod
    def by(cls, executor: ExecutorUnderTest) -> Shown:
        """An executor on a free port."""
        until(lambda: "listening on" in executor.log(), 30, "it listens")
        (url,) = re.findall(r"listening on (http://\S+)", executor.log())
        return cls(url)

    def probe(self, path: str) -> tuple[int, list[str]]:
        """Status, and reasons."""
        try:
            with urllib.request.urlopen(f"{self.url}{path}", timeout=30) as answer:
                return answer.status, json.load(answer)["reasons"]
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)["reasons"]

    def ready(self) -> bool:
        return self.probe("/readyz") == (200, [])

    def values(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """Those of one metric that are not 0, by the values of these labels, added up."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as answer:
            return values_in(answer.read(), name, *labels)


def values_in(text: bytes, name: str, *labels: str) -> dict[tuple[str, ...], float]:
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            if sample.name == name and sample.value:
                place = tuple(sample.labels[label] for label in labels)
                found[place] = found.get(place, 0) + sample.value
    return found


def test_the_counters_agree_with_the_topics(made: Made, tmp_path: Path) -> None:
    kan = made(retrying)
    servers = kan.connection.bootstrap_servers
    with ExecutorUnderTest(
        servers, kan.namespace, "--http", "127.0.0.1:0", log=tmp_path / "log", app="retry_app:kan"
    ) as executor:
        shown = Shown.by(executor)
        until(shown.ready, 60, "ready")
        spawned = kan.spawn_many([Task("timed") for _ in range(20)])
        spawned += kan.spawn_many([Task("flaky", b"2") for _ in range(3)])  # one retry each
        spawned.append(kan.spawn(Task("flaky", b"9")))  # two retries, a dead letter
        spawned.append(kan.spawn(Task("timed").with_(delay(seconds=1))))
        spawned.append(kan.spawn(Task("timed").with_(idempotency_key("one"))))
        kan.wait(spawned[-1].id, timeout_seconds=60)
        kan.spawn(Task("timed").with_(idempotency_key("one")))
        strange = kan.codec.encode_task(TaskEnvelope(kan.task_ids.new(), "of-strangers", b"", now_us()))
        kan.write(Message(kan.topics.of_type("timed"), b"key", value) for value in (strange, b"no envelope"))
        for one in spawned:
            kan.wait(one.id, timeout_seconds=60)
        until(lambda: shown.values("kantoku_dead_letters_total", "type").get(("unknown",)) == 2, 60, "the strangers'")
        until(lambda: shown.values("kantoku_duplicates_total", "type") == {("timed",): 1}, 60, "the duplicate")
        until(
            lambda: shown.values("kantoku_timers_fired_total", "type") == {("flaky",): 5, ("timed",): 1}, 60, "timers"
        )
        assert shown.values("kantoku_tasks_total", "type", "status") == {
            ("timed", "OK"): 22,
            ("flaky", "OK"): 3,
            ("flaky", "FAILED"): 1,
            ("unknown", "REJECTED"): 1,
        }
        assert shown.values("kantoku_retries_total", "type") == {("flaky",): 5}
        assert shown.values("kantoku_dead_letters_total", "type") == {("flaky",): 1, ("unknown",): 2}
        assert shown.values("kantoku_execution_seconds_count", "type") == {("timed",): 22, ("flaky",): 9}
        assert shown.values("kantoku_checkpoints_refused_total", "loop") == {}
        until(lambda: shown.values("kantoku_lag_records", "topic") == {}, 60, "markers of transactions are no lag")
        until(
            lambda: shown.values("kantoku_heartbeats_total", "outcome").get(("delivered",), 0) >= 1, 60, "a heartbeat"
        )
        executor.kill(signal.SIGTERM)
        assert executor.wait(60) == 0


def test_a_backlog_is_seen_while_its_partition_is_paused(
    kan: Kantoku, app: Kantoku, running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    released, measured = tmp_path / "released", Measured()
    app.use(measured)
    exposition = Exposition(measured)

    def values(name: str, *labels: str) -> dict[tuple[str, ...], float]:
        return values_in(exposition.text("")[1], name, *labels)

    with running(ExecutorSettings(concurrency=2, max_waiting=10, max_batch=10, timers=False)):
        task = Task("note", str(released).encode()).with_(key("one"))
        kan.spawn_many([task] * 40)
        until(lambda: values("kantoku_paused_partitions") == {(): 1}, 60, "paused")
        kan.spawn_many([task] * 60)
        until(lambda: values("kantoku_lag_records", "topic") == {(kan.topics.of_type("note"),): 100}, 60, "the lag")
        assert values("kantoku_tasks_in_flight", "type") == {("note",): 4}, "as many wait in the pool as run"
        assert values("kantoku_tasks_waiting", "type")[("note",)] >= 10
        assert values("kantoku_oldest_waiting_seconds", "type")[("note",)] > 5, "since its record was written"
        released.touch()
        until(lambda: values("kantoku_tasks_total", "type", "status") == {("note", "OK"): 100}, 60, "all are done")
        until(lambda: not values("kantoku_lag_records", "topic"), 60, "no lag")
        assert not values("kantoku_oldest_waiting_seconds", "type") and not values("kantoku_paused_partitions")


def test_probes_of_one_that_hangs_and_of_one_that_drains(made: Made, tmp_path: Path) -> None:
    kan, released, ended = made(hanging), tmp_path / "released", tmp_path / "ended"
    with ExecutorUnderTest(
        kan.connection.bootstrap_servers,
        kan.namespace,
        *("--http", "127.0.0.1:0", "-X", "max.poll.interval.ms=10000"),
        log=tmp_path / "log",
        app="hanging_app:kan",
    ) as executor:
        shown = Shown.by(executor)
        assert shown.probe("/livez") == (200, [])
        until(shown.ready, 60, "ready")
        assert shown.probe("/startupz") == (200, [])
        hung = kan.spawn(Task("inline", str(released).encode()))
        until(lambda: shown.probe("/livez")[0] == 503, 60, "it hangs")
        assert "its loop has not gone round for" in shown.probe("/livez")[1][0]
        released.touch()
        until(lambda: shown.probe("/livez")[0] == 200 and shown.ready(), 60, "it goes on")
        assert kan.wait(hung.id, timeout_seconds=60).ok
        kan.spawn(Task("thread", str(ended).encode()))
        until(lambda: shown.values("kantoku_tasks_in_flight", "type") == {("thread",): 1}, 60, "it runs")
        executor.kill(signal.SIGTERM)
        until(lambda: shown.probe("/readyz") == (503, ["it drains"]), 60, "it drains")
        assert shown.probe("/livez") == (200, [])
        ended.touch()
        assert executor.wait(60) == 0


def test_each_of_several_processes_has_a_port_and_so_has_a_scheduler(made: Made, tmp_path: Path) -> None:
    kan, first = made(hanging), two_ports()
    both = kan.connection.bootstrap_servers, kan.namespace, "--http"
    with ExecutorUnderTest(
        *both, f"127.0.0.1:{first}", "--processes", "2", log=tmp_path / "log", app="hanging_app:kan"
    ) as executor:
        for port in (first, first + 1):
            until(lambda: f"http://127.0.0.1:{port}" in executor.log(), 60, "it listens")  # noqa: B023 - called at once
            until(Shown(f"http://127.0.0.1:{port}").ready, 60, "ready")
        scheduler = ExecutorUnderTest(
            *both, f"127.0.0.1:{first}", log=tmp_path / "late", app="hanging_app:kan", command="run-scheduler"
        )
        assert scheduler.wait(60) == 2
        assert f"error: --http: 127.0.0.1:{first} cannot be listened on" in scheduler.log()
        executor.kill(signal.SIGTERM)
        assert executor.wait(60) == 0
    with ExecutorUnderTest(
        *both, "127.0.0.1:0", log=tmp_path / "timers", app="hanging_app:kan", command="run-scheduler"
    ) as scheduler:
        shown = Shown.by(scheduler)
        until(shown.ready, 60, "ready")
        until(lambda: shown.values("kantoku_assigned_partitions", "loop").keys() == {("timers",)}, 60, "assigned")


def two_ports() -> int:
    """The first of two neighbours that are free."""
    while True:
        with reserved_ports(1) as (port,), socket.socket() as neighbour, suppress(OSError):
            neighbour.bind(("127.0.0.1", port + 1))
            return port
