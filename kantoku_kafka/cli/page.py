"""One task as a readable page: where it is, its steps, its result. Times as people read them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime

from kantoku_kafka.cli.times import show_time
from kantoku_kafka.model import EventName, Result
from kantoku_kafka.replay.fold import TaskState

__all__ = ["duration", "page", "shown_data", "when"]

_SHOWN_BYTES = 2_000


def page(state: TaskState, result: Result | None, chain: Sequence[str], restarts: Sequence[str]) -> Iterator[str]:
    """Its lines.

    Parameters:
        state: the task.
        result: its result, if it has one.
        chain: the tasks that it restarts, the latest first.
        restarts: those that restart it.
    """
    yield f"task      {state.task_id}"
    yield f"type      {state.type}"
    yield f"state     {state.status or state.phase.value}, attempt {state.attempt}"
    if state.labels:
        yield f"labels    {', '.join(f'{name}={value}' for name, value in state.labels.items())}"
    if state.parent_id:
        yield f"parent    {state.parent_id}"
    if chain:
        yield "\n".join(f"{'restarts' if one == chain[0] else '':10}{one}" for one in chain)
    for restart in restarts:
        yield f"restarted as {restart}"
    if state.source:
        yield f"source    {state.source.topic}[{state.source.partition}] offset {state.source.offset}"
    if state.waited_us is not None:
        yield f"waited    {duration(state.waited_us)}"
    if state.ran_us is not None:
        yield f"ran       {duration(state.ran_us)}"
    yield ""
    start_us = state.history[0].event.at_us
    for event in (logged.event for logged in sorted(state.history, key=lambda logged: logged.event.at_us)):
        attributes = {} if event.name == EventName.SPAWNED else event.attributes  # those stand above
        more = "".join(f"  {name}={value}" for name, value in attributes.items())
        attempt = f"  attempt {event.attempt}" if state.attempt > 1 else ""
        where = f"  {event.executor_id}" if event.executor_id else ""
        yield f"{_local(event.at_us)}  {duration(event.at_us - start_us):>9}  {event.name}{attempt}{more}{where}"
    if state.error:
        yield f"\nerror     {state.error.type}: {state.error.message}"
        if state.error.detail:
            yield state.error.detail.rstrip()
    for problem in state.problems:
        yield f"\nimpossible: {problem}"
    if result is not None and result.ok:
        yield f"\nresult    {len(result.data)} bytes"
        data = shown_data(result)
        yield _readable(data["text"] or data["hex"])[:_SHOWN_BYTES] if data else ""


def _readable(text: str) -> str:
    """JSON over several lines, anything else as it is."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return json.dumps(found, indent=2, ensure_ascii=False) if isinstance(found, dict | list) else text


def shown_data(result: Result | None) -> dict[str, str] | None:
    """The data of a result as text, or in hex if it is none."""
    if result is None:
        return None
    try:
        return {"text": result.data.decode(), "hex": ""}
    except UnicodeDecodeError:
        return {"text": "", "hex": result.data.hex()}


def when(at_us: int) -> str:
    """The time of today, or the day and the minute."""

    def form(at: datetime) -> str:
        at = at.astimezone()
        return f"{at:%H:%M:%S}" if at.date() == datetime.now().date() else f"{at:%m-%d %H:%M}"

    return show_time(at_us, form)


def duration(us: int | None) -> str:
    """For people; empty if it is not known."""
    if us is None:
        return ""
    if abs(us) < 1_000_000:
        return f"{us / 1000:.1f} ms"
    seconds = us / 1_000_000
    if abs(seconds) < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _local(at_us: int) -> str:
    return show_time(at_us, lambda at: at.astimezone().replace(tzinfo=None).isoformat(" ", "milliseconds"))
