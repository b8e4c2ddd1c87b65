"""What all commands share: the global options, and the app that follows from them."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from kantoku_kafka.app import DEFAULT_NAMESPACE, Kantoku
from kantoku_kafka.cli.output import PrintableFormatter
from kantoku_kafka.configuration.sources import Configuration, command_line, load
from kantoku_kafka.errors import UsageError
from kantoku_kafka.loading import load_app
from kantoku_kafka.logs import JsonFormatter, log_unexpected

__all__ = ["LogFormat", "Options", "configure_logging", "connected", "parse_labels", "relax_garbage_collection"]

_log = logging.getLogger(__name__)
_TALKATIVE = ("httpx", "httpx2")  # one of them asks the schema registry: a line of level INFO for each request


@dataclass(kw_only=True)
class Options:
    """The global options. Files and the environment are looked at when a command asks for an app."""

    bootstrap_servers: str | None = None
    namespace: str | None = None
    config_file: Path | None = None
    profile: str | None = None
    settings: Sequence[str] = field(default=(), repr=False)
    otel: bool = False

    @cached_property
    def configuration(self) -> Configuration:
        """What counts of the command line, the environment and files. Raises UsageError."""
        given = command_line(self.settings, bootstrap_servers=self.bootstrap_servers, namespace=self.namespace)
        return load(given, config_file=self.config_file, profile=self.profile)

    def client(self) -> Kantoku:
        """An app without task types: enough to spawn and to read."""
        return self._configured(Kantoku(DEFAULT_NAMESPACE))

    def app(self, reference: str) -> Kantoku:
        """The user's app, with these options laid over it."""
        return self._configured(load_app(reference))

    def _configured(self, app: Kantoku) -> Kantoku:
        app.configure(self.configuration)
        if self.otel:
            from kantoku_kafka.observability.tracing import trace_app  # the extra

            trace_app(app)
        return app

    def flush_traces(self) -> None:
        """What a process does not do at its end that begins anew."""
        if self.otel:
            from kantoku_kafka.observability.tracing import flush  # the extra

            flush()


@contextmanager
def connected(options: Options, reference: str | None = None) -> Iterator[Kantoku]:
    """The user's app, or one without task types, closed at the end; who interrupts it does not want to wait for it."""
    kantoku = options.client() if reference is None else options.app(reference)
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


def parse_labels(pairs: list[str] | None) -> dict[str, str]:
    """``NAME=VALUE`` options. Raises UsageError."""
    labels = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise UsageError(f"--label takes NAME=VALUE, not {pair!r}.")
        labels[name] = value
    return labels


class LogFormat(StrEnum):
    """How log lines are written."""

    TEXT = "text"
    JSON = "json"


def configure_logging(level: str, form: LogFormat) -> None:
    """Log to stderr; only the command line does so."""
    names = logging.getLevelNamesMapping()
    if level.upper() not in names:
        raise UsageError(f"--log-level takes one of {', '.join(n.lower() for n in names if n != 'NOTSET')}.")
    handler = logging.StreamHandler(sys.stderr)
    text = PrintableFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if form is LogFormat.JSON else text)
    if form is LogFormat.JSON:
        log_unexpected()
    logging.basicConfig(level=names[level.upper()], handlers=[handler])
    if names[level.upper()] > logging.DEBUG:
        for library in _TALKATIVE:
            logging.getLogger(library).setLevel(logging.WARNING)
