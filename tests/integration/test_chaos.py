"""The short form of the runs that break Kafka and executors on purpose, and of the mutants that they have to catch.

Without ``KANTOKU_CHAOS=all`` (``make chaos-short``) these are some of both. The long forms: ``make chaos-all``,
``make mutants``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
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
AT_ONCE = 1  # beside the tests of another worker
TIMEOUT_SECONDS = 400
# The others are caught by simulated schedules.
NEED_A_BROKER = [
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
]
SOME = {"eos-executor", "zombie", "delayed-endtxn", "storm", "poison", "reset-grow"} | {
    "late-requests-trusted",
    "outcome-guessed",
    "result-before-fence",
}
CHOSEN = {*RUNS, *NEED_A_BROKER} if os.environ.get("KANTOKU_CHAOS", "all") == "all" else SOME
NEED_ROOT = [name for name, run in RUNS.items() if run.small_disk]

Done = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Done]]]:
    """All of them, some at once."""
    names = [name for name in RUNS if name in CHOSEN and (os.geteuid() == 0 or name not in NEED_ROOT)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {name: pool.submit(_run, tmp_path_factory.mktemp(name), SCALE, name) for name in names} | {
            name: pool.submit(
                _run, tmp_path_factory.mktemp(name), MUTANT_SCALE, "mutants", "--mutant", name, "--seeds", SEEDS
            )
            for name in NEED_A_BROKER
            if name in CHOSEN
        }
        pool.shutdown(cancel_futures=True)


def _run(folder: Path, scale: str, *arguments: str) -> Done:
    command = [sys.executable, "-m", "tests.chaos", *arguments, "--seed", SEED, "--scale", scale, "--out", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=TIMEOUT_SECONDS)


@pytest.mark.timeout(1_500)
@pytest.mark.parametrize("name", [name for name in RUNS if name in CHOSEN])
def test_a_run_keeps_all_promises(name: str, runs: dict[str, Future[Done]]) -> None:
    if name not in runs:
        pytest.skip("needs root, to mount a small disk")
    done = runs[name].result()
    assert done.returncode == 0, done.stdout + done.stderr[-3_000:]


@pytest.mark.timeout(1_500)
@pytest.mark.parametrize("name", [name for name in NEED_A_BROKER if name in CHOSEN])
def test_a_mutant_is_caught(name: str, runs: dict[str, Future[Done]]) -> None:
    done = runs[name].result()
    assert done.returncode == 0, done.stdout + done.stderr[-3_000:]


def test_every_mutant_is_hunted_here_or_in_the_simulation() -> None:
    from tests.unit.test_simulation import MUTANTS as SIMULATED

    assert set(NEED_A_BROKER) | set(SIMULATED) == set(MUTANTS)


def test_a_commit_that_goes_back_is_seen(kan: Kantoku) -> None:
    topic = kan.topics.of_type("work")
    consumer = kan.clients.consumer(**{"group.id": kan.topics.group})
    for offset in (3, 7, 5, 6):
        consumer.commit(offsets=[TopicPartition(topic, 1, offset)], asynchronous=False)
    consumer.close()
    assert [offset for place, offset in commits(kan.clients, kan.topics.group)] == [3, 7, 5, 6]
    assert went_back(kan.clients, kan.topics.group) == [f"{topic}[1] went back from 7 to 5"]
