"""``tasks list|show|restart``: what the log says of tasks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from kantoku_kafka.app import Kantoku
from kantoku_kafka.cli.common import connected, parse_labels
from kantoku_kafka.cli.events import warn_of_gaps, warn_of_unreadable
from kantoku_kafka.cli.output import Rows, out, printable, tell
from kantoku_kafka.cli.page import page, shown_data, when
from kantoku_kafka.cli.parameters import DryRun, Labels, Output, PageOutput, Since, Status, Type, Until
from kantoku_kafka.cli.times import parse_time_us
from kantoku_kafka.errors import KantokuError, NotFound, UsageError
from kantoku_kafka.replay.again import originals
from kantoku_kafka.replay.backlog import backlog
from kantoku_kafka.replay.export import iso, state_row
from kantoku_kafka.replay.fold import Phase, TaskState
from kantoku_kafka.replay.query import TaskQuery
from kantoku_kafka.replay.store import TaskStore

Text = Annotated[str | None, typer.Option("--text", help="Occurs in the id, an error or an attribute.")]
Live = Annotated[bool, typer.Option("--live", help="Read the whole log instead of the local view.")]

_CHUNK = 200
BACKLOG = 10_000


def tasks_group() -> typer.Typer:
    """The commands of ``tasks`` that read the log."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Tasks, as the log of events has them.")
    group.command("list")(list_)
    group.command("show")(show)
    group.command("restart")(restart)
    return group


def list_(
    ctx: typer.Context,
    type: Type = None,  # noqa: A002
    status: Status = None,
    phase: Annotated[Phase | None, typer.Option("--phase", help="Only tasks in this phase.")] = None,
    label: Labels = None,
    since: Since = None,
    until: Until = None,
    text: Text = None,
    limit: Annotated[int, typer.Option("--limit", help="The newest so many; 0: all.", min=0)] = 50,
    inputs: Annotated[
        bool, typer.Option("--inputs", help="Also tasks that stand on their inputs and have no event yet.")
    ] = False,
    live: Live = False,
    output: Output = "table",
) -> None:
    """List tasks, the newest first.

    Example: kantoku-kafka -n shop tasks list --status FAILED --since 24h
    """
    query = TaskQuery(
        task_type=type,
        status=status,
        phase=phase,
        labels=parse_labels(label),
        since_us=parse_time_us(since, "--since"),
        until_us=parse_time_us(until, "--until"),
        text=text,
    )
    with Rows(output) as rows, connected(ctx.obj) as kantoku, states(kantoku, live) as store:
        total = store.count(query)
        if inputs:
            with closing(backlog(kantoku, store, BACKLOG)) as waiting:
                total += waiting.count(query)
                for state in waiting.find(query, limit or None, newest_first=True):
                    rows.add(_short(state) if output == "table" else state_row(state))
        for state in store.find(query, limit or None, newest_first=True):
            rows.add(_short(state) if output == "table" else state_row(state))
        if limit and total > limit:
            tell(f"{limit} of {total} tasks; --limit 0 shows all")
        elif not total:
            tell(f"no task of namespace {kantoku.namespace} matches")


def show(
    ctx: typer.Context,
    task_id: Annotated[str, typer.Argument(metavar="ID")],
    live: Live = False,
    output: PageOutput = "text",
) -> None:
    """Show one task: where it is, its steps, its result. Exit code 5 if nothing is known of it.

    Example: kantoku-kafka -n shop tasks show 0194f1c2-7c1e-7aaa-8bbb-123456789abc
    """
    with connected(ctx.obj) as kantoku, states(kantoku, live) as store:
        state = store.get(task_id)
        if state is None:
            with closing(backlog(kantoku, store, BACKLOG)) as waiting:
                state = waiting.get(task_id)
        if state is None:
            raise NotFound(
                f"Nothing is logged of task {task_id}, nor does it wait: another namespace (-n)? Without events "
                f"(--events off) there is no history; its result: kantoku-kafka result {task_id}"
            )
        result = kantoku.find_results([task_id]).get(task_id) if state.phase is Phase.FINISHED else None
        chain, restarts = _chain(store, state), store.restarts(task_id)
    if output == "json":
        with Rows("json") as rows:
            rows.add(
                {**state_row(state), "history": [_step(h.event) for h in state.history], "result": shown_data(result)}
            )
        return
    out(printable("\n".join(page(state, result, chain, restarts))))


