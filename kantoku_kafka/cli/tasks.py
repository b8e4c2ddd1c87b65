"""``spawn`` and ``result``: tasks from the shell."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from kantoku_kafka import options as task_options
from kantoku_kafka.cli.common import Options, out, show_result, table
from kantoku_kafka.cli.progress import progress
from kantoku_kafka.client import Spawned
from kantoku_kafka.errors import NotFound, UsageError
from kantoku_kafka.model import Option, Task

_CHUNK = 2_000


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("spawn")(spawn)
    app.command("result")(result)


def spawn(
    ctx: typer.Context,
    type: Annotated[str, typer.Argument(metavar="TYPE", help="Task type.")],  # noqa: A002 - the name users type
    data: Annotated[
        str, typer.Argument(metavar="[DATA|-|@FILE]", help="The payload; - reads stdin, @FILE a file.")
    ] = "",
    key: Annotated[str | None, typer.Option("-k", "--key", help="Ordering key.")] = None,
    idempotency_key: Annotated[str | None, typer.Option(help="Derives the task id.")] = None,
    label: Annotated[list[str] | None, typer.Option("-l", "--label", help="NAME=VALUE; repeatable.")] = None,
    count: Annotated[int, typer.Option(help="Spawn the same task so many times.", min=1)] = 1,
    lines: Annotated[bool, typer.Option("--lines", help="One task for each line of the payload.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the result and print it.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait with --wait.")] = 60.0,
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="table, json, jsonl (default: ids, or data)")
    ] = None,
) -> None:
    """Spawn tasks; prints their ids once the broker has accepted them.

    Example: kantoku-kafka -n shop spawn resize @photo.jpg --wait > small.jpg
    """
    options: Options = ctx.obj
    kantoku = options.client()
    chosen = _options(key, idempotency_key, label or [])
    payloads = _lines(data) if lines else iter([_payload(data)] * count)
    failed = 0
    try:
        with progress("spawning", None if lines else count) as advance:
            while chunk := [
                Task(type, payload).with_(*chosen) for payload, _ in zip(payloads, range(_CHUNK), strict=False)
            ]:
                spawned = kantoku.spawn_many(chunk)
                advance(len(spawned))
                if wait:
                    for task in kantoku.gather(spawned, timeout_seconds=timeout):
                        failed |= show_result(task, output or "data")
                else:
                    _show_spawned(spawned, output)
    finally:
        kantoku.close()
    raise typer.Exit(failed)


def result(
    ctx: typer.Context,
    task_id: Annotated[list[str], typer.Argument(metavar="ID...", help="Task ids; - reads them from stdin.")],
    timeout: Annotated[float, typer.Option("-t", "--timeout", help="Seconds to wait for what is not there yet.")] = 0.0,
    output: Annotated[str, typer.Option("-o", "--output", help="data, table, json, jsonl")] = "data",
) -> None:
    """Print the results of tasks. Exit code 0: succeeded, 1: a task failed, 5: there is no result.

    Example: kantoku-kafka -n shop result 0194f1c2-7c1e-7aaa-8bbb-123456789abc -t 10
    """
    options: Options = ctx.obj
    kantoku = options.client()
    ids = [line.strip() for line in sys.stdin if line.strip()] if task_id == ["-"] else task_id
    failed = 0
    try:
        found = kantoku.find_results(ids, timeout_seconds=timeout)
        for one in ids:
            if one in found:
                failed |= show_result(found[one], output)
        missing = [one for one in ids if one not in found]
        if missing:
            raise NotFound(
                f"No result of {len(missing)} tasks, e.g. {missing[0]}: still waiting or running (-t SECONDS waits), "
                "never spawned in this namespace, or past the retention of the results topic."
            )
    finally:
        kantoku.close()
    raise typer.Exit(failed)


def _options(key: str | None, idempotency_key: str | None, labels: list[str]) -> list[Option]:
    chosen: list[Option] = []
    if key is not None:
        chosen.append(task_options.key(key))
    if idempotency_key is not None:
        chosen.append(task_options.idempotency_key(idempotency_key))
    for label in labels:
        name, equals, value = label.partition("=")
        if not (name and equals):
            raise UsageError(f"--label takes NAME=VALUE, not {label!r}.")
        chosen.append(task_options.labels(**{name: value}))
    return chosen


def _payload(data: str) -> bytes:
    if data == "-":
        return sys.stdin.buffer.read()
    if data.startswith("@"):
        return _read(data[1:])
    return data.encode("utf-8", "surrogateescape")


def _lines(data: str) -> Iterator[bytes]:
    if data == "-":
        return (line.rstrip(b"\r\n") for line in sys.stdin.buffer)
    return iter(_payload(data).splitlines())


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error


def _show_spawned(spawned: list[Spawned], output: str | None) -> None:
    if output is None:
        out("\n".join(task.id for task in spawned))
    else:
        table(
            ({"id": s.id, "topic": s.topic, "partition": s.partition, "offset": s.offset} for s in spawned),
            output,
        )
