"""``python -m tests.chaos RUN --seed 7 --scale 0.1``: one run, or several, or the mutants; and what became of them."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

from tests.chaos.harness import hunt, perform
from tests.chaos.mutants import MUTANTS
from tests.chaos.runs import RUNS

_NONE = "none"
"""The program as it is: in the runs that have to catch mutants nothing must be found of it."""


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
    parser.add_argument("--mutant", default="", choices=["", *MUTANTS, _NONE], help="only this one")
    parser.add_argument("--out", type=Path, default=Path("chaos"))
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that brokers and executors end with us
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.jobs > 1 and arguments.run != "mutants":
        return _at_once(arguments)
    failed, commit = 0, _commit()
    for report in _mutants(arguments) if arguments.run == "mutants" else _runs(arguments):
        with (arguments.out / "reports.jsonl").open("a") as kept:
            at = datetime.now(UTC).isoformat(timespec="seconds")
            kept.write(json.dumps({"at": at, "commit": commit} | report) + "\n")
        print(_told(report), flush=True)
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


def _runs(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for seed, name in _cases(arguments):
        yield _attempted(perform, name, arguments, seed, name)


def _mutants(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for name in [arguments.mutant] if arguments.mutant else [*MUTANTS, _NONE]:
        if name == _NONE:
            for run, seed in product(sorted({mutant.run for mutant in MUTANTS.values()}), _seeds(arguments)):
                yield _attempted(hunt, run, arguments, seed, f"{name}-{run}", mutant="")
            continue
        for seed in _seeds(arguments):
            found = _attempted(hunt, MUTANTS[name].run, arguments, seed, name, mutant=name)
            if found["ok"]:
                break
        yield found


def _attempted(
    act: Callable[..., dict[str, Any]], run: str, arguments: argparse.Namespace, seed: int, name: str, **more: str
) -> dict[str, Any]:
    """Its report; also one that could not be brought to its end has one."""
    case = {"seed": seed, "scale": arguments.scale} | more
    try:
        return {"run": run} | act(RUNS[run], folder=arguments.out / f"{name}-{seed}", **case)
    except Exception as error:  # noqa: BLE001 - part of the report
        traceback.print_exc()
        return {"run": run, "ok": False, "problems": [f"it was not brought to its end: {error!r}"]} | case


def _told(report: dict[str, Any]) -> str:
    """One line."""
    case = f"{report['run']} seed {report['seed']}"
    if "found" in report:
        caught = f"caught by {', '.join(report['found'])}" if report["found"] else "nothing found"
        return f"{report['mutant'] or _NONE} in {case}: {caught} after {report['seconds']} s"
    if "tasks" not in report:
        return f"{case}: {'; '.join(report['problems'])}"
    return (
        f"{case}: {report['tasks']} tasks, {sum(report['faults'].values())} faults, settled after "
        f"{report['settled_seconds']} s, {report['seconds']} s in all: "
        + ("ok" if report["ok"] else "; ".join(report["problems"]))
    )


def _seeds(arguments: argparse.Namespace) -> range:
    return range(arguments.seed, arguments.seed + arguments.seeds)


if __name__ == "__main__":
    sys.exit(main())
