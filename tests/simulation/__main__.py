"""``python -m tests.simulation --schedules 100000``: so many schedules, one seed each; those that fail are made smaller."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path

from tests.chaos import mutants
from tests.simulation.choices import Choices, shrink
from tests.simulation.schedule import Verdict, simulate

_CHUNK = 200


def main() -> int:
    """The exit code is 1 if a schedule broke a promise."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--mutant", default="", help="a defect to build in")
    parser.add_argument("--most", type=int, default=1, help="stop after so many that fail")
    parser.add_argument("--out", type=Path, help="where to keep the decisions of those that fail")
    arguments = parser.parse_args()
    began = time.monotonic()
    chunks = [
        range(seed, min(seed + _CHUNK, arguments.seed + arguments.schedules))
        for seed in range(arguments.seed, arguments.seed + arguments.schedules, _CHUNK)
    ]
    done, failing = 0, []
    with get_context("spawn").Pool(arguments.processes, mutants.install, (arguments.mutant,)) as pool:
        for count, found in pool.imap_unordered(_fail, chunks):
            done += count
            failing += found
            if len(failing) >= arguments.most:
                break
        seconds = time.monotonic() - began
        for seed in sorted(failing)[: arguments.most]:
            _tell(seed, pool.apply(_smaller, (seed,)), arguments.out)
    print(f"{done} schedules in {seconds:.1f} s, {done / seconds:.0f} a second, {len(failing)} failed")
    return 1 if failing else 0


def _fail(seeds: Sequence[int]) -> tuple[int, list[int]]:
    return len(seeds), [seed for seed in seeds if not simulate(Choices(seed)).ok]


def _smaller(seed: int) -> Verdict:
    """The shortest schedule found that breaks the same promise."""
    first = simulate(Choices(seed))
    kind = first.problems[0].split(":")[0]

    def fails(given: Sequence[int]) -> bool:
        return any(problem.split(":")[0] == kind for problem in simulate(Choices(given=given)).problems)

    return simulate(Choices(given=shrink(first.choices, fails)))


def _tell(seed: int, verdict: Verdict, out: Path | None) -> None:
    print(f"seed {seed}, {len(verdict.choices)} decisions:")
    for line in (*verdict.story, *verdict.problems):
        print(f"  {line}")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / f"seed-{seed}.json").write_text(json.dumps({"choices": list(verdict.choices), "found": verdict.problems}))


if __name__ == "__main__":
    sys.exit(main())
