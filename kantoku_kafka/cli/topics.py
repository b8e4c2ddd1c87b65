"""``topics plan|create|check``: the topics of an app."""

from __future__ import annotations

from typing import Annotated

import typer

from kantoku_kafka.cli.common import Options
from kantoku_kafka.cli.output import table, tell
from kantoku_kafka.errors import TopicMismatch
from kantoku_kafka.kafka import topics

App = Annotated[str, typer.Argument(metavar="APP", help="MODULE:ATTRIBUTE of the Kantoku")]
Partitions = Annotated[int, typer.Option("-p", "--partitions", help="Partitions of each topic.", min=1)]
Output = Annotated[str, typer.Option("-o", "--output", help="table, json, jsonl")]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The topics of an app.")
    group.command("plan")(plan)
    group.command("create")(create)
    group.command("check")(check)
    app.add_typer(group, name="topics")


def plan(ctx: typer.Context, app: App, partitions: Partitions = 4, output: Output = "table") -> None:
    """Show what is there, what is missing and what is wrong; change nothing.

    Example: kantoku-kafka topics plan shop.tasks:kan
    """
    _show(_differences(ctx.obj, app, partitions), output)


def create(
    ctx: typer.Context,
    app: App,
    partitions: Partitions = 4,
    replication_factor: Annotated[int | None, typer.Option("-r", help="Default: the broker's.", min=1)] = None,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Ask nothing.")] = False,
) -> None:
    """Create the topics that are missing; those that exist are left as they are.

    Example: kantoku-kafka topics create shop.tasks:kan --yes
    """
    options: Options = ctx.obj
    differences = _differences(options, app, partitions)
    missing = [difference.plan for difference in differences if difference.missing]
    _warn(differences)
    if not missing:
        tell("all topics are there")
        return
    if not yes:
        _show(differences, "table")
        typer.confirm(f"Create {len(missing)} topics?", abort=True, err=True)
    for name in topics.create(options.app(app).clients, missing, replication_factor=replication_factor):
        tell(f"created {name}")


def check(ctx: typer.Context, app: App, partitions: Partitions = 4, output: Output = "table") -> None:
    """Exit with 7 if a topic is missing or its policy would break a promise.

    Example: kantoku-kafka topics check shop.tasks:kan
    """
    differences = _differences(ctx.obj, app, partitions)
    _show(differences, output)
    bad = [d.plan.name for d in differences if d.missing or d.problems]
    if bad:
        raise TopicMismatch(f"{len(bad)} topics are not as they should be: {', '.join(bad)}. See: topics plan")


def _differences(options: Options, app: str, partitions: int) -> list[topics.Difference]:
    kantoku = options.app(app)
    kantoku.clients.check()
    return topics.compare(
        kantoku.clients,
        topics.plan(kantoku.topics, kantoku.task_types, inputs=kantoku.inputs, partitions=partitions),
    )


def _show(differences: list[topics.Difference], output: str) -> None:
    table(
        (
            {
                "topic": d.plan.name,
                "state": "missing" if d.missing else "differs" if d.problems else "ok",
                "wanted": ", ".join(f"{k}={v}" for k, v in d.plan.config.items()),
                "problem": "; ".join(d.problems),
            }
            for d in differences
        ),
        output,
        wrapped=True,
    )


def _warn(differences: list[topics.Difference]) -> None:
    for difference in differences:
        for problem in difference.problems:
            tell(f"warning: {difference.plan.name}: {problem}; change it with your own tools")
