"""This program against hand-written loops, side by side in one run, from the repository root.

Contestants take turns round by round, so that what else the machine does hits all of them alike. Every run
has new topics and a new consumer group. Exit code 0 whatever the ratios are, 1 if a contestant failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import pstats
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.cluster import Cluster
from benchmarks.programs import ContestantError
from benchmarks.report import Outcome, as_json, as_text, environment, line_of
from benchmarks.suite import Row, Settings, Suite

FULL = Settings(tasks=200_000, samples=1000, warmup=100)
SHORT = Settings(tasks=30_000, samples=200, warmup=50)
FULL_ROUNDS, SHORT_ROUNDS = 5, 1
WARM_UPS = 2
PROFILED = "executor, exactly-once: kantoku, events"
PROFILE_LINES = 25


def main() -> int:
    options = _options()
    settings = SHORT if options.short else FULL
    settings = replace(settings, tasks=options.tasks or settings.tasks)
    rounds = options.rounds or (SHORT_ROUNDS if options.short else FULL_ROUNDS)
    with _broker(options.bootstrap_servers, options.broker_version) as (servers, broker):
        if options.profile:
            return _profile(servers, settings, options.only or [PROFILED])
        outcomes = _run(list(_chosen(Suite(Cluster(servers), settings), options.only)), rounds)
    facts = environment(settings, rounds, broker)
    sys.stdout.write(as_text(facts, outcomes))
    if options.json:
        options.json.write_text(json.dumps(as_json(facts, outcomes), indent=2) + "\n", encoding="utf-8")
    return int(any(outcome.failure for outcome in outcomes))


def _run(rows: list[Row], rounds: int) -> list[Outcome]:
    """All rows, then all rows again; a row that failed is not tried again."""
    _warm_up(rows)
    outcomes = [Outcome(row) for row in rows]
    for number in range(1, rounds + 1):
        for outcome in outcomes:
            if outcome.failure:
                continue
            try:
                outcome.samples.append(outcome.row.measure(_new_namespace()))
            except ContestantError as error:
                outcome.failure = error
            _log(f"[round {number} of {rounds}] {line_of(outcome)}")
    return outcomes


def _warm_up(rows: list[Row]) -> None:
    """The first row of each section, unmeasured: a broker that was just started is half as fast."""
    first = {row.section: row for row in reversed(rows)}
    for number in range(1, WARM_UPS + 1):
        for row in reversed(first.values()):
            with contextlib.suppress(ContestantError):  # it will fail again where it is measured
                row.measure(_new_namespace())
        _log(f"[warm-up {number} of {WARM_UPS}] done")


def _profile(servers: str, settings: Settings, only: list[str]) -> int:
    """One run of each chosen row under cProfile, which slows it down: the shares count, not the rates."""
    with tempfile.TemporaryDirectory(prefix="kantoku-bench-") as directory:
        file = Path(directory) / "profile"
        profiled = replace(settings, interpreter=("-m", "cProfile", "-o", str(file)))
        for row in _chosen(Suite(Cluster(servers), profiled), only):
            row.measure(_new_namespace())
            sys.stdout.write(f"\n{row.section.title}: {row.name}\n")
            pstats.Stats(str(file), stream=sys.stdout).sort_stats("tottime").print_stats(PROFILE_LINES)
    return 0


def _chosen(suite: Suite, only: list[str]) -> Iterator[Row]:
    """Rows whose `section: name` has one of the texts in it; all if there are none."""
    for row in suite.rows():
        if not only or any(text in f"{row.section.title}: {row.name}" for text in only):
            yield row


def _log(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _new_namespace() -> str:
    return f"bench-{uuid.uuid4().hex[:8]}"


@contextlib.contextmanager
def _broker(bootstrap_servers: str | None, version: str | None) -> Iterator[tuple[str, str]]:
    """(bootstrap servers, how the table names the broker): the given one, or one for this run."""
    if bootstrap_servers:
        yield bootstrap_servers, f"Kafka {version or 'of unknown version'} at {bootstrap_servers}"
        return
    from kantoku_kafka.dev import EmbeddedBroker
    from kantoku_kafka.dev.distribution import KAFKA_VERSION

    with EmbeddedBroker(on_progress=_log) as broker:
        yield broker.bootstrap_servers, f"Kafka {KAFKA_VERSION}, embedded, one node on this machine"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("-b", "--bootstrap-servers", help="default: an embedded broker is started")
    parser.add_argument("--broker-version", help="how the table names the version of that broker")
    parser.add_argument("--tasks", type=int, help=f"default {FULL.tasks:,}, with --short {SHORT.tasks:,}")
    parser.add_argument("--rounds", type=int, help=f"default {FULL_ROUNDS}, with --short {SHORT_ROUNDS}")
    parser.add_argument("--short", action="store_true", help="for CI: less than 90 s in total")
    parser.add_argument("--only", action="append", default=[], help="rows with this text in 'section: name'")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there as well")
    parser.add_argument(
        "--profile", action="store_true", help=f"run under cProfile instead; default of --only: {PROFILED!r}"
    )
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
