"""``verify``: are the promises kept, judged from the topics alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from kantoku_kafka.cli.common import connected
from kantoku_kafka.cli.output import table, tell
from kantoku_kafka.cli.parameters import OptionalApp, Output, Since
from kantoku_kafka.cli.times import parse_time_us
from kantoku_kafka.engine.foreign import foreign_readers
from kantoku_kafka.kafka.group import worked_topics
from kantoku_kafka.settings import EventDetail
from kantoku_kafka.verify import Finding, Violation, collect, judge

_SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("verify")(verify)


def verify(
    ctx: typer.Context,
    app: OptionalApp = None,
    since: Since = None,
    at_rest: Annotated[
        bool, typer.Option("--at-rest", help="Nothing runs or waits any more: a task without a result is lost.")
    ] = False,
    deduplicate_seconds: Annotated[
        float, typer.Option(help="For so long ids are remembered: spawns of one id further apart are two tasks.")
    ] = 3_600.0,
    events: Annotated[
        EventDetail | None,
        typer.Option(help="What all executors log (run-executor --events); default: each is judged by what it logs."),
    ] = None,
    output: Output = "table",
) -> None:
    """Check from the topics alone that promises are kept. Every task has one result, for one. Changes nothing.

    It may run beside executors. Exit code 1 if a promise is broken; the records that show it are named. It reads all
    that the topics hold, or what was spawned --since, and keeps some 2 kB of memory for each task.

    Of a topic of others (``from_topics``) that no APP explains, only those records are judged that something tells of.

    Example: kantoku-kafka -n shop verify --since 24h
    """
    since_us = parse_time_us(since, "--since")
    with connected(ctx.obj, app) as kantoku:
        clients, topics = kantoku.clients, kantoku.topics
        formats = {name: task.from_topics for name, task in kantoku.task_types.items()}
        evidence = collect(
            clients,
            topics,
            kantoku.codec,
            worked_topics(clients, topics),
            readers=foreign_readers(formats, topics, kantoku.codec),
            since_ms=None if since_us is None else since_us // 1000,
        )
    report = judge(evidence, at_rest=at_rest, remembered_seconds=deduplicate_seconds, events=events)
    table((_row(finding, output) for finding in report.findings), output)
    for finding in report.findings:
        for violation in finding.violations[:_SHOWN]:
            tell(f"{finding.name}: {_sentence(violation)}")
        if len(finding.violations) > _SHOWN:
            tell(f"{finding.name}: and {len(finding.violations) - _SHOWN} more; -o json shows all")
    tell(f"{report.tasks} tasks, {report.results} results, {report.pending} tasks that have not ended")
    if evidence.untold:
        tell(f"{evidence.untold} records of topics of others could not be judged: name the APP that reads them")
    if not report.tasks:
        tell(f"nothing could be judged: the inputs of {topics.namespace!r} hold no task whose whole life was read")
    if not report.ok:
        raise typer.Exit(1)


def _row(finding: Finding, output: str) -> dict[str, Any]:
    violations: object = len(finding.violations)
    if output != "table":
        violations = [{"task_id": v.task_id, "text": v.text, "records": _names(v.records)} for v in finding.violations]
    return {"name": finding.name, "promise": finding.promise, "cases": finding.cases, "violations": violations}


def _sentence(violation: Violation) -> str:
    who = f"task {violation.task_id} " if violation.task_id else ""
    where = f" ({', '.join(_names(violation.records))})" if violation.records else ""
    return f"{who}{violation.text}{where}"


def _names(records: Sequence[object]) -> list[str]:
    return [str(record) for record in records]
