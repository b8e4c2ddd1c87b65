"""``executors``, ``lag``, ``top``: who works, and what is left to do."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from kantoku_kafka.app import Kantoku
from kantoku_kafka.cli.common import connected
from kantoku_kafka.cli.output import out, table, tell
from kantoku_kafka.cli.page import duration
from kantoku_kafka.cli.parameters import Output
from kantoku_kafka.errors import AccessDenied, NotFound, TopicMismatch
from kantoku_kafka.job import Place
from kantoku_kafka.kafka.group import InputLag, Member, input_topics, lag_of, members_of, worked_topics
from kantoku_kafka.kafka.heartbeats import heartbeats
from kantoku_kafka.model import Heartbeat, now_us
from kantoku_kafka.names import NORMAL
from kantoku_kafka.slots import host

Sample = Annotated[
    float, typer.Option("--sample", help="Seconds over which the rate is measured; 0: no rate.", min=0.0)
]

_BLOCKED_SHARE = 1_000
_CLEAR = "\x1b[H\x1b[J"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("lag")(lag)
    app.command("top")(top)


@dataclass(frozen=True, slots=True)
class Standing:
    """The group at one moment. ``types`` and ``priorities`` by input topic, ``rates`` by input partition, in tasks a
    second; ``beats`` by slot."""

    members: list[Member]
    lags: list[InputLag]
    types: Mapping[str, str]
    priorities: Mapping[str, str]
    rates: Mapping[Place, float]
    beats: Mapping[str, Heartbeat]

    @classmethod
    def take(cls, kantoku: Kantoku, sample_seconds: float) -> Standing:
        """Look twice, ``sample_seconds`` apart; once if that is 0."""
        clients, topics = kantoku.clients, kantoku.topics
        inputs = {name: (name, NORMAL) for name in worked_topics(clients, topics)} | input_topics(clients, topics)
        before, began = {}, time.monotonic()
        if sample_seconds:
            before = {_place(i): _done(i) for i in lag_of(clients, topics, list(inputs), oldest=False)}
            time.sleep(sample_seconds)
        lags = lag_of(clients, topics, list(inputs))
        seconds = time.monotonic() - began
        rates = {_place(i): max(0, _done(i) - before[_place(i)]) / seconds for i in lags if _place(i) in before}
        types = {topic: task_type for topic, (task_type, _) in inputs.items()}
        priorities = {topic: priority for topic, (_, priority) in inputs.items()}
        return cls(members_of(clients, topics), lags, types, priorities, rates, _beats(kantoku))

    def served_by(self, member: Member) -> Mapping[str, int]:
        """The types that a member serves, with what it has in flight of each."""
        beat = self.beats.get(member.slot)
        return beat.in_flight if beat else {self.types.get(topic, topic): 0 for topic in member.partitions}

    def in_flight(self, task_type: str) -> int:
        """Running tasks of a type, as the executors said last."""
        return sum(beat.in_flight.get(task_type, 0) for beat in self.beats.values())


def executors(
    ctx: typer.Context,
    sample: Sample = 1.0,
    here: Annotated[
        bool, typer.Option("--here", help="Only those of this host, by their slots; exit code 5 if there is none.")
    ] = False,
    output: Output = "table",
) -> None:
    """Who works, on what and how fast; quiet and stop them.

    What each of them serves and has in flight (handed to a pool: running, or next in line) is by its last heartbeat,
    which comes every 5 s. ``quiet``: it was told to take no new tasks, and has left the group. ``no member``: it lives,
    or did some seconds ago, and is not in the group.

    Example: kantoku-kafka -n shop executors
    """
    if ctx.invoked_subcommand is not None:
        return
    with connected(ctx.obj) as kantoku:
        if here:
            members = [one for one in members_of(kantoku.clients, kantoku.topics) if _is_here(one.slot)]
            if not members:
                raise NotFound(f"No executor of group {kantoku.topics.group} runs on host {host()}.")
            beats = {slot: beat for slot, beat in _beats(kantoku).items() if _is_here(slot)}
            _print_members(Standing(members, [], {}, {}, {}, beats), output)
            return
        standing = Standing.take(kantoku, sample)
        _print_members(standing, output)
        if not standing.members and not standing.beats:
            group = kantoku.topics.group
            tell(f"no executor runs in group {group}: start one (run-executor), or name another namespace (-n)")


def lag(ctx: typer.Context, sample: Sample = 1.0, output: Output = "table") -> None:
    """How far each input is. Says how long its oldest task has waited, too, and what holds it back.

    ``beyond`` (``done_beyond``) counts tasks finished beyond the oldest one that is not. At some thousands, more may
    have to wait for that one: ``blocked_by`` names its offset. A topic without a name of ours stands under its own.

    Example: kantoku-kafka -n shop lag
    """
    with connected(ctx.obj) as kantoku:
        standing = Standing.take(kantoku, sample)
        table(map(_short, _inputs(standing)) if output == "table" else _inputs(standing), output)
        if not standing.lags:
            namespace = kantoku.namespace
            tell(f"{namespace} has no input topics: create them (topics create), or name another namespace (-n)")


def top(
    ctx: typer.Context,
    interval: Annotated[float, typer.Option("--interval", help="Seconds between two looks.", min=0.2)] = 2.0,
    times: Annotated[int, typer.Option("--times", help="Stop after so many; 0: never.", min=0)] = 0,
) -> None:
    """Executors and lag, live, until Ctrl-C.

    ``blocked``: in how many partitions much has finished beyond the oldest task that has not; see ``lag``.

    Example: kantoku-kafka -n shop top
    """
    shown = 0
    with connected(ctx.obj) as kantoku:
        while not times or shown < times:
            standing = Standing.take(kantoku, interval)
            out(_CLEAR if sys.stdout.isatty() else "")
            rate, left = sum(standing.rates.values()), sum(one.lag for one in standing.lags)
            members = len(standing.members)
            out(f"{kantoku.namespace}: {rate:,.0f} tasks/s, {left:,} not done, {members} executors\n")
            _print_members(standing, "table")
            out("")
            table(_by_type(standing), "table")
            shown += 1


def _is_here(slot: str) -> bool:
    """Whether it is the name of this host, or begins with that and a dot."""
    return f"{slot}.".startswith(f"{host()}.")


def _members(standing: Standing) -> Iterable[dict[str, Any]]:
    slots = {member.slot for member in standing.members}
    outside = [Member(beat.slot, beat.host, "", {}) for slot, beat in standing.beats.items() if slot not in slots]
    for member in sorted([*standing.members, *outside], key=lambda one: one.slot):
        places = [(topic, p) for topic, numbers in member.partitions.items() for p in numbers]
        beat = standing.beats.get(member.slot)
        served = standing.served_by(member)
        yield {
            "slot": member.slot,
            "executor": beat.executor_id if beat else None,
            "host": beat.host if beat else member.host.lstrip("/"),
            "types": ",".join(sorted(served)),
            "partitions": len(places),
            "in_flight": sum(served.values()) if beat else None,
            "tasks_per_second": round(sum(standing.rates.get(place, 0.0) for place in places), 1),
            "up_seconds": round((now_us() - beat.started_at_us) / 1_000_000, 1) if beat else None,
            "state": _state(beat, is_member=member.slot in slots),
            "version": beat.version if beat else None,
            "settings": dict(beat.attributes) if beat else None,
        }


def _print_members(standing: Standing, output: str) -> None:
    rows = _members(standing)
    table(map(_short_member, rows) if output == "table" else rows, output)


def _short_member(row: Mapping[str, Any]) -> dict[str, Any]:
    """What fits a line."""
    return {
        "slot": row["slot"],
        "host": row["host"],
        "types": row["types"],
        "parts": row["partitions"],
        "in_flight": row["in_flight"],
        "tasks/s": row["tasks_per_second"],
        "up": duration(None if row["up_seconds"] is None else round(row["up_seconds"] * 1_000_000)),
        "state": row["state"],
    }


def _state(beat: Heartbeat | None, *, is_member: bool) -> str:
    if beat is None:
        return "no heartbeat"
    if is_member:
        return "draining" if beat.draining else "running"
    return "quiet" if beat.draining else "no member"


def _inputs(standing: Standing) -> Iterable[dict[str, Any]]:
    owners = {(topic, p): m.slot for m in standing.members for topic, numbers in m.partitions.items() for p in numbers}
    for one in standing.lags:
        yield {
            "type": standing.types[one.topic],
            "priority": standing.priorities[one.topic],
            "partition": one.partition,
            "committed": one.committed,
            "end": one.end,
            "not_done": one.lag,
            "done_beyond": one.done_beyond,
            "blocked_by": one.committed if one.done_beyond >= _BLOCKED_SHARE else None,
            "oldest_seconds": _age(one),
            "tasks_per_second": round(standing.rates.get(_place(one), 0.0), 1),
            "executor": owners.get(_place(one)),
        }


def _short(row: Mapping[str, Any]) -> dict[str, Any]:
    """What fits a line."""
    return {
        "type": row["type"] if row["priority"] == NORMAL else f"{row['type']}/{row['priority']}",
        "part": row["partition"],
        "not_done": row["not_done"],
        "beyond": row["done_beyond"],
        "blocked_by": row["blocked_by"],
        "oldest": duration(None if row["oldest_seconds"] is None else round(row["oldest_seconds"] * 1_000_000)),
        "tasks/s": row["tasks_per_second"],
        "executor": row["executor"],
    }


def _by_type(standing: Standing) -> Iterable[dict[str, Any]]:
    inputs = defaultdict(list)
    for one in standing.lags:
        inputs[standing.types[one.topic]].append(one)
    for name, lags in inputs.items():
        ages = [age for one in lags if (age := _age(one)) is not None]
        serving = sum(name in standing.served_by(member) for member in standing.members)
        yield {
            "type": name,
            "executors": serving or "nobody",
            "not_done": sum(one.lag for one in lags),
            "in_flight": standing.in_flight(name),
            "oldest": duration(round(max(ages) * 1_000_000)) if ages else "",
            "tasks/s": round(sum(standing.rates.get(_place(one), 0.0) for one in lags), 1),
            "blocked": sum(one.done_beyond >= _BLOCKED_SHARE for one in lags) or "",
        }


def _beats(kantoku: Kantoku) -> dict[str, Heartbeat]:
    """The last heartbeat in each slot. Without the control topic, or the right to read it, there are none."""
    try:
        beats = heartbeats(kantoku.clients, kantoku.topics.control)
    except (TopicMismatch, AccessDenied):
        beats = []
    return {beat.slot: beat for beat in sorted(beats, key=lambda beat: beat.at_us)}


def _place(one: InputLag) -> Place:
    return one.topic, one.partition


def _done(one: InputLag) -> int:
    return one.committed + one.done_beyond


def _age(one: InputLag) -> float | None:
    return None if one.oldest_ms is None else round(max(0.0, time.time() - one.oldest_ms / 1000), 1)
