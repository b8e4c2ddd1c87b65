"""``python -m tests.chaos.report RUNS.jsonl --into docs/reliability.md``: the tables of what was run."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
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
        mine = {report["seed"]: report for report in reports if report["run"] == name and "mutant" not in report}
        if mine:
            rows.append(_run(name, list(mine.values())))
    head = (
        "run",
        "seeds",
        "scale",
        "tasks a seed",
        "faults",
        "refused",
        "cases judged",
        "not well",
        "settled, s",
        "commit",
    )
    return _table(head, rows)


def _run(name: str, mine: Sequence[Report]) -> list[object]:
    """Of each seed the last report."""
    ended = [report for report in mine if "tasks" in report]
    faults: Counter[str] = Counter()
    for report in ended:
        faults += Counter(report["faults"])
        faults["death-at-a-step"] += sum(report["deaths"].values())
    settled = [report["settled_seconds"] for report in ended if report["settled_seconds"] is not None]
    broken = [report["seed"] for report in ended if report["violations"]]
    other = [report["seed"] for report in mine if not report["ok"] and not report.get("violations")]
    texts = [f"violations: seeds {broken}"] * bool(broken) + [f"other: seeds {other}"] * bool(other)
    return [
        name,
        len(mine),
        _several(f"{report['scale']:g}" for report in mine),
        f"{round(median(report['tasks'] for report in ended)):,}" if ended else "",
        ", ".join(f"{count} {kind}" for kind, count in sorted(faults.items()) if count) or "the tasks' own",
        f"{sum(report['refused_checkpoints'] for report in ended):,}",
        f"{sum(sum(report['cases'].values()) for report in ended):,}",
        "; ".join(texts) or "0",
        f"{median(settled):g}, at most {max(settled):g}" if settled else "never",
        _several(report["commit"] for report in mine),
    ]


def _mutants(reports: Iterable[Report]) -> str:
    last = {(report["mutant"], report["run"]): report for report in reports if "mutant" in report}
    rows = []
    for (name, run), report in sorted(last.items(), key=lambda item: [*MUTANTS, ""].index(item[0][0])):
        defect = MUTANTS[name].build.__doc__ if name else "The program as it is: nothing must be found."
        found = ", ".join(report.get("found", ())) or (
            "nothing" if not name and report["ok"] else "NOT AS IT SHOULD BE"
        )
        cells = name or "none", " ".join((defect or "").split()), run, report["seed"], f"{report['scale']:g}"
        rows.append([*cells, found, f"{report['seconds']:g}" if "seconds" in report else "", report["commit"]])
    return _table(("mutant", "defect", "run", "seed", "scale", "broken", "after, s", "commit"), rows)


def _several(words: Iterable[str]) -> str:
    return ", ".join(sorted(set(words)))


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    def lines() -> Iterator[Sequence[object]]:
        yield head
        yield ["---"] * len(head)
        yield from rows

    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines())


if __name__ == "__main__":
    sys.exit(main())
