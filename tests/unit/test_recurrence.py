"""When schedules are due."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kantoku_kafka.engine.recurrence import Recurrence
from kantoku_kafka.errors import UsageError
from kantoku_kafka.model import Schedule

BERLIN = ZoneInfo("Europe/Berlin")


def us(time: datetime) -> int:
    return round(time.timestamp() * 1_000_000)


def schedule(**fields: object) -> Schedule:
    return Schedule("s", us(datetime(2026, 1, 1, tzinfo=UTC)), "t", b"")._replace(**fields)


def times(begin: datetime, count: int, **fields: object) -> list[str]:
    recurrence, found, at = Recurrence(schedule(**fields)), [], us(begin)
    for _ in range(count):
        following = recurrence.next_after(at)
        assert following is not None and following > at
        at = following
        found.append(datetime.fromtimestamp(at / 1e6, BERLIN).isoformat(" ", "seconds"))
    return found


def test_an_hour_that_is_skipped_runs_right_after_it() -> None:
    begin = datetime(2026, 3, 28, tzinfo=BERLIN)
    assert times(begin, 3, cron="30 2 * * *", time_zone="Europe/Berlin") == [
        "2026-03-28 02:30:00+01:00",
        "2026-03-29 03:00:00+02:00",
        "2026-03-30 02:30:00+02:00",
    ]


def test_an_hour_that_comes_twice_runs_the_first_time() -> None:
    begin = datetime(2026, 10, 24, 12, tzinfo=BERLIN)
    assert times(begin, 2, cron="30 2 * * *", time_zone="Europe/Berlin") == [
        "2026-10-25 02:30:00+02:00",
        "2026-10-26 02:30:00+01:00",
    ]
    second = datetime(2026, 10, 25, 2, 15, tzinfo=BERLIN).replace(fold=1)  # between the two
    assert times(second, 1, cron="30 2 * * *", time_zone="Europe/Berlin") == ["2026-10-26 02:30:00+01:00"]


def test_what_runs_all_day_goes_by_the_time_that_passes() -> None:
    begin = datetime(2026, 10, 25, 1, 30, tzinfo=BERLIN)
    assert times(begin, 4, cron="*/30 * * * *", time_zone="Europe/Berlin") == [
        "2026-10-25 02:00:00+02:00",
        "2026-10-25 02:30:00+02:00",
        "2026-10-25 02:00:00+01:00",
        "2026-10-25 02:30:00+01:00",
    ]


def test_an_interval_counts_from_its_start_and_ends_before_its_end() -> None:
    start = datetime(2026, 6, 1, 12, 0, 1, tzinfo=UTC)
    recurrence = Recurrence(
        schedule(every_us=10_000_000, start_at_us=us(start), end_at_us=us(start + timedelta(seconds=20)))
    )
    assert recurrence.next_after(0) == us(start)
    assert recurrence.next_after(us(start)) == us(start + timedelta(seconds=10))
    assert recurrence.next_after(us(start + timedelta(seconds=10))) is None
    assert recurrence.last_until(us(start + timedelta(days=1)), 0) == us(start + timedelta(seconds=10))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"cron": "0 0 30 2 *"}, "day-of-month"),
        ({"cron": "* * */20 * 1L"}, "never comes"),
        ({"cron": "61 * * * *"}, "bad minute"),
        ({"cron": "* * * *"}, "Five fields"),
        ({"cron": ""}, "Five fields"),
        ({"cron": "0 0 * * *", "time_zone": "Europe/Nowhere"}, "no time zone"),
        ({"cron": "0 0 * * *", "time_zone": "../etc/passwd"}, "no time zone"),
        ({"cron": "0 0 * * *", "time_zone": ""}, "no time zone"),
        ({"cron": "0 0 * * *", "end_at_us": 1}, "never comes"),
        ({"every_us": 999_999}, "one second"),
        ({"cron": "0 0 * * *", "start_at_us": 1_800_000_000_000_000_000}, "no time that is"),
        ({"cron": "0 0 * * *", "changed_at_us": -(2**62)}, "no time that is"),
        ({}, "either"),
        ({"every_us": 2_000_000, "cron": "* * * * *"}, "either"),
        ({"every_us": 2_000_000, "start_at_us": 10**18, "end_at_us": 10**18}, "never comes"),
    ],
)
def test_what_cannot_be_is_said(fields: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Recurrence(schedule(**fields))


def numbers(most: int) -> st.SearchStrategy[str]:
    one = st.integers(0, most).map(str)
    return st.one_of(st.just("*"), one, st.lists(one, min_size=1, max_size=3).map(",".join), st.just("*/7"))


@given(
    st.tuples(numbers(59), numbers(23), st.just("*"), st.just("*"), numbers(6)).map(" ".join),
    st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata", "America/New_York"]),
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)),
)
def test_back_and_forth(cron: str, zone: str, moment: datetime) -> None:
    """The last time until a time is that time, and none lies between it and the one before."""
    recurrence, at_us = Recurrence(schedule(cron=cron, time_zone=zone)), us(moment.replace(tzinfo=UTC))
    following = recurrence.next_after(at_us)
    assert following is not None and following > at_us
    assert recurrence.last_until(following, at_us) == following
    assert recurrence.last_until(following - 1, at_us) is None
    assert recurrence.next_after(following - 1) == following


@given(st.integers(0, 2**40), st.integers(1, 10**9))
def test_jitter_is_below_its_bound_and_the_same_for_all(due_us: int, jitter_us: int) -> None:
    first, second = (Recurrence(schedule(every_us=10**6, jitter_us=jitter_us)) for _ in range(2))
    assert due_us <= first.fire_at(due_us) < due_us + jitter_us
    assert first.fire_at(due_us) == second.fire_at(due_us)
