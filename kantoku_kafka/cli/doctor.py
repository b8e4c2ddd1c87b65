"""``doctor``: what stands between the user and a running executor, and the remedy."""

from __future__ import annotations

from typing import Annotated

import typer

from kantoku_kafka.cli.common import Options
from kantoku_kafka.cli.output import table
from kantoku_kafka.kafka.diagnosis import diagnose


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor")(doctor)


def doctor(
    ctx: typer.Context,
    app: Annotated[
        str | None, typer.Argument(metavar="[APP]", help="MODULE:ATTRIBUTE: its input topics are looked at as well.")
    ] = None,
    output: Annotated[str, typer.Option("-o", "--output", help="table, json, jsonl")] = "table",
) -> None:
    """Check versions, broker, topics, transactions and group, in this order; exits with the code of what fails.

    Example: kantoku-kafka doctor shop.tasks:kan
    """
    options: Options = ctx.obj
    kantoku = options.app(app) if app is not None else options.client()
    findings = list(diagnose(kantoku.clients, kantoku.topics, kantoku.inputs))
    rows = ({"check": f.check, "state": "failed" if f.error else "ok", "detail": f.detail} for f in findings)
    table(rows, output, wrapped=True)
    failed = findings[-1].error
    if failed is not None:
        raise typer.Exit(failed.exit_code)
