"""A bar on long work, only where a person looks at it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

__all__ = ["progress"]


@contextmanager
def progress(label: str, length: int | None) -> Iterator[Callable[[int], None]]:
    """Yields a function that advances the bar; without a terminal on stderr, or for short work, it does nothing."""
    if length is None or length < 1000 or not sys.stderr.isatty():
        yield lambda _: None
        return
    with typer.progressbar(length=length, label=label, file=sys.stderr) as bar:
        yield bar.update
