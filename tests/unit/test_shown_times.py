"""Times that others have written, as commands show them: also those that are beyond what ``datetime`` knows."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from kantoku_kafka.cli import schedules, tasks, views
from kantoku_kafka.cli.page import page, when
from kantoku_kafka.model import Event, Result, Schedule, ScheduleState, Source, Status
from kantoku_kafka.replay.fold import Fold, LoggedEvent, TaskState
from kantoku_kafka.schedules import Planned

BEYOND = [1_770_000_000_000_000_000, 2**63 - 1, -(2**63)]  # the first one: nanoseconds


def a_result(at_us: int) -> Result:
    return Result("a", "t", Status.OK, b"", None, 1, "host", None, at_us, Source("t", 0, 0))


@pytest.mark.parametrize("at_us", BEYOND)
def test_no_time_ends_a_command(at_us: int) -> None:
    state = Fold().state([LoggedEvent(Event("a", "t", "spawned", 1, at_us), 0, 0)])
    assert str(at_us) in views._short(state)["spawned"]
    assert any(str(at_us) in line for line in page(state, None, [], []))
    planned = Planned(Schedule("s", 1, "t", b"", every_us=10**6), ScheduleState(at_us, None, 0, 0))
    assert str(at_us) in schedules._row(planned, "t")["last"]
    assert tasks._row(a_result(at_us))["finished_at"].endswith("+00:00")


@pytest.mark.parametrize("at_us", BEYOND)
def test_a_time_that_datetime_does_not_know_is_the_nearest_that_it_knows(at_us: int) -> None:
    nearest = (datetime.max if at_us > 0 else datetime.min).replace(tzinfo=UTC)
    assert a_result(at_us).finished_at == Event("a", "t", "spawned", 1, at_us).at == nearest


def test_a_time_as_people_read_it() -> None:
    at = datetime(2001, 2, 3, 4, 5, 6, 700_000)
    at_us = round(at.timestamp() * 1_000_000)
    assert when(at_us) == "02-03 04:05"
    (line,) = [line for line in page(_spawned(at_us), None, [], []) if "spawned" in line]
    assert line.startswith("2001-02-03 04:05:06.700  ")
    assert schedules._text(981_173_106_000_000) == "2001-02-03 04:05:06+00:00"
    assert tasks._row(a_result(981_173_106_700_000))["finished_at"] == "2001-02-03T04:05:06.700000+00:00"


def _spawned(at_us: int) -> TaskState:
    return Fold().state([LoggedEvent(Event("a", "t", "spawned", 1, at_us), 0, 0)])
