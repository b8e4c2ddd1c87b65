"""The engine in simulated worlds: many schedules keep the promises, defects are found, and what failed once is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.simulation.campaign import Campaign
from tests.simulation.choices import Choices, shrink
from tests.simulation.schedule import simulate

CORPUS = sorted((Path(__file__).parents[1] / "simulation" / "corpus").glob("*.json"))
SCHEDULES, MOST_SCHEDULES = 300, 2_000
MUTANTS = [
    "commit-ahead",
    "dead-letter-dropped",
    "deduplication-off",
    "done-set-dropped",
    "done-set-shifted",
    "epochs-confused",
    "memory-lost",
    "past-forgotten",
    "refusal-swallowed",
    "retry-forgotten",
    "retry-without-tombstone",
    "revoke-without-drain",
    "timers-half-read",
]


def test_the_promises_hold_in_every_schedule() -> None:
    with Campaign(2) as campaign:
        found = list(campaign.failing(range(SCHEDULES)))
    assert [seed for _, failed in found for seed in failed] == []
    assert sum(count for count, _ in found) == SCHEDULES


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_what_failed_once_does_not_fail_again(path: Path) -> None:
    assert simulate(Choices(given=json.loads(path.read_text())["choices"])).problems == []


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_defect_is_found(mutant: str) -> None:
    with Campaign(1, mutant) as campaign:
        assert any(failed for _, failed in campaign.failing(range(MOST_SCHEDULES)))


def test_the_same_choices_make_the_same_schedule() -> None:
    first, second = simulate(Choices(7)), simulate(Choices(7))
    assert first == second
    assert simulate(Choices(given=first.choices)) == first
    assert simulate(Choices(8)).choices != first.choices


def test_what_fails_is_made_smaller_as_long_as_it_fails() -> None:
    def fails(decisions: object) -> bool:
        return isinstance(decisions, list) and 7 in decisions and 9 in decisions

    assert shrink([3, 7, 5, 5, 9, 1, 2], fails) in ([7, 9], [7, 0, 9], [0, 7, 9])
