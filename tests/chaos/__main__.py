"""``python -m tests.chaos RUN --seed 7 --scale 0.1``: one run, or several, and what became of them."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tests.chaos.harness import perform
from tests.chaos.runs import RUNS


def main() -> int:
    """The exit code is 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("run", choices=[*RUNS, "all"])
    parser.add_argument("--seed", type=int, default=1, help="the first one")
    parser.add_argument("--seeds", type=int, default=1, help="so many, one after the other")
    parser.add_argument("--scale", type=float, default=0.1)
    parser.add_argument("--mutant", default="")
    parser.add_argument("--out", type=Path, default=Path("chaos"))
    arguments = parser.parse_args()
    names = list(RUNS) if arguments.run == "all" else [arguments.run]
    failed = 0
    for name in names:
        for seed in range(arguments.seed, arguments.seed + arguments.seeds):
            folder = arguments.out / f"{name}-{seed}{'-' if arguments.mutant else ''}{arguments.mutant}"
            report = perform(name, RUNS[name], seed=seed, scale=arguments.scale, folder=folder, mutant=arguments.mutant)
            (folder / "report.json").write_text(json.dumps(report, indent=1))
            verdict = "ok" if report["ok"] else "; ".join(report["problems"])
            print(
                f"{name} seed {seed}: {report['tasks']} tasks, {sum(report['faults'].values())} faults, settled after "
                f"{report['settled_seconds']} s, {report['seconds']} s in all: {verdict}",
                flush=True,
            )
            failed += not report["ok"]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
