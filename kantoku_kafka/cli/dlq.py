"""``dlq list|show|redrive|purge``: the dead letters."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from kantoku_kafka.cli.common import connected
from kantoku_kafka.cli.output import Rows, out, printable, tell
from kantoku_kafka.cli.parameters import DryRun, Output, PageOutput, Since, Type, Until, Yes
from kantoku_kafka.cli.times import parse_time, parse_time_us
from kantoku_kafka.cli.views import states
from kantoku_kafka.errors import NotFound, UsageError
from kantoku_kafka.kafka.scan import delete_before
from kantoku_kafka.replay.letters import Letter, LetterFilter, letters, redrive

Error = Annotated[str | None, typer.Option("--error", help="Only of this error type, e.g. ConnectionError.")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="TASK-ID")]

_CHUNK = 200


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Records that came to nothing, and why.")
    group.command("list")(list_)
    group.command("show")(show)
    group.command("redrive")(redrive_)
    group.command("purge")(purge)
    app.add_typer(group, name="dlq")


def list_(
    ctx: typer.Context,
    task_id: Ids = None,
    type: Type = None,  # noqa: A002
    error: Error = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option("--limit", help="So many; 0: all.", min=0)] = 50,
    output: Output = "table",
) -> None:
    """List dead letters, each partition's oldest first.

    Example: kantoku-kafka -n shop dlq list --type resize --since 24h
    """
    wanted, shown, total = _filter(task_id, type, error, since, until), 0, 0
    with Rows(output) as rows, connected(ctx.obj) as kantoku:
        for letter in letters(kantoku, wanted):
            total += 1
            if not limit or shown < limit:
                shown += 1
                rows.add(_row(letter))
        if total > shown:
            tell(f"{shown} of {total} letters; --limit 0 shows all")
        elif not total:
            tell(f"no dead letter of namespace {kantoku.namespace} matches")


def show(
    ctx: typer.Context,
    place: Annotated[str, typer.Argument(metavar="ID|PARTITION:OFFSET")],
    output: PageOutput = "text",
) -> None:
    """Show one dead letter whole: cause, headers, task, bytes.

    Example: kantoku-kafka -n shop dlq show 2:1017
    """
    partition, colon, offset = place.partition(":")
    numbers = (int(partition), int(offset)) if colon and partition.isdecimal() and offset.isdecimal() else None
    with Rows("json" if output == "json" else "table") as rows, connected(ctx.obj) as kantoku:
        for letter in letters(kantoku, LetterFilter(ids=None if numbers else frozenset({place}))):
            if numbers in (None, (letter.partition, letter.offset)):
                page = _page(letter)
                if output == "json":
                    rows.add(page)
                else:
                    out(printable("".join(f"{name:<16} {value}\n" for name, value in page.items())))
                return
    raise NotFound(f"There is no dead letter {place}: another namespace (-n), or past its retention?")


def redrive_(
    ctx: typer.Context,
    task_id: Ids = None,
    type: Type = None,  # noqa: A002
    error: Error = None,
    since: Since = None,
    until: Until = None,
    everything: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
    rate: Annotated[float, typer.Option("--rate", help="At most so many a second; 0: as fast as it goes.", min=0)] = 0,
    dry_run: DryRun = False,
    output: Output = "table",
) -> None:
    """Put dead letters back to work. To repeat it, or to go on after an interruption, doubles nothing.

    A task that had its result is spawned anew, under an id that follows from the old one; a record that could not be
    read, and can be now, goes back as it was. Exit code 7: the input of a letter is gone.

    Example: kantoku-kafka -n shop dlq redrive --type resize --error ConnectionError --dry-run
    """
    if not (task_id or type or error or since or until or everything):
        raise UsageError("Say which letters: ids, --type, --error, --since, --until, or --all.")
    wanted = _filter(task_id, type, error, since, until)
    chunk = _CHUNK if not rate else max(1, min(_CHUNK, int(rate)))
    redriven = known = unread = 0
    with Rows(output) as rows, connected(ctx.obj) as kantoku:
        found = letters(kantoku, wanted)  # before the states: they know what had ended by then
        with states(kantoku, live=False) as store:
            for fate in redrive(kantoku, store, found, dry_run=dry_run, chunk=chunk, pause=_pause(rate)):
                redriven += fate.task_id is not None and not fate.known
                known += fate.known
                unread += fate.task_id is None
                old, place = fate.letter.task, _place(fate.letter)
                rows.add({"letter": place, "was": old and old.id, "id": fate.task_id, "note": fate.reason})
    tell(f"{redriven} letters {'would be ' if dry_run else ''}redriven, {known} were before, {unread} cannot be")


def purge(
    ctx: typer.Context,
    until: Annotated[
        str | None, typer.Option("--until", help="Those written before: ISO 8601, or how long ago: 2h.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
    yes: Yes = False,
) -> None:
    """Delete dead letters for good. All, or those written before a time: Kafka can delete no others.

    Example: kantoku-kafka -n shop dlq purge --until 7d --yes
    """
    if bool(until) == everything:
        raise UsageError("Say which letters: --until TIME, or --all.")
    time_ms = None if until is None else round(parse_time(until, "--until").timestamp() * 1_000)
    with connected(ctx.obj) as kantoku:
        if not yes and not typer.confirm(f"Delete dead letters of {kantoku.topics.dlq} for good?", err=True):
            raise typer.Abort
        tell(f"deleted {delete_before(kantoku.clients, kantoku.topics.dlq, time_ms)} offsets")


def _pause(rate: float) -> Callable[[int], None]:
    return (lambda count: time.sleep(count / rate)) if rate else (lambda _: None)


def _filter(
    ids: list[str] | None, task_type: str | None, error: str | None, since: str | None, until: str | None
) -> LetterFilter:
    return LetterFilter(
        task_type=task_type,
        error=error,
        since_us=parse_time_us(since, "--since"),
        until_us=parse_time_us(until, "--until"),
        ids=frozenset(ids) if ids else None,
    )


def _place(letter: Letter) -> str:
    return f"{letter.partition}:{letter.offset}"


def _row(letter: Letter) -> Mapping[str, Any]:
    task, cause = letter.task, letter.cause
    return {
        "letter": _place(letter),
        "id": task and task.id,
        "type": task and task.type,
        "attempt": cause.get("attempt"),
        "failed_at": cause.get("failed-at", "")[:19],
        "error": f"{cause.get('error-type', '')}: {cause.get('error-message', '')}",
    }


def _page(letter: Letter) -> Mapping[str, Any]:
    try:
        value = letter.value.decode()
    except UnicodeDecodeError:
        value = letter.value.hex()
    task = letter.task
    return {
        "letter": _place(letter),
        **{name.replace("-", "_"): text for name, text in letter.cause.items()},
        "key": None if letter.key is None else letter.key.decode("utf-8", "backslashreplace"),
        "headers": {name: (raw or b"").decode("utf-8", "backslashreplace") for name, raw in letter.headers},
        "task_id": task and task.id,
        "type": task and task.type,
        "data": (task.data if task else b"").decode("utf-8", "backslashreplace"),
        "value": value if task is None else letter.value.hex(),
    }
