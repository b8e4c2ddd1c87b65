"""``events``, ``tasks``, ``executors``, ``lag``, ``top`` as a user meets them."""

from __future__ import annotations

import json
import os
import pty
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from access import as_user, super_user
from accounting import Account, read_all
from administration import alter_topic, delete_topic
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from conftest import Running
from executors import until

from kantoku_kafka import Kantoku, Task, delay, idempotency_key, key, labels
from kantoku_kafka.errors import TaskTooLarge, TopicMismatch
from kantoku_kafka.kafka import topics
from kantoku_kafka.replay.query import TaskQuery
from kantoku_kafka.settings import ExecutorSettings
from kantoku_kafka.slots import host

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environment(bootstrap: str, namespace: str, tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "KANTOKU_BOOTSTRAP_SERVERS": bootstrap,
        "KANTOKU_NAMESPACE": namespace,
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }


@pytest.fixture
def cli(environment: dict[str, str], tmp_path: Path) -> Cli:
    def run(*arguments: str, code: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "kantoku_kafka", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False, env=environment, **options
        )
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done

    return run


def rows(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def finished(kan: Kantoku, running: Running) -> Iterator[list[str]]:
    """The ids of ten tasks that succeeded, and of one, the last, that failed."""
    with running():
        tasks = [kan.spawn(Task("echo", b"x").with_(labels(shop="a"), key("customer"))) for _ in range(10)]
        tasks.append(kan.spawn(Task("outcome", b"raise:no")))
        kan.gather(tasks, timeout_seconds=30)
        yield [task.id for task in tasks]


def test_replay_to_every_form(cli: Cli, finished: list[str], tmp_path: Path) -> None:
    lines = rows(cli("events", "replay"))
    assert len(lines) == 44
    assert {line["task_id"] for line in lines} == set(finished)
    cli("events", "replay", "-o", "sqlite", "--out", "log.db")
    db = sqlite3.connect(tmp_path / "log.db")
    assert db.execute("SELECT count(*), count(DISTINCT task_id) FROM events").fetchone() == (44, 11)
    db.close()
    cli("events", "replay", "-o", "parquet", "--out", "log.parquet")
    found = pyarrow.parquet.read_table(tmp_path / "log.parquet").to_pylist()
    assert {(r["task_id"], r["name"], r["offset"]) for r in found} == {
        (line["task_id"], line["name"], line["offset"]) for line in lines
    }
    cli("events", "replay", "--out", "log.jsonl", "--status", "FAILED")
    (only,) = (tmp_path / "log.jsonl").read_text().splitlines()
    assert json.loads(only)["task_id"] == finished[-1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log.db", "log.jsonl", "log.parquet"]


def test_replay_goes_on_where_it_ended(cli: Cli, finished: list[str], kan: Kantoku, tmp_path: Path) -> None:
    assert len(rows(cli("events", "replay", "--since-offsets", "at"))) == 44
    assert rows(cli("events", "replay", "--since-offsets", "at")) == []
    kan.wait(kan.spawn(Task("echo", b"x")).id, timeout_seconds=30)
    assert len(rows(cli("events", "replay", "--since-offsets", "at"))) == 4
    (tmp_path / "at").write_text("junk")
    assert "not a file of a former replay" in cli("events", "replay", "--since-offsets", "at", code=2).stderr
    (tmp_path / "at").write_text('{"topic": "another.events", "offsets": {"0": 1}}')
    assert "of topic another.events" in cli("events", "replay", "--since-offsets", "at", code=2).stderr


def test_replay_into_another_topic(cli: Cli, finished: list[str], kan: Kantoku, bootstrap: str) -> None:
    copy = f"{kan.namespace}.copy"
    assert "missing" in cli("events", "replay", "--into", copy, code=7).stderr
    admin = AdminClient(super_user(bootstrap))
    admin.create_topics([NewTopic(copy, 2, 1)])[copy].result(10)
    cli("events", "replay", "--into", copy)
    originals = read_all(bootstrap, kan.topics.events)
    assert {(m.key(), m.value()) for m in read_all(bootstrap, copy)} == {(m.key(), m.value()) for m in originals}
    assert "the topic that is read" in cli("events", "replay", "--into", kan.topics.events, code=2).stderr


def test_snapshot(cli: Cli, finished: list[str], kan: Kantoku, tmp_path: Path) -> None:
    now = datetime.now(UTC).isoformat()
    time.sleep(0.01)
    kan.wait(kan.spawn(Task("echo", b"x")).id, timeout_seconds=30)
    assert len(rows(cli("events", "snapshot"))) == 12
    then = rows(cli("events", "snapshot", "--as-of", now))
    assert {state["task_id"]: state["status"] for state in then} == {
        **dict.fromkeys(finished, "OK"),
        finished[-1]: "FAILED",
    }
    cli("events", "snapshot", "--out", "tasks.jsonl", "-l", "shop=a")
    assert len((tmp_path / "tasks.jsonl").read_text().splitlines()) == 10
    assert "future" in cli("events", "snapshot", "--as-of", "2999-01-01", code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["replay", "-o", "sqlite"], 2, "--out FILE"),
        (["replay", "-o", "xml"], 2, "jsonl"),
        (["replay", "--since", "yesterday"], 2, "how long ago"),
        (["replay", "--since", "99999999d"], 2, "beyond all time"),
        (["replay", "-l", "nonsense"], 2, "NAME=VALUE"),
        (["replay", "--out", "no/such/place"], 1, "cannot be written"),
        (["snapshot", "--out", "no/such/place"], 1, "cannot be written"),
        (["replay", "-n", "nowhere"], 7, "missing"),
        (["prune", "--older-than", "always"], 2, "how long ago"),
        (["prune", "--older-than", "1000000d"], 2, "beyond all time"),
        (["replay", "--out", "."], 2, "no regular file"),
        (["replay", "--out", ""], 2, "no regular file"),
        (["snapshot", "--out", "/dev/full"], 2, "no regular file"),
        (["tail", "-o", "table"], 2, "lines, jsonl"),
    ],
)
def test_bad_input(cli: Cli, arguments: list[str], code: int, words: str) -> None:
    done = cli("events", *arguments, code=code)
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_full_disk_leaves_nothing_under_the_name(cli: Cli, finished: list[str], tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4k", "none", str(small)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    try:
        for form in ("jsonl", "sqlite", "parquet"):
            assert (
                "cannot be written" in cli("events", "replay", "-o", form, "--out", f"small/log.{form}", code=1).stderr
            )
            assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)


