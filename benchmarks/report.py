"""What is printed: where it ran, then a table of medians with the ratios wanted and got."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import confluent_kafka

from benchmarks.programs import ContestantError
from benchmarks.suite import Row, Sample, Section, Settings

NAME_WIDTH = 34


@dataclass
class Outcome:
    """All samples of one row; `failure` says why there are no more."""

    row: Row
    samples: list[Sample] = field(default_factory=list)
    failure: ContestantError | None = None

    @property
    def values(self) -> list[float]:
        return [sample.value for sample in self.samples]

    @property
    def median(self) -> float | None:
        return statistics.median(self.values) if self.samples else None

    @property
    def also(self) -> float | None:
        """The median of the second column."""
        known = [sample.also for sample in self.samples if sample.also is not None]
        return statistics.median(known) if known else None

    @property
    def parts(self) -> dict[str, float]:
        """The medians of what the second column is made of."""
        known = [sample.parts for sample in self.samples if sample.parts is not None]
        return {who: statistics.median(parts[who] for parts in known) for who in known[0]} if known else {}

    def ratio_to(self, reference: Outcome) -> float | None:
        """This row's median by the reference's; None if either has no sample."""
        if self.median is None or not reference.median:
            return None
        return self.median / reference.median


def environment(settings: Settings, rounds: int, broker: str) -> dict[str, str]:
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{_cpu_model()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "versions": f"Python {platform.python_version()}, confluent-kafka {confluent_kafka.__version__}, "
        f"librdkafka {confluent_kafka.libversion()[0]}, fastavro {metadata.version('fastavro')}, "
        f"kantoku-kafka {_version_of('kantoku-kafka')}",
        "broker": broker,
        "work": f"{settings.tasks:,} tasks of {settings.payload_bytes} bytes a run, 4 partitions, at most "
        f"{settings.batch:,} tasks a commit, acks=all, no compression",
        "values": f"medians of {rounds} round{'s' if rounds > 1 else ''}, in which all rows take turns; "
        "ratios to the first row of each table",
    }


def as_text(environment: dict[str, str], outcomes: Iterable[Outcome]) -> str:
    lines = [f"{key + ':':10}{value}" for key, value in environment.items()]
    for section, rows in _by_section(outcomes):
        lines += ["", *_section_lines(section, rows)]
    return "\n".join(lines) + "\n"


def as_json(environment: dict[str, str], outcomes: Iterable[Outcome]) -> dict[str, Any]:
    sections = [
        {
            "title": section.title,
            "unit": section.unit,
            "also": section.also,
            "rows": [
                {
                    "name": outcome.row.name,
                    "median": outcome.median,
                    "samples": outcome.values,
                    "also": outcome.also,
                    "parts": outcome.parts,
                    "ratio": outcome.ratio_to(rows[0]),
                    "wanted_ratio": outcome.row.wanted_ratio,
                    "failure": outcome.failure and str(outcome.failure),
                }
                for outcome in rows
            ],
        }
        for section, rows in _by_section(outcomes)
    ]
    return {"environment": environment, "sections": sections}


def line_of(outcome: Outcome) -> str:
    """The newest sample, for the log of a run in progress."""
    row = outcome.row
    last = str(outcome.failure or "") or f"{_number(outcome.values[-1], row.section)} {row.section.unit}"
    return f"{row.section.title}: {row.name}: {last}"


def _by_section(outcomes: Iterable[Outcome]) -> Iterator[tuple[Section, list[Outcome]]]:
    grouped: dict[Section, list[Outcome]] = {}
    for outcome in outcomes:
        grouped.setdefault(outcome.row.section, []).append(outcome)
    yield from grouped.items()


def _section_lines(section: Section, rows: list[Outcome]) -> Iterator[str]:
    heads = (section.unit, "min - max", section.also, "ratio", "wanted")
    yield f"{section.title:{NAME_WIDTH}}{_columns(*heads)}".rstrip()
    yield "-" * (NAME_WIDTH + len(_columns(*heads)))
    for outcome in rows:
        yield f"{outcome.row.name:{NAME_WIDTH}}{_measured(outcome, rows[0])}".rstrip()
    known = [(outcome.row.name, outcome.parts) for outcome in rows if outcome.parts]
    if known:
        yield ""
        yield f"{section.also + ' by who spent it':{NAME_WIDTH}}" + "".join(f"{who:>22}" for who in known[0][1])
        for name, parts in known:
            yield f"{name:{NAME_WIDTH}}" + "".join(f"{spent:>22.1f}" for spent in parts.values())


def _measured(outcome: Outcome, reference: Outcome) -> str:
    section, median = outcome.row.section, outcome.median
    if median is None:
        return f"  FAILED: {outcome.failure.reason}" if outcome.failure else ""
    spread = " - ".join(_number(value, section) for value in (min(outcome.values), max(outcome.values)))
    also = "" if outcome.also is None else f"{outcome.also:.1f}"
    ratio = outcome.ratio_to(reference)
    return _columns(
        _number(median, section),
        spread,
        also,
        "" if ratio is None else f"{ratio:.2f}",
        _verdict(outcome, ratio),
    ) + (f"  then FAILED: {outcome.failure.reason}" if outcome.failure else "")


def _verdict(outcome: Outcome, ratio: float | None) -> str:
    wanted, lower = outcome.row.wanted_ratio, outcome.row.section.lower_is_better
    if wanted is None or ratio is None:
        return ""
    met = ratio <= wanted if lower else ratio >= wanted
    return f"{'<=' if lower else '>='} {wanted:.2f} {'yes' if met else 'NO'}"


def _columns(value: str, spread: str, also: str, ratio: str, wanted: str) -> str:
    return f"{value:>10} {spread:>21}{also:>13}{ratio:>8}{wanted:>13}"


def _number(value: float, section: Section) -> str:
    return f"{value:.2f}" if section.lower_is_better else f"{value:,.0f}"


def _cpu_model() -> str:
    """As Linux names it; elsewhere what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version_of(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "from the source tree"
