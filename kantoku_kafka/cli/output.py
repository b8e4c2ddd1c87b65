"""What commands print: data to stdout, the rest to stderr, nothing that could steer the terminal."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from types import TracebackType
from typing import Any, Self

import typer

from kantoku_kafka.errors import UsageError

__all__ = ["PrintableFormatter", "Rows", "escaped", "one_line", "out", "printable", "table", "tell"]

_WHOLE = frozenset({"id", "restarted", "task_id"})
_LEAST_WIDTH = 16  # of what is cut: the type of an error, a time to the minute; beyond that the terminal breaks lines
_FORMS = ("table", "json", "jsonl")


def out(text: str | bytes) -> None:
    """Data to stdout, with a line end behind text. On a terminal, bytes are shown as text without control characters.

    Raises:
        typer.Exit: whoever read our output has seen enough.
    """
    try:
        if isinstance(text, str):
            typer.echo(text)
        elif sys.stdout.isatty():
            typer.echo(printable(text.decode("utf-8", "replace")))
        else:
            sys.stdout.flush()
            sys.stdout.buffer.write(text)
            sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise typer.Exit(0) from None


def tell(text: str) -> None:
    """Everything else to stderr."""
    typer.echo(printable(text), err=True)


def printable(text: str, kept: str = "\n\t") -> str:
    """Without control characters, but for ``kept``: nothing that came from a topic may steer the terminal."""
    return "".join(c if c in kept or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def one_line(text: str) -> str:
    """The same with blanks for line ends, for a cell or a line: messages of errors may have several lines."""
    return printable(text.replace("\n", " "), kept="")


def escaped(json_text: str) -> str:
    """The same JSON without control characters: escaped where :func:`printable` would replace them."""
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in json_text)


class PrintableFormatter(logging.Formatter):
    """Log lines without control characters: they quote what stands in topics."""

    def format(self, record: logging.LogRecord) -> str:
        """As ``logging.Formatter``."""
        return printable(super().format(record))


class Rows:
    """Rows as JSON lines, as they come; or at the end of the block, as a table or one JSON array.

    In a table, a list has a line for each of its items.

    Parameters:
        form: ``table``, ``json``, ``jsonl``, or ``plain``.
        plain: the command's own form, in which only the essence of each row is printed; default: it has none.
        wrapped: where a table is too wide, break its cells into lines instead of cutting them.

    Raises:
        UsageError: for any other form.
    """

    def __init__(self, form: str, plain: str | None = None, *, wrapped: bool = False) -> None:
        forms = [*_FORMS, *([plain] if plain else [])]
        if form not in forms:
            raise UsageError(f"-o takes {', '.join(forms)}, not {form!r}.")
        self._form = form
        self._plain = plain
        self._wrapped = wrapped
        self._rows: list[Mapping[str, Any]] = []

    def add(self, row: Mapping[str, Any], essence: str | bytes | None = None) -> None:
        """One row; all have the same names."""
        if self._form == "jsonl":
            out(json.dumps(row))
        elif self._form == self._plain:
            if essence is not None:
                out(essence)
        else:
            self._rows.append(row)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Print what was collected, whatever ended the block: it is true."""
        if self._form == "json":
            out(json.dumps(self._rows, indent=2))
        elif self._rows:
            head = list(self._rows[0])
            lines = [[[name] for name in head], *([_cell(row[name]) for name in head] for row in self._rows)]
            widths = _fitted(head, [max(len(text) for line in lines for text in line[i]) for i in range(len(head))])
            for line in lines:
                parts = [self._parts(cell, width) for cell, width in zip(line, widths, strict=True)]
                for cells in zip_longest(*parts, fillvalue=""):
                    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
                    out("  ".join(padded).rstrip())

    def _parts(self, cell: Iterable[str], width: int) -> list[str]:
        """The lines of a cell, none longer than the width."""
        if not self._wrapped:
            return [_cut(text, width) for text in cell]
        return [part for text in cell for part in (textwrap.wrap(text, width) if len(text) > width else [text])]


def table(rows: Iterable[Mapping[str, Any]], form: str, *, wrapped: bool = False) -> None:
    """All rows at once. ``wrapped`` as of :class:`Rows`."""
    with Rows(form, wrapped=wrapped) as printed:
        for row in rows:
            printed.add(row)


def _cell(value: object) -> list[str]:
    if isinstance(value, list):
        return [one_line(str(item)) for item in value] or [""]
    return ["" if value is None else one_line(str(value))]


def _fitted(head: Sequence[str], widths: Sequence[int]) -> list[int]:
    """Narrower columns where a terminal is, the widest first; ids stay whole, for people copy them."""
    fitted = list(widths)
    if not (sys.stdout.isatty() or "COLUMNS" in os.environ):
        return fitted
    limit = shutil.get_terminal_size().columns - 2 * (len(head) - 1)
    while sum(fitted) > limit:
        spare = [
            (w - max(len(name), _LEAST_WIDTH), i)
            for i, (name, w) in enumerate(zip(head, fitted, strict=True))
            if name not in _WHOLE
        ]
        most, widest = max(spare, default=(0, 0))
        if most <= 0:
            break
        fitted[widest] -= 1
    return fitted


def _cut(cell: str, width: int) -> str:
    return cell if len(cell) <= width else f"{cell[: width - 1]}\N{HORIZONTAL ELLIPSIS}"