def test_an_interrupted_export_leaves_nothing(environment: dict[str, str], kan: Kantoku, tmp_path: Path) -> None:
    kan.spawn_many([Task("echo", b"x")] * 20_000)
    command = [sys.executable, "-m", "kantoku_kafka", "events", "replay", "-o", "sqlite", "--out", "log.db"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment)
    until(lambda: [p for p in tmp_path.iterdir() if "partial" in p.name] or process.poll() is not None, 20, "its begin")
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == []


def test_tasks_list_and_show(cli: Cli, finished: list[str], tmp_path: Path) -> None:
    listed = cli("tasks", "list").stdout
    assert all(task_id in listed for task_id in finished)
    for more in ([], ["--live"]):
        (failed,) = rows(cli("tasks", "list", "--status", "FAILED", "-o", "jsonl", *more))
        assert (failed["task_id"], failed["phase"]) == (finished[-1], "finished")
    assert len(rows(cli("tasks", "list", "-l", "shop=a", "--limit", "3", "-o", "jsonl"))) == 3
    assert rows(cli("tasks", "list", "--text", finished[0][-12:], "-o", "jsonl"))[0]["task_id"] == finished[0]
    shown = cli("tasks", "show", finished[0]).stdout
    for expected in (finished[0], "state     OK", "shop=a", "received_task", "sent_outputs", "result    1 bytes"):
        assert expected in shown
    assert "Traceback" in cli("tasks", "show", finished[-1]).stdout, "of the task's own error"
    (as_json,) = json.loads(cli("tasks", "show", finished[0], "-o", "json").stdout)
    assert [step["name"] for step in as_json["history"]] == [
        "spawned",
        "received_task",
        "executed_task",
        "sent_outputs",
    ]
    assert as_json["result"] == {"text": "x", "hex": ""}
    assert "Nothing is logged" in cli("tasks", "show", "nobody", code=5).stderr
    assert "text, json" in cli("tasks", "show", finished[0], "-o", "yaml", code=2).stderr
    assert "no task of namespace" in cli("tasks", "list", "--type", "nosuch").stderr
    assert "'failed'" in cli("tasks", "list", "--status", "FAILD", code=2).stderr
    assert len(rows(cli("tasks", "list", "--status", "failed", "-o", "jsonl"))) == 1


