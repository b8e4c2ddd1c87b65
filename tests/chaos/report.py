"""``python -m tests.chaos.report RUNS.jsonl --into docs/reliability.md``: the tables of what was run."""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import dropwhile
from pathlib import Path
from statistics import median
from typing import Any

from tests.chaos.mutants import MUTANTS
from tests.chaos.runs import RUNS

__all__ = ["main"]

Report = Mapping[str, Any]


def main() -> int:
    """Puts each table behind its marker, ``<!-- runs -->`` and ``<!-- mutants -->``, in the place of the one there."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.report")
    parser.add_argument("reports", nargs="+", type=Path)
    parser.add_argument("--into", type=Path, required=True)
    arguments = parser.parse_args()
    reports = [json.loads(line) for path in arguments.reports for line in path.read_text().splitlines()]
    text = arguments.into.read_text()
    for name, table in (("runs", _runs(reports)), ("mutants", _mutants(reports))):
        before, marker, after = text.partition(f"<!-- {name} -->\n")
        if not marker:
            raise SystemExit(f"{arguments.into} has no marker <!-- {name} -->")
        text = before + marker + table + "\n" + "".join(dropwhile(_is_row, after.splitlines(keepends=True)))
    arguments.into.write_text(text)
    return 0


def _is_row(line: str) -> bool:
    return line.startswith("|")


def _runs(reports: Sequence[Report]) -> str:
    rows = []
    for name in RUNS:
        # What was run again with the same seed counts with its last outcome.
        mine = {report["seed"]: report for report in reports if report["run"] == name and "mutant" not in report}
        if mine:
            rows.append(_run(name, list(mine.values())))
    head = "run", "seeds", "scale", "tasks a seed", "faults", "refused", "cases judged", "violations", "settled, s"
    return _table(head, rows)


def _run(name: str, mine: Sequence[Report]) -> list[object]:
    faults: defaultdict[str, int] = defaultdict(int)
    for report in mine:
        for kind, count in report["faults"].items():
            faults[kind] += count
        if deaths := report.get("deaths"):
            faults["death-at-a-step"] += sum(deaths.values())
    settled = [report["settled_seconds"] for report in mine if report["settled_seconds"] is not None]
    wrong = sum(bool(report["violations"]) for report in mine)
    other = [report["seed"] for report in mine if not report["ok"] and not report["violations"]]
    return [
        name,
        len(mine),
        ", ".join(sorted({f"{report['scale']:g}" for report in mine})),
        f"{round(median(report['tasks'] for report in mine)):,}",
        ", ".join(f"{count} {kind}" for kind, count in sorted(faults.items())) or "the tasks' own",
        f"{sum(report.get('refused_checkpoints', 0) for report in mine):,}",
        f"{sum(sum(report['cases'].values()) for report in mine):,}",
        f"in {wrong} seeds" if wrong else f"0; not settled or not ended well: seeds {other}" if other else "0",
        f"{median(settled):g}, at most {max(settled):g}" if settled else "never",
    ]


def _mutants(reports: Iterable[Report]) -> str:
    last = {report["mutant"]: report for report in reports if "mutant" in report}
    rows = [
        [
            name,
            " ".join((MUTANTS[name].build.__doc__ or "").split()),
            last[name]["run"],
            last[name]["seed"],
            f"{last[name]['scale']:g}",
            ", ".join(last[name]["found"]) or "not caught",
            f"{last[name]['seconds']:g}",
        ]
        for name in MUTANTS
        if name in last
    ]
    return _table(("mutant", "defect", "run", "seed", "scale", "broken", "caught after, s"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    def lines() -> Iterator[Sequence[object]]:
        yield head
        yield ["---"] * len(head)
        yield from rows

    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines())


if __name__ == "__main__":
    sys.exit(main())
