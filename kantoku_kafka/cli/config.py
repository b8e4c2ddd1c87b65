"""``config show|convert``: what counts and where it comes from; a file of settings in another form."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from kantoku_kafka.app import Kantoku
from kantoku_kafka.cli.common import Options
from kantoku_kafka.cli.output import out, table, tell
from kantoku_kafka.cli.parameters import OptionalApp, Output
from kantoku_kafka.configuration.known import hints
from kantoku_kafka.configuration.managed import note
from kantoku_kafka.configuration.masks import REGISTRY_PREFIX, masked
from kantoku_kafka.configuration.profiles import DEFAULT_PROFILE
from kantoku_kafka.configuration.sources import Configuration, read_file
from kantoku_kafka.configuration.writing import Form, converted


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Settings: what counts, and from where.")
    group.command("show")(show)
    group.command("convert")(convert)
    app.add_typer(group, name="config")


def show(
    ctx: typer.Context,
    app: OptionalApp = None,
    output: Output = "table",
) -> None:
    """Show every setting that was given, and its origin. Secrets are masked, references are not looked up; no broker is
    asked.

    Example: kantoku-kafka config show -F client.properties
    """
    options: Options = ctx.obj
    kantoku = options.app(app) if app is not None else options.client()
    table(_rows(kantoku, options.configuration, "app" if app is not None else "default"), output)


def _rows(kantoku: Kantoku, given: Configuration, own: str) -> Iterator[dict[str, str]]:
    connection = kantoku.connection
    topics = {f"topics.{role}": name for role, name in kantoku.topics.overrides.items()}
    origins = {
        "namespace": given.namespace.origin if given.namespace else own,
        **{f"topics.{role}": setting.origin for role, setting in given.topics.items()},
        **{f"{REGISTRY_PREFIX}{name}": setting.origin for name, setting in given.registry_settings(connection).items()},
        **connection.origins,
    }
    registry = {} if kantoku.registry is None else kantoku.registry.settings
    shown = {
        "bootstrap.servers": masked("bootstrap.servers", connection.bootstrap_servers),
        "namespace": kantoku.namespace,
        **topics,
        **{key: masked(key, value) for key, value in sorted({**connection.config, **registry}.items())},
    }
    unknown = dict(hints(connection.config))
    for key, value in shown.items():
        yield {"setting": key, "value": value, "origin": origins.get(key, "app"), "note": unknown.get(key) or note(key)}


def convert(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Settings of librdkafka or of a Java client, or .toml")],
    to: Annotated[Form, typer.Option(help="The form that is printed.")] = Form.LIBRDKAFKA,
    resolve: Annotated[bool, typer.Option("--resolve", help="Look references up: secrets are printed.")] = False,
) -> None:
    """Print a file of settings in another form; notices go to stderr. Secrets that stand in it are printed as they
    are, references stay references. --profile names the profile that is read from, or written to, TOML.

    Example: kantoku-kafka config convert --to toml client.properties
    """
    profile = ctx.obj.profile
    text, notices = converted(read_file(file, profile), to, profile or DEFAULT_PROFILE, resolve=resolve)
    for notice in notices:
        tell(f"{file}: {notice}.")
    out(text.removesuffix("\n"))
