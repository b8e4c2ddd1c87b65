"""The verdict over a long run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.soak.__main__ import Sample, judge

FLAT = [Sample(5.0 * n, n % 2, 60_000 + 100 * (n % 7), 40 + n % 4, 50, 20) for n in range(200)]


def test_flat_is_flat_whatever_happened_while_it_warmed_up() -> None:
    assert judge(FLAT, 100) == []
    assert judge([replace(s, rss_kb=30_000 + 300 * n) if n < 80 else s for n, s in enumerate(FLAT)], 100) == []


@pytest.mark.parametrize(("name", "each"), [("rss_kb", 100), ("threads", 1), ("descriptors", 1)])
def test_what_grows_is_named(name: str, each: int) -> None:
    growing = [replace(s, **{name: getattr(s, name) + each * n}) for n, s in enumerate(FLAT)]
    problems = judge(growing, 100)
    assert len(problems) == 2 and all(name.split("_")[0] in problem.lower() for problem in problems)


def test_a_lag_that_stays_is_a_problem() -> None:
    assert judge([replace(s, lag=501) for s in FLAT], 100) == ["the lag is 501 records"]
