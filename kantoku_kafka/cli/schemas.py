"""``schemas export|asyncapi|register|check|diff``: the schemas of an app, and a schema registry."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from kantoku_kafka.asyncapi import describe
from kantoku_kafka.avro import schemas
from kantoku_kafka.cli.common import Options
from kantoku_kafka.cli.output import out, table, tell
from kantoku_kafka.cli.parameters import App, DryRun, OptionalApp, Output
from kantoku_kafka.errors import TopicMismatch, UsageError
from kantoku_kafka.registry.subjects import State, Wanted, difference, state_of, wanted

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Schemas, and a schema registry.")
    group.command("export")(export)
    group.command("asyncapi")(asyncapi)
    group.command("register")(register_schemas)
    group.command("check")(check)
    group.command("diff")(diff)
    app.add_typer(group, name="schemas")


def export(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Is made if it is not there.")],
) -> None:
    """Write the schemas of the envelopes into a folder. Other languages need them. Older versions go into history/.

    Example: kantoku-kafka schemas export avro
    """
    source = schemas.directory()
    for path in sorted([*source.glob("*.avsc"), *source.glob("history/*.avsc")]):
        target = directory / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        out(str(target))


def asyncapi(
    ctx: typer.Context,
    app: App,
) -> None:
    """Write the topics of an app as an AsyncAPI 3 document. JSON: what its executors read and write, and the schemas.

    Example: kantoku-kafka schemas asyncapi shop.tasks:kan > asyncapi.json
    """
    options: Options = ctx.obj
    out(json.dumps(describe(options.app(app)), indent=2))


def register_schemas(
    ctx: typer.Context,
    app: OptionalApp = None,
    dry_run: DryRun = False,
    output: Output = "table",
) -> None:
    """Register the schemas of envelopes and payloads. Each under its subject; what is there already stays.

    Exit code 7 if one is not compatible with what stands under its subject; nothing is registered then.

    Example: kantoku-kafka schemas register shop.tasks:kan
    """
    found = _compatible(ctx.obj, app, output)
    if not dry_run:
        for one in found:
            one.registry.register(one.subject, one.schema)
        found = dict.fromkeys(found, State.REGISTERED)
    _show(found, output)


def check(ctx: typer.Context, app: OptionalApp = None, output: Output = "table") -> None:
    """Show how each schema stands in the registry. It is registered, new, compatible or incompatible. Changes nothing.

    Exit code 7 if one is incompatible: for continuous integration, before what writes it is deployed.

    Example: kantoku-kafka schemas check shop.tasks:kan
    """
    _show(_compatible(ctx.obj, app, output), output)


def diff(ctx: typer.Context, app: OptionalApp = None) -> None:
    """Show how each schema differs from the registered one. That is the newest; nothing where they do not differ.

    Example: kantoku-kafka schemas diff shop.tasks:kan
    """
    for one in _wanted(ctx.obj, app):
        for line in difference(one):
            out(line)


def _compatible(options: Options, app: str | None, output: str) -> dict[Wanted, State]:
    """How each schema stands; if one is incompatible, they are shown, and TopicMismatch is raised."""
    found = {one: state_of(one) for one in _wanted(options, app)}
    bad = ", ".join(one.subject for one, state in found.items() if state is State.INCOMPATIBLE)
    if bad:
        _show(found, output)
        raise TopicMismatch(f"Not compatible with what is registered: {bad}. schemas diff shows how they differ.")
    return found


def _show(found: Mapping[Wanted, State], output: str) -> None:
    rows = ({"subject": one.subject, "schema": one.name, "state": state.value} for one, state in found.items())
    table(rows, output)


def _wanted(options: Options, app: str | None) -> Iterable[Wanted]:
    kantoku = options.client() if app is None else options.app(app)
    found = wanted(kantoku)
    if not found:
        raise UsageError(
            "There is no schema registry: name it by -X schema.registry.url=URL, KANTOKU_KAFKA_SCHEMA_REGISTRY_URL, or "
            "in the app, Kantoku(registry=Registry(...))."
        )
    if app is None:
        tell("no APP is given: results and events only")
    return found
