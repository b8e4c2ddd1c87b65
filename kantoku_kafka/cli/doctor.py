"""``doctor``: what stands between the user and a running executor, and the remedy."""

from __future__ import annotations

from typing import Annotated

import typer

from kantoku_kafka.cli.acls import app_rights
from kantoku_kafka.cli.common import Options
from kantoku_kafka.cli.output import table
from kantoku_kafka.cli.parameters import OptionalApp, Output
from kantoku_kafka.kafka.diagnosis import diagnose
from kantoku_kafka.kafka.rights import Role


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor")(doctor)


def doctor(
    ctx: typer.Context,
    app: OptionalApp = None,
    timers: Annotated[bool, typer.Option(help="Also what executors need to fire timers.")] = True,
    output: Output = "table",
) -> None:
    """Look for what would keep an executor from running. Exits with the code of the first thing found.

    In this order: versions, DNS, TCP, TLS, SASL, broker, topics, policies, rights, transactions, group, clock, timers.
    Use the credentials of an executor. What remains is a mark on the control topic, which nobody heeds.

    Example: kantoku-kafka doctor shop.tasks:kan
    """
    options: Options = ctx.obj
    kantoku = options.app(app) if app is not None else options.client()
    rights = app_rights(kantoku, Role.EXECUTOR, timers=timers)
    steps = diagnose(
        kantoku.clients,
        kantoku.topics,
        kantoku.inputs,
        rights,
        app=app,
        foreign=kantoku.topics_of_others,
        timers=timers,
    )
    findings = list(steps)
    rows = ({"check": f.check, "state": "failed" if f.error else "ok", "detail": f.detail} for f in findings)
    table(rows, output, wrapped=True)
    failed = [finding.error for finding in findings if finding.error is not None]
    if failed:
        raise typer.Exit(failed[0].exit_code)
