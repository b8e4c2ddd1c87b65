"""Fills in what the documentation takes from the code: ``<!-- cli -->`` becomes the reference of the command line."""

from __future__ import annotations

import re
from typing import Any

import typer

MARK = "<!-- cli -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for every page."""
    return markdown.replace(MARK, command_line()) if MARK in markdown else markdown


def command_line() -> str:
    """Every command with its help, as ``--help`` prints it."""
    from kantoku_kafka.cli.main import app

    root = typer.main.get_command(app)
    return "\n".join(_pages(root, "kantoku-kafka", None))


def _pages(command: Any, name: str, parent: Any) -> list[str]:
    context = command.make_context(name.rsplit(" ", 1)[-1], [], parent=parent, resilient_parsing=True)
    pages = []
    if parent is None or not getattr(command, "commands", None):
        text = re.sub(r"\x1b\[[0-9;]*m", "", command.get_help(context))
        pages.append(f"## {name}\n\n```text\n{text.strip()}\n```\n")
    for sub in sorted(getattr(command, "commands", {})):
        pages += _pages(command.commands[sub], f"{name} {sub}", context)
    return pages
