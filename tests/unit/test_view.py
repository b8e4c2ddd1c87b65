"""The view of all tasks in a file: brought up to date, made anew if it must be, and never in place of another file."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest
from fake_kafka import FakeKafka, app_on, made_for

from kantoku_kafka import Kantoku
from kantoku_kafka.errors import KantokuError, UsageError
from kantoku_kafka.kafka.outputs import EventWriter
from kantoku_kafka.model import Event
from kantoku_kafka.replay import log
from kantoku_kafka.replay.query import TaskQuery


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> FakeKafka:
    """Three events of three tasks."""
    made = made_for(monkeypatch, shop_events=1)
    monkeypatch.setattr(log, "topic_identity", lambda *_: "shop.events/id")
    monkeypatch.setattr(log, "tombstones_kept_ms", lambda *_: 86_400_000)
    return made


@pytest.fixture
def kan(kafka: FakeKafka) -> Kantoku:
    made = app_on(kafka)
    writer = EventWriter.connect(made.clients, made.topics.events, made.codec)
    for number in range(3):
        kafka.put(writer.message(Event(f"task-{number}", "t", "spawned", 1, 1)))
    return made


def viewed(kan: Kantoku, path: Path) -> Sequence[str]:
    with kan.events.view(path) as store:
        return [state.task_id for state in store.find(TaskQuery())]


def a_database(path: Path, statement: str = "CREATE TABLE tasks (id, what)") -> None:
    db = sqlite3.connect(path)
    db.execute(statement)
    db.commit()
    db.close()


@pytest.mark.parametrize("content", ["notes", "short", "zeros", "database", "other"])
def test_a_file_that_is_no_view_is_left_as_it_is(kan: Kantoku, tmp_path: Path, content: str) -> None:
    path = tmp_path / "file"
    if content == "database":
        a_database(path)
    elif content == "other":
        a_database(path, "PRAGMA application_id = 7")
    else:
        path.write_bytes({"notes": b"my notes\n" * 1000, "short": b"x", "zeros": b"\0" * 8192}[content])
    before = path.read_bytes()
    with pytest.raises(UsageError, match="is no view"):
        viewed(kan, path)
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (before, [path])


def test_what_is_no_file_is_refused(kan: Kantoku, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(UsageError, match="is no view"):
            viewed(kan, path)


def test_an_empty_file_becomes_a_view(kan: Kantoku, tmp_path: Path) -> None:
    (tmp_path / "view").touch()
    assert len(viewed(kan, tmp_path / "view")) == len(viewed(kan, tmp_path / "view")) == 3


@pytest.mark.parametrize("kept", [100, 4096, 6000])
@pytest.mark.parametrize("junk", [b"", b"\xff" * 20_000])
def test_a_damaged_view_is_made_anew(kan: Kantoku, tmp_path: Path, kept: int, junk: bytes) -> None:
    path = tmp_path / "view"
    viewed(kan, path)
    path.write_bytes(path.read_bytes()[:kept] + junk)
    try:
        shown = viewed(kan, path)
    except KantokuError:  # it was found in use
        shown = viewed(kan, path)
    assert len(shown) == 3


def test_a_view_is_known_as_one_as_soon_as_there_is_anything_in_its_file(kan: Kantoku, tmp_path: Path) -> None:
    """Also while what was written since stands in the log beside it: a process may be killed at any moment."""
    path = tmp_path / "view"
    with kan.events.view(path):
        copy = tmp_path / "copy"
        copy.write_bytes(path.read_bytes())
    assert len(viewed(kan, copy)) == 3


def test_a_topic_that_is_shorter_than_it_was_is_viewed_anew(kan: Kantoku, kafka: FakeKafka, tmp_path: Path) -> None:
    assert len(viewed(kan, tmp_path / "view")) == 3
    del kafka.logs[kan.topics.events, 0][1:]
    for _ in range(2):
        assert viewed(kan, tmp_path / "view") == ["task-0"]
