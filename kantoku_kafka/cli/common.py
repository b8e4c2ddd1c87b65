"""What all commands share: global options, loading the app, errors and exit codes."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import typer

from kantoku_kafka.app import DEFAULT_BOOTSTRAP_SERVERS, Kantoku
from kantoku_kafka.errors import UsageError
from kantoku_kafka.loading import load_app
from kantoku_kafka.model import Result, Topics
from kantoku_kafka.settings import Connection

__all__ = ["Options", "out", "show_result", "table", "tell"]


@dataclass(kw_only=True)
class Options:
    """The global options, before a command looks at them."""

    bootstrap_servers: str | None = None
    namespace: str | None = None
    config: dict[str, str] = field(default_factory=dict)

    def connection(self, app: Kantoku | None = None) -> Connection:
        """Options win over the app's own settings."""
        own = app.connection if app else None
        servers = self.bootstrap_servers or (own.bootstrap_servers if own else DEFAULT_BOOTSTRAP_SERVERS)
        return Connection(bootstrap_servers=servers, config={**(own.config if own else {}), **self.config})

    def client(self) -> Kantoku:
        """An app without task types: enough to spawn and to read."""
        app = Kantoku(self.namespace or "kantoku")
        app.connect_to(self.connection())
        return app

    def app(self, reference: str) -> Kantoku:
        """The user's app, with these options laid over it."""
        app = load_app(reference)
        app.connect_to(self.connection(app))
        if self.namespace is not None:
            app.topics = Topics(namespace=self.namespace, overrides=app.topics.overrides)
        return app


def parse_settings(pairs: Iterable[str]) -> dict[str, str]:
    """``key=value`` options of ``-X``."""
    settings = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise UsageError(f"-X takes KEY=VALUE, not {pair!r}.")
        settings[name] = value
    return settings


def configure_logging(level: str) -> None:
    """Log to stderr; only the command line does so."""
    names = logging.getLevelNamesMapping()
    if level.upper() not in names:
        raise UsageError(f"--log-level takes one of {', '.join(n.lower() for n in names if n != 'NOTSET')}.")
    logging.basicConfig(
        stream=sys.stderr,
        level=names[level.upper()],
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )


def out(text: str | bytes) -> None:
    """Data to stdout."""
    if isinstance(text, bytes):
        sys.stdout.flush()
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()
    else:
        typer.echo(text)


def tell(text: str) -> None:
    """Everything else to stderr."""
    typer.echo(printable(text), err=True)


def printable(text: str) -> str:
    """Without control characters: nothing that came from a topic may steer the terminal."""
    return "".join(c if c in "\n\t" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def table(rows: Iterable[Mapping[str, Any]], output: str) -> None:
    """Rows as a table, as one JSON array, or as JSON lines."""
    listed = [dict(row) for row in rows]
    if output == "json":
        out(json.dumps(listed, indent=2))
    elif output == "jsonl":
        for row in listed:
            out(json.dumps(row))
    elif output != "table":
        raise UsageError(f"-o takes table, json or jsonl, not {output!r}.")
    elif listed:
        head = list(listed[0])
        lines = [head, *([printable(str(row[name])) for name in head] for row in listed)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        for line in lines:
            out("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def result_row(result: Result) -> dict[str, Any]:
    """A result as JSON can carry it."""
    try:
        data: dict[str, Any] = {"data": result.data.decode()}
    except UnicodeDecodeError:
        data = {"data_hex": result.data.hex()}
    return {
        "task_id": result.task_id,
        "type": result.type,
        "status": result.status.value,
        **data,
        "error": result.error._asdict() if result.error else None,
        "attempt": result.attempt,
        "executor_id": result.executor_id,
        "finished_at": result.finished_at.isoformat(),
        "source": result.source._asdict(),
    }


def show_result(result: Result, output: str) -> int:
    """Print a result: its bare data, or all of it as JSON. Returns the exit code: 0 if the task succeeded, else 1."""
    if output == "data":
        if result.ok:
            out(result.data + (b"\n" if sys.stdout.isatty() else b""))
    else:
        table([result_row(result)], output)
    if not result.ok:
        error = result.error
        tell(f"task {result.task_id}: {result.status}" + (f": {error.type}: {error.message}" if error else ""))
    return 0 if result.ok else 1


def environment(name: str) -> str | None:
    """A ``KANTOKU_*`` variable."""
    return os.environ.get(f"KANTOKU_{name}")