def test_tasks_that_have_no_event_yet(cli: Cli, kan: Kantoku, bootstrap: str, finished: list[str]) -> None:
    silent = Kantoku(kan.namespace, **as_user(bootstrap), events="off")
    waiting = silent.spawn(Task("side", b"x").with_(labels(shop="b")))
    silent.close()
    assert len(rows(cli("tasks", "list", "-o", "jsonl"))) == 11
    (found,) = rows(cli("tasks", "list", "--inputs", "--phase", "waiting", "-o", "jsonl"))
    assert (found["task_id"], found["labels"], found["source"]["topic"]) == (waiting.id, {"shop": "b"}, waiting.topic)
    assert len(rows(cli("tasks", "list", "--inputs", "-o", "jsonl"))) == 12
    assert "state     waiting" in cli("tasks", "show", waiting.id).stdout


def test_a_broken_view_is_made_anew(cli: Cli, finished: list[str], tmp_path: Path) -> None:
    cli("tasks", "list")
    (view,) = (tmp_path / "cache" / "kantoku-kafka" / "views").glob("*.sqlite")
    whole = view.read_bytes()
    junk = b"broken" * 5000
    for damage in (b"", whole[:72] + junk, whole[: len(whole) // 2], whole[:4096] + b"\xff" * (len(whole) - 4096)):
        view.write_bytes(damage)
        for beside in view.parent.glob("*-*"):
            beside.unlink()
        assert len(rows(cli("tasks", "list", "-o", "jsonl"))) == 11
    view.write_bytes(junk)
    assert "is no view of tasks" in cli("tasks", "list", code=2).stderr
    assert view.read_bytes() == junk


def test_what_is_missing_is_said(cli: Cli, finished: list[str], kan: Kantoku, bootstrap: str) -> None:
    assert cli("--log-level", "error", "tasks", "list").stderr == ""
    (first, *_) = read_all(bootstrap, kan.topics.events)
    newer = bytearray(first.value() or b"")
    newer[3] ^= 255
    producer = Producer(super_user(bootstrap))
    producer.produce(kan.topics.events, bytes(newer), b"x/1/y")
    assert producer.flush(60) == 0
    alter_topic(bootstrap, kan.topics.events, cleanup_policy="compact,delete", retention_ms="3600000")
    for command in (["tasks", "list"], ["tasks", "list"], ["events", "replay"], ["events", "snapshot"]):
        gap, unreadable = cli("--log-level", "error", *command).stderr.splitlines()
        assert "events older than 1 h are missing" in gap
        assert "records left out: 1;" in unreadable
        assert "Upgrade" in unreadable


def test_restart(cli: Cli, finished: list[str], kan: Kantoku, bootstrap: str) -> None:
    (planned,) = rows(cli("tasks", "restart", "--status", "FAILED", "--dry-run", "-o", "jsonl"))
    assert (planned["restarted"], planned["id"]) == (finished[-1], None)
    (done,) = rows(cli("tasks", "restart", "--status", "FAILED", "-o", "jsonl"))
    kan.wait(done["id"], timeout_seconds=30)
    repeated = cli("tasks", "restart", finished[-1], "-o", "jsonl")
    assert (rows(repeated), "nothing to restart: 1" in repeated.stderr) == ([], True), "it was restarted already"
    assert f"restarts  {finished[-1]}" in cli("tasks", "show", done["id"]).stdout
    assert f"restarted as {done['id']}" in cli("tasks", "show", finished[-1]).stdout
    (labelled,) = rows(cli("tasks", "restart", finished[0], "-o", "jsonl"))
    inputs = [kan.codec.decode_task(m.value() or b"") for m in read_all(bootstrap, kan.topics.of_type("echo"))]
    (again,) = [task for task in inputs if task.id == labelled["id"]]
    assert (again.restarted_from, again.labels, again.data) == (finished[0], {"shop": "a"}, b"x")
    assert "Say which" in cli("tasks", "restart", code=2).stderr
    assert "Nothing is logged" in cli("tasks", "restart", "nobody", code=5).stderr
    Account.of(bootstrap, kan.namespace).check({*finished, done["id"], labelled["id"]})


def test_of_tasks_that_are_named_those_are_restarted_that_match(cli: Cli, finished: list[str]) -> None:
    named = ["tasks", "restart", *finished, finished[-1], "--dry-run", "-o", "jsonl"]
    assert len(rows(cli(*named))) == 11
    for chosen in (["--status", "FAILED"], ["--type", "outcome"], ["--text", "ValueError"]):
        assert [row["restarted"] for row in rows(cli(*named, *chosen))] == [finished[-1]]
    assert len(rows(cli(*named, "-l", "shop=a"))) == 10
    assert rows(cli(*named, "--until", "1h")) == []


def test_restarts_that_are_interrupted_and_repeated(
    cli: Cli, kan: Kantoku, bootstrap: str, running: Running, environment: dict[str, str], tmp_path: Path
) -> None:
    """Each task once, however often the command is killed."""
    with running():
        tasks = kan.spawn_many([Task("outcome", b"raise:no")] * 1000 + [Task("echo", b"x")] * 50)
        kan.gather(tasks, timeout_seconds=60)
    chosen = ["--status", "FAILED", "--type", "outcome", "--since", "1h", "-o", "jsonl"]
    assert len(rows(cli("tasks", "restart", *chosen, "--dry-run"))) == 1000
    command = [sys.executable, "-m", "kantoku_kafka", "tasks", "restart", *chosen]
    inputs = kan.topics.of_type("outcome")
    for number in (signal.SIGKILL, signal.SIGINT, signal.SIGKILL):
        before = len(read_all(bootstrap, inputs, wait_for_open=False))
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(
            lambda: len(read_all(bootstrap, inputs, wait_for_open=False)) > before or process.poll() is not None,  # noqa: B023
            60,
            "a chunk of restarts",
        )
        process.send_signal(number)
        process.wait(30)
    cli("tasks", "restart", *chosen)
    origins = Counter(kan.codec.decode_task(m.value() or b"").restarted_from for m in read_all(bootstrap, inputs))
    assert origins == {None: 1000, **{task.id: 1 for task in tasks[:1000]}}


def test_prune(cli: Cli, finished: list[str], kan: Kantoku, bootstrap: str) -> None:
    unfinished = kan.spawn(Task("nap", b"0").with_(delay(seconds=3600)))
    assert "tasks that would be pruned: 0" in cli("events", "prune", "--older-than", "1h", "--dry-run").stderr
    assert "tasks pruned: 4" in cli("events", "prune", "--older-than", "0s", "--limit", "4").stderr
    assert len(rows(cli("events", "snapshot"))) == 8
    assert "tasks pruned: 7" in cli("events", "prune", "--older-than", "0s").stderr
    assert [state["task_id"] for state in rows(cli("events", "snapshot"))] == [unfinished.id]
    last = {m.key(): m.value() for m in read_all(bootstrap, kan.topics.events)}
    kept = {kan.codec.decode_event(value).task_id for value in last.values() if value is not None}
    assert kept == {unfinished.id}


def test_what_began_again_is_not_pruned(cli: Cli, kan: Kantoku, running: Running) -> None:
    """An idempotency key that is spawned once more after its end."""
    with running():
        task = kan.spawn(Task("nap", b"0").with_(idempotency_key("k")))
        kan.wait(task.id, timeout_seconds=30)
        assert kan.spawn(Task("nap", b"10").with_(idempotency_key("k"))).id == task.id
        assert "tasks pruned: 0" in cli("events", "prune", "--older-than", "0s").stderr


def test_a_topic_that_was_created_anew(cli: Cli, kan: Kantoku, bootstrap: str, running: Running) -> None:
    """Nothing is taken for what stood at its offset before."""
    with running():
        kan.wait(kan.spawn(Task("outcome", b"raise:no").with_(key("k"))).id, timeout_seconds=30)
    assert len(rows(cli("events", "replay", "--since-offsets", "at"))) == 4
    for topic in (kan.topics.of_type("outcome"), kan.topics.events):
        delete_topic(bootstrap, topic)
        if topic != kan.topics.events:
            topics.create(kan.clients, topics.plan(kan.topics, ["outcome"]))
            kan.spawn(Task("outcome", b"another").with_(key("k")))
            done = cli("tasks", "restart", "--status", "FAILED", code=5)
            assert "no longer stand on their input topics" in done.stderr
            assert len(read_all(bootstrap, topic)) == 1
    topics.create(kan.clients, topics.plan(kan.topics, ["outcome"]))
    assert "take another file" in cli("events", "replay", "--since-offsets", "at", code=2).stderr


def test_offsets_of_some_partitions_do_not_make_the_others_forgotten(cli: Cli, finished: list[str]) -> None:
    assert len(rows(cli("events", "replay", "--since-offsets", "at"))) == 44
    assert rows(cli("events", "replay", "--since-offsets", "at", "--task", finished[0])) == []
    assert rows(cli("events", "replay", "--since-offsets", "at")) == []


def test_out_follows_a_link_and_leaves_it(cli: Cli, finished: list[str], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    cli("events", "replay", "--out", "link")
    assert (tmp_path / "link").is_symlink()
    assert len((tmp_path / "target").read_text().splitlines()) == 44


def test_processes_that_share_a_view(cli: Cli, kan: Kantoku, bootstrap: str) -> None:
    producer = Producer(super_user(bootstrap))
    for number in range(4000):
        producer.produce(kan.topics.events, b"unreadable", str(number), partition=number % 4)
    assert producer.flush(60) == 0
    with ThreadPoolExecutor(4) as pool:
        shown = list(pool.map(lambda _: cli("--log-level", "error", "tasks", "list").stderr, range(4)))
    assert all("records left out: 4000;" in one for one in shown), shown


def test_a_view_that_missed_tombstones_is_made_anew(
    kan: Kantoku, finished: list[str], bootstrap: str, tmp_path: Path
) -> None:
    with kan.events.view(tmp_path / "view") as store, store.writing():
        assert store.count(TaskQuery()) == 11
        store.remove([(finished[0], 1, name) for name in ("spawned", "received_task")], {})
        assert store.get(finished[0]) != (known := store.get(finished[1]))
        assert known is not None
    alter_topic(bootstrap, kan.topics.events, delete_retention_ms="1")
    with kan.events.view(tmp_path / "view") as store:
        state = store.get(finished[0])
    assert state is not None
    assert [logged.event.name for logged in state.history] == [logged.event.name for logged in known.history]


def test_lag_where_the_oldest_records_are_gone_and_nothing_was_committed(
    cli: Cli, kan: Kantoku, bootstrap: str
) -> None:
    tasks = kan.spawn_many([Task("echo", b"x").with_(key("k"))] * 20)
    place = TopicPartition(tasks[0].topic, tasks[0].partition, 15)
    admin = AdminClient(super_user(bootstrap))
    admin.delete_records([place])[place].result(10)
    lag = rows(cli("lag", "--sample", "0", "-o", "jsonl"))
    assert [(row["committed"], row["not_done"]) for row in lag if row["not_done"]] == [(15, 5)]


def test_a_spawn_that_was_refused_leaves_no_trace(cli: Cli, kan: Kantoku) -> None:
    with pytest.raises(TaskTooLarge):
        kan.spawn(Task("echo", bytes(3_000_000)))
    with pytest.raises(TopicMismatch):
        kan.spawn(Task("nobody_serves_this"))
    accepted = kan.spawn(Task("echo", b"x"))
    kan.close()
    assert [row["task_id"] for row in rows(cli("tasks", "list", "-o", "jsonl"))] == [accepted.id]


def test_lag_counts_no_markers_of_transactions_where_all_is_done(cli: Cli, kan: Kantoku, running: Running) -> None:
    with running():
        with kan.transaction():
            task = kan.spawn(Task("echo", b"x"))
        kan.wait(task.id, timeout_seconds=30)
    assert [row["not_done"] for row in rows(cli("lag", "--sample", "0", "-o", "jsonl")) if row["not_done"]] == []


def test_lag_counts_what_stands_behind_an_open_transaction(cli: Cli, kan: Kantoku, bootstrap: str) -> None:
    topic, producer = kan.topics.of_type("echo"), Producer({**super_user(bootstrap), "transactional.id": "open"})
    producer.init_transactions(10)
    producer.begin_transaction()
    producer.produce(topic, b"undecided", partition=0)
    assert producer.flush(10) == 0
    other = Producer(super_user(bootstrap))
    for _ in range(5):
        other.produce(topic, b"waits", partition=0)
    assert other.flush(10) == 0
    (row,) = [row for row in rows(cli("lag", "--sample", "0", "-o", "jsonl")) if row["not_done"]]
    assert (row["not_done"], row["oldest_seconds"]) == (6, None)
    producer.abort_transaction(10)


def test_top_names_what_nobody_serves(cli: Cli, kan: Kantoku, running: Running) -> None:
    with running(task_types=["echo"]):
        until(lambda: len(rows(cli("executors", "--sample", "0", "-o", "jsonl"))) == 1, 20, "the executor")
        shown = cli("top", "--times", "1", "--interval", "0.2").stdout
    (echo,) = [line for line in shown.splitlines() if line.startswith("echo ")]
    (nap,) = [line for line in shown.splitlines() if line.startswith("nap ")]
    assert ("nobody" in echo, "nobody" in nap) == (False, True)


def test_nothing_steers_the_terminal(cli: Cli, environment: dict[str, str], kan: Kantoku, tmp_path: Path) -> None:
    kan.spawn(Task("echo", b"x").with_(labels(evil="\x9b31m\u202e")))
    assert "\x9b31m\u202e" in cli("events", "replay").stdout
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "kantoku_kafka", "events", "replay"]
    done = subprocess.run(command, env=environment, stdout=theirs, timeout=30, check=False)
    os.close(theirs)
    text = os.read(ours, 65536).decode()
    os.close(ours)
    assert done.returncode == 0
    assert json.loads(text)["attributes"] == {"label.evil": "\x9b31m\u202e"}
    assert text.strip().isprintable()


def test_tail(environment: dict[str, str], kan: Kantoku, running: Running, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kantoku_kafka", "events", "tail", "-o", "jsonl", "-l", "shop=a"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(process.stdout or ()))
    reader.start()
    with running():
        while not lines:  # until it listens
            wanted = kan.spawn(Task("echo", b"x").with_(labels(shop="a")))
            kan.spawn(Task("echo", b"y"))
            kan.wait(wanted.id, timeout_seconds=30)
            time.sleep(0.2)
        until(lambda: '"sent_outputs"' in lines[-1], 20, "the end of the last task")
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    reader.join()
    process.stdout.close()
    events = [json.loads(line) for line in lines]
    assert {e["task_id"] for e in events if e["name"] == "spawned"} == {e["task_id"] for e in events}
    assert all(e["attributes"] == {"label.shop": "a"} for e in events if e["name"] == "spawned")


def test_executors_lag_and_top(cli: Cli, kan: Kantoku, running: Running) -> None:
    assert "no executor runs" in cli("executors", "--sample", "0").stderr
    assert "No executor" in cli("executors", "--here", code=5).stderr
    kan.spawn_many([Task("nap", b"12")] * 3 + [Task("echo", b"x")] * 100)
    before = rows(cli("lag", "--sample", "0", "-o", "jsonl"))
    assert sum(row["not_done"] for row in before if row["type"] == "echo") == 100
    assert all(row["oldest_seconds"] is not None for row in before if row["not_done"])
    with running():

        def naps() -> bool:
            return [r["in_flight"] for r in rows(cli("executors", "--sample", "0", "-o", "jsonl"))] == [3]

        until(naps, 40, "3 naps")
        (member,) = rows(cli("executors", "--sample", "0.2", "-o", "jsonl"))
        assert {"nap", "echo"} <= set(member["types"].split(","))
        assert (member["state"], member["settings"]["guarantee"]) == ("running", "exactly-once")
        shown = cli("top", "--times", "1", "--interval", "0.2").stdout
        assert "1 executors" in shown
        assert "nap" in shown
        assert [row["slot"] for row in rows(cli("executors", "--here", "-o", "jsonl"))] == [member["slot"]]
        assert member["slot"].startswith(f"{host()}.")
    with running(ExecutorSettings(slot=host())):  # as with --slot=$(hostname) in a container
        until(lambda: [row["slot"] for row in rows(cli("executors", "-o", "jsonl"))] == [host()], 60, "the next one")
        assert [row["slot"] for row in rows(cli("executors", "--here", "-o", "jsonl"))] == [host()]
