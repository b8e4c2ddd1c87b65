"""``spawn`` and ``result``: tasks from the shell."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, repeat
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from kantoku_kafka import options as task_options
from kantoku_kafka.cli.common import Options, connected, parse_labels
from kantoku_kafka.cli.output import Rows, tell
from kantoku_kafka.cli.parameters import Data, Key, Labels, TaskType, output_option
from kantoku_kafka.cli.progress import progress
from kantoku_kafka.cli.times import parse_duration, parse_future
from kantoku_kafka.errors import NotFound, UsageError
from kantoku_kafka.model import Option, Result, Task
from kantoku_kafka.replay.export import iso

_CHUNK = 2_000
_READ_BYTES = 1 << 16
_LONGEST_SECONDS = 366 * 86_400.0


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("spawn")(spawn)
    app.command("result")(result)


def spawn(
    ctx: typer.Context,
    type: TaskType,  # noqa: A002 - the name users type
    data: Data = "",
    key: Key = None,
    idempotency_key: Annotated[str | None, typer.Option(help="Derives the task id.")] = None,
    label: Labels = None,
    priority: Annotated[str | None, typer.Option(help="One of those that the type has.")] = None,
    at: Annotated[str | None, typer.Option(help="Not to start before: a time, or a duration from now.")] = None,
    expires: Annotated[str | None, typer.Option(help="EXPIRED if it could not start within: 90s, 2h.")] = None,
    count: Annotated[int, typer.Option(help="Spawn the same task so many times.", min=1)] = 1,
    lines: Annotated[bool, typer.Option("--lines", help="One task for each line of DATA.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the result and print it.")] = False,
    timeout: Annotated[
        float, typer.Option("-t", "--timeout", help="Seconds to wait with --wait.", min=0.0, max=_LONGEST_SECONDS)
    ] = 60.0,
    output: Annotated[
        str | None,
        output_option("ids", "data", "table", "json", "jsonl", about=" Default: ids; data with --wait."),
    ] = None,
) -> None:
    """Spawn tasks. Prints their ids once the broker has accepted them.

    Example: kantoku-kafka -n shop spawn resize @photo.jpg --wait > small.jpg
    """
    options: Options = ctx.obj
    chosen = _options(key, idempotency_key, label or [], priority, at, expires)
    chunks = _lines(data) if lines else _chunks(repeat(data_of(data), count))
    plain = "data" if wait else "ids"
    failed = 0
    with (
        Rows(output or plain, plain) as rows,
        connected(options) as kantoku,
        progress("spawning", None if lines else count) as advance,
    ):
        for chunk in chunks:
            spawned = kantoku.spawn_many([Task(type, each).with_(*chosen) for each in chunk])
            advance(len(spawned))
            if wait:
                completed = kantoku.as_completed(spawned, timeout_seconds=timeout)
                for done in _in_order([task.id for task in spawned], completed):
                    failed |= _show(done, rows)
            else:
                for s in spawned:
                    rows.add({"id": s.id, "topic": s.topic, "partition": s.partition, "offset": s.offset}, s.id)
    raise typer.Exit(failed)


def result(
    ctx: typer.Context,
    task_id: Annotated[list[str], typer.Argument(metavar="ID", help="Task ids; - reads them from stdin.")],
    timeout: Annotated[
        float,
        typer.Option(
            "-t", "--timeout", help="Seconds to wait for what is not there yet.", min=0.0, max=_LONGEST_SECONDS
        ),
    ] = 0.0,
    output: Annotated[str, output_option("data", "table", "json", "jsonl")] = "data",
) -> None:
    """Print the results of tasks. Exit code 0: succeeded, 1: a task failed, 5: there is no result.

    Example: kantoku-kafka -n shop result 0194f1c2-7c1e-7aaa-8bbb-123456789abc -t 10
    """
    ids = _stdin().read().decode("utf-8", "replace").split() if task_id == ["-"] else task_id
    failed = 0
    with Rows(output, "data") as rows, connected(ctx.obj) as kantoku:
        found = kantoku.find_results(ids, timeout_seconds=timeout)
        for one in ids:
            if one in found:
                failed |= _show(found[one], rows)
    missing = [one for one in ids if one not in found]
    if missing:
        raise NotFound(
            f"No result of {_named(missing)}: still waiting or running (-t SECONDS waits), "
            "never spawned in this namespace, or past the retention of the results topic."
        )
    raise typer.Exit(failed)


def _named(task_ids: Sequence[str]) -> str:
    return f"task {task_ids[0]}" if len(task_ids) == 1 else f"{len(task_ids)} tasks, e.g. {task_ids[0]}"


def _show(result: Result, rows: Rows) -> int:
    """One result; its error also to stderr. Returns the exit code: 0 if the task succeeded, else 1."""
    rows.add(_row(result), result.data if result.ok else None)
    if result.ok:
        return 0
    error = f": {result.error.type}: {result.error.message}" if result.error else ""
    tell(f"task {result.task_id}: {result.status}{error}")
    return 1


def _row(result: Result) -> dict[str, Any]:
    """A result as JSON can carry it."""
    try:
        data: dict[str, Any] = {"data": result.data.decode(), "data_hex": None}
    except UnicodeDecodeError:
        data = {"data": None, "data_hex": result.data.hex()}
    return {
        "task_id": result.task_id,
        "type": result.type,
        "status": result.status.value,
        **data,
        "error": result.error._asdict() if result.error else None,
        "attempt": result.attempt,
        "executor_id": result.executor_id,
        "finished_at": iso(result.finished_at_us),
        "source": result.source._asdict(),
    }


def _in_order(ids: Sequence[str], completed: Iterable[Result]) -> Iterator[Result]:
    """Results in the order of the ids, each as soon as it and those before it are there."""
    there: dict[str, Result] = {}
    at = 0
    for one in completed:
        there[one.task_id] = one
        while at < len(ids) and ids[at] in there:
            yield there[ids[at]]
            at += 1


def _options(
    key: str | None,
    idempotency_key: str | None,
    labels: list[str],
    priority: str | None,
    at: str | None,
    expires: str | None,
) -> list[Option]:
    chosen: list[Option] = []
    if key is not None:
        chosen.append(task_options.key(key))
    if idempotency_key is not None:
        chosen.append(task_options.idempotency_key(idempotency_key))
    if labels:
        chosen.append(task_options.labels(**parse_labels(labels)))
    if priority is not None:
        chosen.append(task_options.priority(priority))
    if at is not None:
        chosen.append(task_options.at(parse_future(at, "--at")))
    if expires is not None:
        chosen.append(task_options.expires(seconds=parse_duration(expires, "--expires").total_seconds()))
    return chosen


def data_of(data: str) -> bytes:
    """What DATA, - or @FILE stands for. Raises UsageError."""
    if data == "-":
        return _stdin().read()
    if data.startswith("@"):
        return _read(data[1:])
    return data.encode()


def _lines(data: str) -> Iterator[list[bytes]]:
    """The lines of DATA in chunks; those of a pipe as they come."""
    return _incoming(_stdin()) if data == "-" else _chunks(data_of(data).splitlines())


def _chunks(data: Iterable[bytes]) -> Iterator[list[bytes]]:
    rest = iter(data)
    while chunk := list(islice(rest, _CHUNK)):
        yield chunk


def _incoming(stream: BinaryIO) -> Iterator[list[bytes]]:
    unfinished = b""
    while data := stream.read1(_READ_BYTES):  # type: ignore[attr-defined]  # every buffered stream has it
        *lines, unfinished = (unfinished + data).split(b"\n")
        yield from _chunks(line.rstrip(b"\r") for line in lines)
    if unfinished:
        yield [unfinished.rstrip(b"\r")]


def _stdin() -> BinaryIO:
    if sys.stdin is None:
        raise UsageError("There is nothing to read: stdin is closed.")
    return sys.stdin.buffer


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
