"""``events tail|replay|snapshot|prune``: the audit topic."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from kantoku_kafka.app import Kantoku
from kantoku_kafka.cli.common import connected, parse_labels
from kantoku_kafka.cli.output import Rows, escaped, one_line, out, tell
from kantoku_kafka.cli.parameters import DryRun, Labels, Output, Since, Status, Type, output_option
from kantoku_kafka.cli.times import parse_time
from kantoku_kafka.errors import UsageError
from kantoku_kafka.kafka.topics import retention_warnings, topic_identity
from kantoku_kafka.model import Event
from kantoku_kafka.replay.again import copy_events
from kantoku_kafka.replay.export import (
    EventSink,
    JsonLines,
    ParquetFile,
    SqliteFile,
    complete,
    event_json,
    iso,
    state_row,
)
from kantoku_kafka.replay.fold import LoggedEvent, Phase
from kantoku_kafka.replay.log import EventFilter
from kantoku_kafka.replay.prune import prune
from kantoku_kafka.replay.query import TaskQuery

TaskId = Annotated[str | None, typer.Option("--task", help="Only of the task with this id.")]
Name = Annotated[str | None, typer.Option("--name", help="Only of this name, e.g. sent_outputs.")]

_SINKS: Mapping[str, Callable[[Path], EventSink]] = {"sqlite": SqliteFile, "parquet": ParquetFile}


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The log of every step of every task.")
    group.command("tail")(tail)
    group.command("replay")(replay)
    group.command("snapshot")(snapshot)
    group.command("prune")(prune_)
    app.add_typer(group, name="events")


def tail(
    ctx: typer.Context,
    type: Type = None,  # noqa: A002 - the name users type
    task: TaskId = None,
    name: Name = None,
    status: Status = None,
    label: Labels = None,
    since: Since = None,
    output: Annotated[str, output_option("lines", "jsonl")] = "lines",
) -> None:
    """Show events as they happen, until Ctrl-C.

    Example: kantoku-kafka -n shop events tail --status FAILED
    """
    wanted = _filter(task, type, name, status, label)
    with connected(ctx.obj) as kantoku:
        start = _time(since, "--since")
        for batch in kantoku.events.tail(since=start, wanted=wanted).batches():
            for logged in batch:
                out(_json(logged) if output == "jsonl" else _line(logged.event))


def replay(
    ctx: typer.Context,
    type: Type = None,  # noqa: A002
    task: TaskId = None,
    name: Name = None,
    status: Status = None,
    label: Labels = None,
    since: Since = None,
    until: Annotated[str | None, typer.Option("--until", help="As --since; default: all that is there now.")] = None,
    since_offsets: Annotated[
        Path | None,
        typer.Option(
            "--since-offsets",
            metavar="FILE",
            help="Go on where the last replay with this file ended; it is made, and renewed at the end.",
        ),
    ] = None,
    output: Annotated[str, output_option("jsonl", *_SINKS)] = "jsonl",
    file: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Default for jsonl: stdout.")] = None,
    into: Annotated[str | None, typer.Option("--into", metavar="TOPIC", help="Copy them to another topic.")] = None,
) -> None:
    """Write events from a point to a fixed end. It is fixed when the command starts.

    Example: kantoku-kafka -n shop events replay --since 24h -o sqlite --out day.db
    """
    if into is not None and (file is not None or output != "jsonl"):
        raise UsageError("--into copies events as they are: leave -o and --out away.")
    if output != "jsonl" and file is None:
        raise UsageError(f"-o {output} takes --out FILE.")
    if since and since_offsets:
        raise UsageError("--since and --since-offsets exclude each other.")
    wanted = _filter(task, type, name, status, label)
    with connected(ctx.obj) as kantoku:
        warn_of_gaps(kantoku)
        begin: datetime | Mapping[int, int] | None = _time(since, "--since")
        if since_offsets is not None:
            identity = topic_identity(kantoku.clients, kantoku.events.topic)
            begin = _read_offsets(since_offsets, identity)
        log = kantoku.events.replay(since=begin, until=_time(until, "--until"), wanted=wanted)
        if into is not None:
            if into == kantoku.events.topic:
                raise UsageError(f"--into {into}: that is the topic that is read.")
            tell(f"{copy_events(kantoku, log, into)} events copied to {into}")
        else:
            with _sink(output, file) as sink:
                count = 0
                for batch in log.batches():
                    sink.write(batch)
                    count += len(batch)
                sink.close()
            if file is not None:
                tell(f"{count} events in {file}")
        if since_offsets is not None:
            read = begin if isinstance(begin, dict) else {}
            _write_offsets(since_offsets, identity, {**read, **log.offsets})
        warn_of_unreadable(log.unreadable)


def snapshot(
    ctx: typer.Context,
    type: Type = None,  # noqa: A002
    status: Status = None,
    phase: Annotated[Phase | None, typer.Option("--phase", help="Only tasks in this phase.")] = None,
    label: Labels = None,
    as_of: Annotated[str | None, typer.Option("--as-of", help="ISO 8601, or how long ago: 2h. Default: now.")] = None,
    output: Output = "jsonl",
    file: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="JSON lines go there.")] = None,
) -> None:
    """Print the state of every task, now or as of a time. It is folded from the log.

    Example: kantoku-kafka -n shop events snapshot --as-of 2026-01-31T08:00:00Z > tasks.jsonl
    """
    if file is not None and output != "jsonl":
        raise UsageError("--out takes JSON lines: leave -o away.")
    query = TaskQuery(task_type=type, status=status, phase=phase, labels=parse_labels(label))
    with connected(ctx.obj) as kantoku:
        warn_of_gaps(kantoku)
        with kantoku.events.snapshot(as_of=_time(as_of, "--as-of")) as store:
            warn_of_unreadable(store.unreadable)
            if file is None:
                with Rows(output) as rows:
                    for state in store.find(query):
                        rows.add(state_row(state))
            else:
                with complete(file) as partial, partial.open("w", encoding="utf-8") as stream:
                    for state in store.find(query):
                        stream.write(json.dumps(state_row(state), ensure_ascii=False) + "\n")


def prune_(
    ctx: typer.Context,
    older_than: Annotated[
        str, typer.Option("--older-than", help="Tasks that ended longer ago: 30d; or a time, ISO 8601.")
    ],
    type: Type = None,  # noqa: A002
    limit: Annotated[int, typer.Option("--limit", help="At most so many tasks, the oldest first.", min=1)] = 1_000_000,
    dry_run: DryRun = False,
) -> None:
    """Forget finished tasks. Tombstones for their events, which compaction then removes; can be repeated at any time.

    Nothing of a task that has not ended goes, nor what says that a dead letter was redriven, as long as the letter is
    there. Results go by the retention of their own topic.

    Example: kantoku-kafka -n shop events prune --older-than 30d
    """
    before_us = round(parse_time(older_than, "--older-than").timestamp() * 1_000_000)
    query = TaskQuery(task_type=type, phase=Phase.FINISHED, finished_before_us=before_us)
    with connected(ctx.obj) as kantoku, kantoku.events.snapshot() as store:
        pruned = prune(kantoku, store, query, limit, dry_run=dry_run)
        tell(f"tasks that would be pruned: {pruned}" if dry_run else f"tasks pruned: {pruned}")


def _filter(
    task: str | None, type_: str | None, name: str | None, status: str | None, labels: list[str] | None
) -> EventFilter:
    return EventFilter(task_id=task, type=type_, name=name, status=status, labels=parse_labels(labels))


def _time(text: str | None, option: str) -> datetime | None:
    return None if text is None else parse_time(text, option)


def _line(event: Event) -> str:
    error = f"  {event.error.type}: {event.error.message}" if event.error else ""
    more = "".join(f"  {name}={value}" for name, value in event.attributes.items())
    text = f"{iso(event.at_us)}  {event.task_id}  {event.type}  {event.name}"
    attempt = f"  attempt {event.attempt}" if event.attempt > 1 else ""
    where = f"  {event.executor_id}" if event.executor_id else ""
    return one_line(f"{text}{attempt}{more}{where}{error}")


def _json(logged: LoggedEvent) -> str:
    """A line of JSON; on a terminal, what could steer it is escaped."""
    text = event_json(logged)
    return escaped(text) if sys.stdout.isatty() else text


@contextmanager
def _sink(output: str, file: Path | None) -> Iterator[EventSink]:
    if file is None:
        with _stdout() as stream:
            yield JsonLines(stream, _json)
        return
    with complete(file) as partial:
        if output != "jsonl":
            yield _SINKS[output](partial)
            return
        with partial.open("wb") as stream:
            yield JsonLines(stream)


@contextmanager
def _stdout() -> Iterator[BinaryIO]:
    """Who reads us may stop when it has seen enough."""
    sys.stdout.flush()
    try:
        yield sys.stdout.buffer
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None


def _read_offsets(path: Path, identity: str) -> dict[int, int] | None:
    """Where the last replay ended; None if there is no such file yet."""
    try:
        kept = json.loads(path.read_text("utf-8"))
        if kept["topic"] == identity:
            return {int(partition): int(offset) for partition, offset in kept["offsets"].items()}
        other = kept["topic"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"--since-offsets: {path} is not a file of a former replay; remove it.") from error
    raise UsageError(f"--since-offsets: {path} is of topic {other}, not of {identity}; take another file.")


def _write_offsets(path: Path, identity: str, offsets: Mapping[int, int]) -> None:
    with complete(path) as partial:
        partial.write_text(json.dumps({"topic": identity, "offsets": offsets}) + "\n", "utf-8")


def warn_of_unreadable(count: int) -> None:
    """Say that so many records are missing."""
    if count:
        tell(
            f"warning: records left out: {count}; they are no events of a schema that this version knows. "
            "Upgrade kantoku-kafka if newer executors write to the topic."
        )


def warn_of_gaps(kantoku: Kantoku) -> None:
    """Say what an audit topic that is not compacted has lost. Raises as :meth:`Clients.metadata`."""
    kantoku.clients.check()
    for warning in retention_warnings(kantoku.clients, kantoku.events.topic):
        tell(f"warning: {warning}")
