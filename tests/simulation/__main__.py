"""``python -m tests.simulation --schedules 100000``: schedules, and those that fail, made smaller."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from tests.chaos.mutants import MUTANTS
from tests.simulation.campaign import Campaign
from tests.simulation.schedule import Verdict


def main() -> int:
    """The exit code is 1 if a schedule broke a promise."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--mutant", default="", choices=["", *MUTANTS], help="a defect to build in")
    parser.add_argument("--most", type=int, default=1, help="stop after so many that fail")
    parser.add_argument("--out", type=Path, help="where to keep the decisions of those that fail")
    arguments = parser.parse_args()
    began = time.monotonic()
    done, failing = 0, []
    with Campaign(arguments.processes, arguments.mutant) as campaign:
        for count, found in campaign.failing(range(arguments.seed, arguments.seed + arguments.schedules)):
            done += count
            failing += found
            if len(failing) >= arguments.most:
                break
        seconds = time.monotonic() - began
        for seed in sorted(failing)[: arguments.most]:
            _tell(f"{arguments.mutant or 'seed'}-{seed}", campaign.smaller(seed), arguments.out)
    print(f"{done} schedules in {seconds:.1f} s, {done / seconds:.0f} a second, {len(failing)} failed")
    return 1 if failing else 0


def _tell(name: str, verdict: Verdict, out: Path | None) -> None:
    print(f"{name}, {len(verdict.choices)} decisions:")
    for line in (*verdict.story, *verdict.problems):
        print(f"  {line}")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        kept = {"choices": list(verdict.choices), "found": verdict.problems}
        (out / f"{name}.json").write_text(json.dumps(kept))


if __name__ == "__main__":
    sys.exit(main())
