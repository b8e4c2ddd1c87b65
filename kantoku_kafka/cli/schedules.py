"""``schedules``: tasks that are spawned again and again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Annotated, Any

import typer

from kantoku_kafka.app import Kantoku
from kantoku_kafka.cli.common import connected, parse_labels
from kantoku_kafka.cli.output import out, table, tell
from kantoku_kafka.cli.parameters import Data, Key, Labels, Output, TaskType
from kantoku_kafka.cli.tasks import data_of
from kantoku_kafka.cli.times import parse_duration, parse_future, show_time
from kantoku_kafka.engine.recurrence import Recurrence
from kantoku_kafka.errors import EnvelopeError, UsageError
from kantoku_kafka.model import CatchUp, Overlap, Task, now_us
from kantoku_kafka.options import key as key_option
from kantoku_kafka.options import labels as labels_option
from kantoku_kafka.schedules import Planned

__all__ = ["register"]

Name = Annotated[str, typer.Argument(metavar="NAME")]
_SHOWN = 3


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Tasks that are spawned again and again.")
    group.command("list")(list_schedules)
    group.command("add")(add)
    group.command("remove")(remove)
    group.command("pause")(pause)
    group.command("resume")(resume)
    group.command("trigger")(trigger)
    app.add_typer(group, name="schedules")


def list_schedules(
    ctx: typer.Context,
    output: Output = "table",
) -> None:
    """Every schedule, and when it is due next. Also what became of it so far.

    Example: kantoku-kafka -n shop schedules list
    """
    with connected(ctx.obj) as kantoku:
        planned = kantoku.schedules.all()
        rows = [_row(one, _type_of(kantoku, one)) for one in planned]
        table(map(_short, rows) if output == "table" else rows, output)
        if not planned:
            tell(f"namespace {kantoku.namespace} has no schedules; add one: kantoku-kafka schedules add --help")


def add(
    ctx: typer.Context,
    name: Name,
    type: TaskType,  # noqa: A002
    data: Data = "",
    cron: Annotated[str | None, typer.Option(help="MINUTE HOUR DAY MONTH WEEKDAY, or @daily and its like.")] = None,
    every: Annotated[str | None, typer.Option(help="Instead of --cron: a duration like 90s, 10m, 6h.")] = None,
    time_zone: Annotated[str, typer.Option("--time-zone", "--tz", help="Of --cron, e.g. Europe/Berlin.")] = "UTC",
    jitter: Annotated[str, typer.Option(help="Each time is later by up to so much.")] = "0s",
    start: Annotated[str | None, typer.Option(help="No earlier times: a time, or a duration from now.")] = None,
    end: Annotated[str | None, typer.Option(help="No later times: the same.")] = None,
    overlap: Annotated[Overlap, typer.Option(help="If the last task has not ended.")] = Overlap.ALLOW,
    catch_up: Annotated[CatchUp, typer.Option(help="Of times that nobody was there to serve.")] = CatchUp.ONE,
    grace: Annotated[str, typer.Option(help="--catch-up skip: later than this is missed.")] = "60s",
    key: Key = None,
    label: Labels = None,
    paused: Annotated[bool, typer.Option("--paused", help="Not before: schedules resume.")] = False,
) -> None:
    """Spawn a task again and again. Changes the schedule of this name if there is one; its next times are shown.

    Example: kantoku-kafka -n shop schedules add nightly report --cron "30 2 * * *" --tz Europe/Berlin --overlap skip
    """
    task = Task(type, data_of(data)).with_(labels_option(**parse_labels(label)))
    if key is not None:
        task = task.with_(key_option(key))
    with connected(ctx.obj) as kantoku:
        schedule = kantoku.schedules.add(
            name,
            task,
            cron=cron,
            every_seconds=None if every is None else parse_duration(every, "--every").total_seconds(),
            time_zone=time_zone,
            jitter_seconds=parse_duration(jitter, "--jitter").total_seconds(),
            start_at=None if start is None else parse_future(start, "--start"),
            end_at=None if end is None else parse_future(end, "--end"),
            overlap=overlap,
            catch_up=catch_up,
            grace_seconds=parse_duration(grace, "--grace").total_seconds(),
            paused=paused,
        )
    for due_us in islice(_times(Recurrence(schedule)), _SHOWN):
        tell(f"due {_text(due_us)}")
    tell(f"schedule {name} {'set, but paused' if paused else 'set'}: {Recurrence(schedule).text}")


def remove(ctx: typer.Context, name: Name) -> None:
    """Spawn nothing of it any more, and forget it. Tasks that were spawned stay.

    Example: kantoku-kafka -n shop schedules remove nightly
    """
    with connected(ctx.obj) as kantoku:
        kantoku.schedules.remove(name)
    tell(f"schedule {name} removed")


def pause(ctx: typer.Context, name: Name) -> None:
    """Spawn nothing of it until it is resumed. What is due meanwhile is not made up for.

    Example: kantoku-kafka -n shop schedules pause nightly
    """
    with connected(ctx.obj) as kantoku:
        kantoku.schedules.pause(name)
    tell(f"schedule {name} paused; go on: kantoku-kafka schedules resume {name}")


def resume(ctx: typer.Context, name: Name) -> None:
    """Go on with the next time.

    Example: kantoku-kafka -n shop schedules resume nightly
    """
    with connected(ctx.obj) as kantoku:
        kantoku.schedules.resume(name)
        due_us = kantoku.schedules.get(name).next_due_us(now_us())
    tell(f"schedule {name} resumed, next {'never: it is over' if due_us is None else _text(due_us)}")


def trigger(ctx: typer.Context, name: Name) -> None:
    """Spawn its task now, whether it is paused or not. Prints the task id.

    Example: kantoku-kafka -n shop schedules trigger nightly
    """
    with connected(ctx.obj) as kantoku:
        out(kantoku.schedules.trigger(name).id)


def _times(recurrence: Recurrence) -> Iterator[int]:
    due_us = recurrence.next_after(now_us())
    while due_us is not None:
        yield due_us
        due_us = recurrence.next_after(due_us)


def _text(time_us: int | None) -> str | None:
    return None if time_us is None else show_time(time_us, lambda at: at.isoformat(" ", "seconds"))


def _type_of(kantoku: Kantoku, planned: Planned) -> str | None:
    """The type of a schedule's task; None, with a word about it, if the task cannot be read."""
    try:
        return kantoku.codec.decode_task(planned.schedule.task).type
    except EnvelopeError as error:
        tell(f"schedule {planned.schedule.name}: its task cannot be read by this version: {error}")
        return None


def _row(planned: Planned, task_type: str | None) -> dict[str, Any]:
    schedule, state = planned.schedule, planned.state
    try:
        when, due_us = planned.recurrence.text, planned.next_due_us(now_us())
    except UsageError as error:  # of another version of this program
        when, due_us = str(error), None
    return {
        "name": schedule.name,
        "type": task_type,
        "when": when,
        "paused": schedule.paused,
        "next": _text(due_us),
        "last": _text(state.due_at_us) if state else None,
        "last_task": state.task_id if state else None,
        "spawned": state.spawned if state else 0,
        "skipped": state.skipped if state else 0,
        "overlap": schedule.overlap.value,
        "catch_up": schedule.catch_up.value,
        "topic": schedule.topic,
    }


def _short(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """What fits a line."""
    return {
        "name": row["name"],
        "type": row["type"],
        "when": row["when"],
        "next": "paused" if row["paused"] else (row["next"] or "over")[:19],
        "last": (row["last"] or "")[:19],
        "spawned": row["spawned"],
        "skipped": row["skipped"],
    }
