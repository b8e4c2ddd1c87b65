"""Arguments and options that several commands take: declared once, so that each has one name and one meaning."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kantoku_kafka.errors import UsageError
from kantoku_kafka.model import Status as ResultStatus

__all__ = [
    "App",
    "Data",
    "DryRun",
    "Key",
    "Labels",
    "OptionalApp",
    "Output",
    "PageOutput",
    "Since",
    "Status",
    "TaskType",
    "Type",
    "Until",
    "Yes",
    "output_option",
]


def output_option(*forms: str, about: str = "") -> Any:
    """``-o``, which takes one of these; any other is refused before the command begins."""

    def checked(form: str | None) -> str | None:
        if form is not None and form not in forms:
            raise UsageError(f"-o takes {', '.join(forms)}, not {form!r}.")
        return form

    return typer.Option("-o", "--output", metavar="|".join(forms), callback=checked, help=f"Form of the output.{about}")


App = Annotated[str, typer.Argument(metavar="APP", help="MODULE:ATTRIBUTE of the Kantoku, e.g. shop.tasks:kan.")]
OptionalApp = Annotated[
    str | None,
    typer.Argument(
        metavar="APP", help="MODULE:ATTRIBUTE of the Kantoku, for what only the app says: its task types and topics."
    ),
]
TaskType = Annotated[str, typer.Argument(metavar="TYPE", help="Task type.")]
Data = Annotated[
    str, typer.Argument(metavar="DATA|-|@FILE", help="What the task is given; - reads stdin, @FILE a file.")
]

Output = Annotated[str, output_option("table", "json", "jsonl")]
PageOutput = Annotated[str, output_option("text", "json")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
Yes = Annotated[bool, typer.Option("-y", "--yes", help="Ask nothing.")]

Key = Annotated[str | None, typer.Option("-k", "--key", help="Ordering key.")]
Labels = Annotated[list[str] | None, typer.Option("-l", "--label", metavar="NAME=VALUE", help="Repeatable.")]
Type = Annotated[str | None, typer.Option("--type", help="Only of this task type.")]
Status = Annotated[
    ResultStatus | None,
    typer.Option("--status", case_sensitive=False, help="Only results of this status, e.g. FAILED."),
]
Since = Annotated[str | None, typer.Option("--since", help="ISO 8601, or how long ago: 2h.")]
Until = Annotated[str | None, typer.Option("--until", help="As --since.")]
