"""What all commands share: the global options, and the app that follows from them."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kantoku_kafka.app import DEFAULT_BOOTSTRAP_SERVERS, Kantoku
from kantoku_kafka.cli.output import PrintableFormatter
from kantoku_kafka.errors import UsageError
from kantoku_kafka.loading import load_app
from kantoku_kafka.names import Topics
from kantoku_kafka.settings import Connection

__all__ = [
    "Options",
    "configure_logging",
    "connected",
    "parse_labels",
    "parse_settings",
    "read_properties",
    "relax_garbage_collection",
]

_SERVERS = "bootstrap.servers"


@dataclass(kw_only=True)
class Options:
    """The global options, before a command looks at them."""

    bootstrap_servers: str | None = None
    namespace: str | None = None
    config: dict[str, str] = field(default_factory=dict)

    def connection(self, app: Kantoku | None = None) -> Connection:
        """Options win over the app's own settings."""
        own = app.connection if app else None
        config = dict(self.config)
        named = config.pop(_SERVERS, None)
        servers = self.bootstrap_servers or named or (own.bootstrap_servers if own else DEFAULT_BOOTSTRAP_SERVERS)
        return Connection(bootstrap_servers=servers, config={**(own.config if own else {}), **config})

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


@contextmanager
def connected(options: Options) -> Iterator[Kantoku]:
    """An app without task types, closed at the end; who interrupts it does not want to wait for that."""
    kantoku = options.client()
    relax_garbage_collection()
    try:
        yield kantoku
    except Exception:
        kantoku.close()
        raise
    kantoku.close()


def relax_garbage_collection() -> None:
    """Thousands of short-lived records in flight are no garbage cycles: looking for them cost a tenth of the time."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def read_properties(path: Path) -> dict[str, str]:
    """The settings in a file of ``key=value`` lines; blank lines and those that begin with ``#`` are left out.

    Raises:
        UsageError: the file cannot be read, or a line is none.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"--config: {path} cannot be read: {reason}.") from error
    settings = {}
    for number, line in enumerate(map(str.strip, lines), 1):
        if line and not line.startswith("#"):
            name, equals, value = line.partition("=")
            if not (equals and name.strip()):
                raise UsageError(f"--config: line {number} of {path} is not KEY=VALUE.")
            settings[name.strip()] = value.strip()
    return settings


def parse_settings(pairs: Iterable[str]) -> dict[str, str]:
    """``key=value`` options of ``-X``."""
    settings = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise UsageError(f"-X takes KEY=VALUE, not {pair!r}.")
        settings[name] = value
    return settings


def parse_labels(pairs: list[str] | None) -> dict[str, str]:
    """``NAME=VALUE`` options. Raises UsageError."""
    labels = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise UsageError(f"--label takes NAME=VALUE, not {pair!r}.")
        labels[name] = value
    return labels


def configure_logging(level: str) -> None:
    """Log to stderr; only the command line does so."""
    names = logging.getLevelNamesMapping()
    if level.upper() not in names:
        raise UsageError(f"--log-level takes one of {', '.join(n.lower() for n in names if n != 'NOTSET')}.")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PrintableFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=names[level.upper()], handlers=[handler])
