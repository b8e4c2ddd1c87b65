"""The short form of the runs that break Kafka and executors on purpose, and of the mutants that they have to catch.

Without ``KANTOKU_CHAOS=all`` (``make chaos-short``) these are not all of the mutants. The long forms: ``make
chaos-all``, ``make mutants``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition

from kantoku_kafka import Kantoku
from tests.chaos.mutants import MUTANTS
from tests.chaos.offsets import commits, went_back
from tests.chaos.runs import RUNS

ROOT = Path(__file__).parents[2]
SCALE, MUTANT_SCALE, SEED = "0.02", "0.05", "1"
SEEDS = "3"  # of a mutant: whether a fault comes at the one moment that shows it is up to the machine too
TIMEOUT_SECONDS = 400
# The others are caught by simulated schedules.
NEED_A_BROKER = {
    "automatic-commits",
    "epoch-check-removed",
    "events-dropped",
    "events-outside",
    "isolation-off",
    "late-requests-trusted",
    "offsets-outside",
    "outcome-guessed",
    "partitions-seen-late",
    "result-before-fence",
    "twin-unnoticed",
}
QUICKLY_CAUGHT = {"automatic-commits", "offsets-outside", "partitions-seen-late"}
HUNTED = sorted(NEED_A_BROKER if os.environ.get("KANTOKU_CHAOS") == "all" else QUICKLY_CAUGHT)


def _run(folder: Path, scale: str, *arguments: str) -> None:
    command = [sys.executable, "-m", "tests.chaos", *arguments, "--seed", SEED, "--scale", scale, "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=TIMEOUT_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr[-3_000:]


@pytest.mark.timeout(TIMEOUT_SECONDS)
@pytest.mark.parametrize("name", RUNS)
def test_a_run_keeps_all_promises(name: str, tmp_path: Path) -> None:
    if RUNS[name].small_disk and os.geteuid() != 0:
        pytest.skip("needs root, to mount a small disk")
    _run(tmp_path, SCALE, name)


@pytest.mark.timeout(TIMEOUT_SECONDS)
@pytest.mark.parametrize("name", HUNTED)
def test_a_mutant_is_caught(name: str, tmp_path: Path) -> None:
    _run(tmp_path, MUTANT_SCALE, "mutants", "--mutant", name, "--seeds", SEEDS)


def test_every_mutant_is_hunted_here_or_in_the_simulation() -> None:
    from tests.unit.test_simulation import MUTANTS as SIMULATED

    assert NEED_A_BROKER | set(SIMULATED) == set(MUTANTS)


@pytest.mark.unsecured("a client that commits")
def test_a_commit_that_goes_back_is_seen(kan: Kantoku) -> None:
    topic = kan.topics.of_type("work")
    consumer = kan.clients.consumer(**{"group.id": kan.topics.group})
    for offset in (3, 7, 5, 6):
        consumer.commit(offsets=[TopicPartition(topic, 1, offset)], asynchronous=False)
    consumer.close()
    assert [offset for place, offset in commits(kan.clients, kan.topics.group)] == [3, 7, 5, 6]
    assert went_back(kan.clients, kan.topics.group) == [f"{topic}[1] went back from 7 to 5"]
