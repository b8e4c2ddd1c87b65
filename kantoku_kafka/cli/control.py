"""``tasks cancel``, ``executors quiet|stop``: commands on the control topic, and what came of them."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from kantoku_kafka.app import Kantoku
from kantoku_kafka.cli.common import connected, parse_labels
from kantoku_kafka.cli.output import Rows, tell
from kantoku_kafka.cli.parameters import Labels, Output, Type
from kantoku_kafka.cli.views import BACKLOG, states
from kantoku_kafka.engine.cancel import QUIET, STOP, command_message
from kantoku_kafka.errors import NotFound, UsageError
from kantoku_kafka.kafka.heartbeats import heartbeats
from kantoku_kafka.model import Command, Status, now_us
from kantoku_kafka.replay.backlog import backlog

__all__ = ["cancel", "quiet", "stop"]

Names = Annotated[list[str] | None, typer.Argument(metavar="SLOT|ID", help="As `executors` shows them.")]
All = Annotated[bool, typer.Option("--all", help="All executors that run now.")]


def cancel(
    ctx: typer.Context,
    task_id: Annotated[list[str] | None, typer.Argument(metavar="ID")] = None,
    type: Type = None,  # noqa: A002
    label: Labels = None,
    reason: Annotated[str | None, typer.Option("--reason", help="Stands in the results.")] = None,
    timeout: Annotated[
        float, typer.Option("-t", "--timeout", help="Seconds to wait for the results.", min=0.0, max=3600.0)
    ] = 5.0,
    output: Output = "table",
) -> None:
    """Cancel tasks, by id or all of a type or label so far. They may wait, be delayed, between attempts, or run.

    Exit code 1: a task had ended before; 5: an id that nobody knows.

    Example: kantoku-kafka -n shop tasks cancel 0194f1c2-7c1e-7aaa-8bbb-123456789abc
    """
    ids = list(dict.fromkeys(task_id or ()))
    labels = parse_labels(label)
    if bool(ids) == bool(type or labels):
        raise UsageError("Say which tasks: ids, or else --type and --label.")
    with Rows(output) as rows, connected(ctx.obj) as kantoku:
        if not ids:
            kantoku.cancel(type=type, labels=labels, reason=reason)
            tell(
                "told the executors: such tasks end CANCELLED as they come to them; see: tasks list --status CANCELLED"
            )
            return
        ended = kantoku.find_results(ids)
        asked = [one for one in ids if one not in ended]
        if asked:
            kantoku.cancel(*asked, reason=reason)
        found = {**ended, **kantoku.find_results(asked, timeout_seconds=timeout)}
        unknown = _unknown(kantoku, [one for one in asked if one not in found])
        for one in ids:
            if one in found:
                rows.add({"id": one, "status": found[one].status.value, "ended_before": one in ended})
            elif one not in unknown:
                rows.add({"id": one, "status": None, "ended_before": False})
                tell(f"task {one} is cancelled when an executor comes to it: none has within {timeout:g} s")
    for one in ids:
        if one in found and found[one].status is not Status.CANCELLED:
            tell(f"task {one} had ended: {found[one].status}")
    if unknown:
        raise NotFound(f"Nobody knows of {len(unknown)} tasks, e.g. {unknown[0]}: another namespace (-n)?")
    if any(result.status is not Status.CANCELLED for result in found.values()):
        raise typer.Exit(1)


def quiet(ctx: typer.Context, executor: Names = None, everyone: All = False) -> None:
    """Let executors take no new tasks. They end what they run, leave the group, and wait for their stop.

    Nothing but a new start makes one take tasks again.

    Example: kantoku-kafka -n shop executors quiet worker-1.0
    """
    _steer(ctx, QUIET, executor, everyone)


def stop(ctx: typer.Context, executor: Names = None, everyone: All = False) -> None:
    """Let executors drain and end, as by SIGTERM. What supervises them may start them again.

    Example: kantoku-kafka -n shop executors stop --all
    """
    _steer(ctx, STOP, executor, everyone)


def _steer(ctx: typer.Context, kind: str, names: list[str] | None, everyone: bool) -> None:
    if bool(names) == everyone:
        raise UsageError("Say which executors: slots or ids, as `executors` shows them, or --all.")
    with connected(ctx.obj) as kantoku:
        alive, wanted = heartbeats(kantoku.clients, kantoku.topics.control), set(names or ())
        unknown = sorted(wanted.difference(*((beat.slot, beat.executor_id) for beat in alive)))
        if unknown or not alive:
            raise NotFound(f"No executor {', '.join(unknown) or 'of this namespace'} has said that it lives (-n?).")
        told = sorted(beat.executor_id for beat in alive if everyone or wanted & {beat.slot, beat.executor_id})
        chosen: list[str | None] = [None] if everyone else [*told]
        at_us, topic = now_us(), kantoku.topics.control
        kantoku.write([command_message(topic, Command(kind, at_us, executor_id=one)) for one in chosen])
        tell(f"told {', '.join(told)}: {kind}")


def _unknown(kantoku: Kantoku, ids: list[str]) -> list[str]:
    """Those of which neither the log nor an input has heard."""
    if not ids:
        return []
    with states(kantoku, live=False) as store:
        unheard = [one for one in ids if store.get(one) is None]
        if unheard:
            with closing(backlog(kantoku, store, BACKLOG)) as waiting:
                unheard = [one for one in unheard if waiting.get(one) is None]
    return unheard