def restart(
    ctx: typer.Context,
    task_id: Annotated[list[str] | None, typer.Argument(metavar="ID")] = None,
    type: Type = None,  # noqa: A002
    status: Status = None,
    label: Labels = None,
    since: Since = None,
    until: Until = None,
    text: Text = None,
    again: Annotated[bool, typer.Option("--again", help="Also those that were restarted already.")] = False,
    dry_run: DryRun = False,
    output: Output = "table",
) -> None:
    """Spawn finished tasks again, each under a new id. It names the old one. Exit code 5: an input no longer has one.

    Of tasks that are named by their ids those are meant that match the other options, too.

    Example: kantoku-kafka -n shop tasks restart --status FAILED --type resize --since 2h --dry-run
    """
    if not (task_id or type or status or label or since or until or text):
        raise UsageError("Say which tasks: ids, or --status, --type, --label, --since, --until, --text.")
    query = TaskQuery(
        task_type=type,
        status=status,
        phase=Phase.FINISHED,
        labels=parse_labels(label),
        since_us=parse_time_us(since, "--since"),
        until_us=parse_time_us(until, "--until"),
        text=text,
    )
    lost = 0
    with Rows(output) as rows, connected(ctx.obj) as kantoku, states(kantoku, live=False) as store:
        chosen = list(_named(store, task_id, query) if task_id else store.find(query))
        wanted = [state for state in chosen if again or not store.restarts(state.task_id)]
        if not wanted:
            before = f"{len(chosen)} finished tasks match, restarted before; --again does it once more"
            tell(f"nothing to restart: {before if chosen else 'no finished task matches'}")
        for at in range(0, len(wanted), _CHUNK):
            tasks = list(originals(kantoku, wanted[at : at + _CHUNK], lambda one: len(store.restarts(one))))
            there = [(state, task) for state, task in tasks if task is not None]
            lost += len(tasks) - len(there)
            new: list[str | None] = [None] * len(there)
            if not dry_run:
                with kantoku.transaction():  # of tasks and events: however it is interrupted, the next run sees which
                    new = [spawned.id for spawned in kantoku.spawn_many([task for _, task in there])]
            for (state, _), new_id in zip(there, new, strict=True):
                rows.add({"restarted": state.task_id, "type": state.type, "was": state.status, "id": new_id})
    if lost:
        raise NotFound(
            f"{lost} tasks no longer stand on their input topics, or came by a topic of others: spawn them yourself."
        )


def _named(store: TaskStore, ids: list[str], query: TaskQuery) -> Iterator[TaskState]:
    """Those of these tasks that match; all have ended."""
    for task_id in dict.fromkeys(ids):
        state = store.get(task_id)
        if state is None:
            raise NotFound(f"Nothing is logged of task {task_id}: another namespace (-n)?")
        if state.phase is not Phase.FINISHED:
            raise UsageError(f"Task {task_id} has not ended, it is {state.phase}: wait for its result.")
        if store.count(query.of(task_id)):
            yield state


@contextmanager
def states(kantoku: Kantoku, live: bool) -> Iterator[TaskStore]:
    """All task states: from the view, or folded just now; with a word about what is missing in them."""
    warn_of_gaps(kantoku)
    with kantoku.events.snapshot() if live else kantoku.events.view(_view_path(kantoku)) as store:
        warn_of_unreadable(store.unreadable)
        yield store


def _view_path(kantoku: Kantoku) -> Path:
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kantoku-kafka" / "views"
        cache.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:
        raise KantokuError(f"No directory for the view: {error}. Set XDG_CACHE_HOME to a writable one.") from error
    return cache / f"{kantoku.events.topic}.sqlite"


def _short(state: TaskState) -> dict[str, Any]:
    """What fits a line."""
    again = f" ({state.attempt})" if state.attempt > 1 else ""
    return {
        "id": state.task_id,
        "type": state.type,
        "state": f"{state.status or state.phase.value}{again}",
        "spawned": "" if state.spawned_at_us is None else when(state.spawned_at_us),
        "error": f"{state.error.type}: {state.error.message}"[:60] if state.error else "",
    }


def _chain(store: TaskStore, state: TaskState) -> list[str]:
    """The tasks that this one restarts, up to the first."""
    chain: list[str] = []
    at: TaskState | None = state
    while at is not None and at.restarted_from and at.restarted_from not in chain:
        chain.append(at.restarted_from)
        at = store.get(at.restarted_from)
    return chain


def _step(event: Any) -> dict[str, Any]:
    return {
        "name": event.name,
        "attempt": event.attempt,
        "at": iso(event.at_us),
        "executor_id": event.executor_id,
        "error": event.error._asdict() if event.error else None,
        "attributes": dict(event.attributes),
    }
