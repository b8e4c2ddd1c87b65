"""``python -m tests.chaos RUN --seed 7 --scale 0.1``: one run, or several, or the mutants; and what became of them."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

from tests.chaos.harness import hunt, perform
from tests.chaos.mutants import MUTANTS
from tests.chaos.runs import RUNS


def main() -> int:
    """The exit code is 1 if a promise was broken, or a mutant was not caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("run", choices=[*RUNS, "all", "mutants"])
    parser.add_argument("--seed", type=int, default=1, help="the first one")
    parser.add_argument("--seeds", type=int, default=1, help="so many, one after the other; of a mutant: until caught")
    parser.add_argument("--scale", type=float, default=0.1)
    parser.add_argument(
        "--jobs", type=int, default=1, help="so many runs at once; those that were well are not repeated"
    )
    parser.add_argument("--mutant", default="", choices=["", *MUTANTS], help="only this one")
    parser.add_argument("--out", type=Path, default=Path("chaos"))
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that brokers and executors end with us
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.jobs > 1 and arguments.run != "mutants":
        return _at_once(arguments)
    failed, commit = 0, _commit()
    for report, text in _mutants(arguments) if arguments.run == "mutants" else _runs(arguments):
        with (arguments.out / "reports.jsonl").open("a") as kept:
            at = datetime.now(UTC).isoformat(timespec="seconds")
            kept.write(json.dumps({"at": at, "commit": commit} | report) + "\n")
        print(text, flush=True)
        failed += not report["ok"]
    return 1 if failed else 0


def _commit() -> str:
    """What was run."""
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"


def _at_once(arguments: argparse.Namespace) -> int:
    """Each run in a process of its own."""

    def perform_apart(case: tuple[int, str]) -> int:
        seed, name = case
        command = [sys.executable, "-m", "tests.chaos", name, "--seed", seed, "--scale", arguments.scale]
        return subprocess.run([*map(str, command), "--out", arguments.out]).returncode

    reports = arguments.out / "reports.jsonl"
    rows = [json.loads(line) for line in reports.read_text().splitlines()] if reports.exists() else []
    present = _commit(), arguments.scale
    well = {
        (row["seed"], row["run"])
        for row in rows
        if row["ok"] and "mutant" not in row and (row["commit"], row["scale"]) == present
    }
    with ThreadPoolExecutor(arguments.jobs) as threads:
        codes = threads.map(perform_apart, [case for case in _cases(arguments) if case not in well])
    return max(codes, default=0)


def _cases(arguments: argparse.Namespace) -> Iterator[tuple[int, str]]:
    return product(_seeds(arguments), list(RUNS) if arguments.run == "all" else [arguments.run])


def _runs(arguments: argparse.Namespace) -> Iterator[tuple[dict[str, Any], str]]:
    for seed, name in _cases(arguments):
        folder = arguments.out / f"{name}-{seed}"
        report: dict[str, Any] = {"run": name} | perform(RUNS[name], seed=seed, scale=arguments.scale, folder=folder)
        yield (
            report,
            f"{name} seed {seed}: {report['tasks']} tasks, {sum(report['faults'].values())} faults, settled after "
            f"{report['settled_seconds']} s, {report['seconds']} s in all: "
            + ("ok" if report["ok"] else "; ".join(report["problems"])),
        )


def _mutants(arguments: argparse.Namespace) -> Iterator[tuple[dict[str, Any], str]]:
    for name in [arguments.mutant] if arguments.mutant else list(MUTANTS):
        run = MUTANTS[name].run
        for seed in _seeds(arguments):
            folder = arguments.out / f"{name}-{seed}"
            found = hunt(RUNS[run], seed=seed, scale=arguments.scale, folder=folder, mutant=name)
            if found["ok"]:
                break
        caught = f"caught by {', '.join(found['found'])}" if found["ok"] else "NOT CAUGHT"
        yield {"run": run} | found, f"{name} in {run}, seed {seed}: {caught} after {found['seconds']} s"


def _seeds(arguments: argparse.Namespace) -> range:
    return range(arguments.seed, arguments.seed + arguments.seeds)


if __name__ == "__main__":
    sys.exit(main())
