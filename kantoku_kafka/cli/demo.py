"""``demo``: what the program promises, shown on a real Kafka within a minute."""

from __future__ import annotations

import json
import logging
import signal
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from kantoku_kafka.app import Kantoku
from kantoku_kafka.cli.common import Options
from kantoku_kafka.cli.output import out, tell
from kantoku_kafka.cli.parameters import Output
from kantoku_kafka.cli.progress import progress
from kantoku_kafka.configuration.profiles import DEFAULT_PROFILE, FILE_NAME
from kantoku_kafka.configuration.writing import profile_text
from kantoku_kafka.demo.fleet import Fleet
from kantoku_kafka.demo.scenario import Outcome, Scenario
from kantoku_kafka.demo.topics import own_topics
from kantoku_kafka.dev import EmbeddedBroker

_APP = "kantoku_kafka.demo.tasks:kan"
_EXECUTORS = 2


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo")(demo)


def demo(
    ctx: typer.Context,
    tasks: Annotated[int, typer.Option(help="How many tasks to spawn at once.", min=60, max=1_000_000)] = 6_000,
    output: Output = "table",
) -> None:
    """Show on a real Kafka what is promised. Kills an executor amid thousands of tasks, and accounts for every one.

    Runs its own Kafka (extra: pip install 'kantoku-kafka[broker]'), or uses the one of -b; there it makes topics
    demo-RANDOM.* and deletes them in the end. Exit code 0: nothing lost and nothing twice; else 1.

    Example: kantoku-kafka demo --tasks 20000
    """
    started = time.monotonic()
    options: Options = ctx.obj
    if logging.getLogger().level == logging.INFO:  # the default; the demo tells its own story
        logging.getLogger().setLevel(logging.WARNING)
    with ExitStack() as stack, _signals_exit():
        try:
            outcome = _play(stack, options, tasks)
        finally:
            _ignore_signals()  # what was started is ended first, whatever happens
            stack.close()
    _show(outcome, time.monotonic() - started, _next_commands(options.bootstrap_servers), output)
    raise typer.Exit(0 if outcome.account.ok else 1)


def _play(stack: ExitStack, options: Options, tasks: int) -> Outcome:
    """1. A broker. 2. Topics. 3. Executors. 4. The story; what ``stack`` holds is undone in reverse."""
    ours = options.bootstrap_servers is None
    if ours:
        tell("starting Kafka")
        broker = stack.enter_context(EmbeddedBroker(on_progress=tell))
        options = replace(options, bootstrap_servers=broker.bootstrap_servers)
    options = replace(options, namespace=f"demo-{uuid.uuid4().hex[:8]}")
    kantoku = options.app(_APP)
    tell(f"topics {kantoku.namespace}.* at {options.bootstrap_servers}; starting {_EXECUTORS} executors")
    stack.enter_context(own_topics(kantoku, deleted=not ours))
    if not ours:
        stack.callback(tell, "deleting its topics and groups; a group forgets its executors after 10 s")
    folder = tempfile.TemporaryDirectory(prefix="kantoku-demo-", ignore_cleanup_errors=True)
    directory = Path(stack.enter_context(folder))
    fleet = stack.enter_context(Fleet(_EXECUTORS, _arguments(kantoku, directory), directory))
    stack.callback(kantoku.close)
    return Scenario(kantoku, fleet, tasks, tell=tell, bar=progress).run()


def _arguments(kantoku: Kantoku, directory: Path) -> list[str]:
    """The options by which an executor finds what we use; settings go by a file, for some may be secrets."""
    connection = kantoku.connection
    file = directory / FILE_NAME
    file.touch(mode=0o600)
    settings = {key: str(value) for key, value in connection.config.items()}
    file.write_text(profile_text(DEFAULT_PROFILE, settings), "utf-8")
    where = ["-b", connection.bootstrap_servers, "-n", kantoku.namespace]
    return [*where, "-F", str(file), "--profile", DEFAULT_PROFILE]


@contextmanager
def _signals_exit() -> Iterator[None]:
    """Ctrl-C and SIGTERM end the program by the way of all ``finally`` blocks, with codes 130 and 143."""

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _next_commands(bootstrap_servers: str | None) -> list[str]:
    where = "" if bootstrap_servers is None else f" -b {bootstrap_servers}"
    run = [
        f"kantoku-kafka{where} topics create {_APP} --yes",
        f"kantoku-kafka{where} run-executor {_APP}",
        f"kantoku-kafka{where} -n demo spawn hash hello --wait",
    ]
    return run if bootstrap_servers else ["kantoku-kafka dev broker", " && ".join(run[:2]), run[2]]


def _show(outcome: Outcome, seconds: float, commands: list[str], output: str) -> None:
    account = asdict(outcome.account)
    loaded, idle = account.pop("latency"), outcome.idle_latency
    if output != "table":
        whole: dict[str, Any] = {
            **account,
            "latency": {"loaded": outcome.account.latency._asdict(), "idle": idle._asdict()},
            "killed": outcome.killed,
            "seconds": round(seconds, 1),
            "next": commands,
        }
        out(json.dumps(whole, indent=2 if output == "json" else None))
        return
    status = ", ".join(f"{count} {name}" for name, count in account["status"].items())
    rows = {
        "spawned": f"{account['spawned']}, of which {account['children']} by other tasks",
        "results": status,
        "lost": account["lost"],
        "duplicated": account["duplicated"],
        "ran again": f"{account['run_again']} tasks: {account['runs']} runs in all (execution is at least once)",
        "events": f"{account['events']}; tasks whose end is not logged exactly once: {account['uneventful']}",
        "killed": outcome.killed,
        "rate": f"{account['tasks_per_second']:.0f} tasks/s, with the kill",
        "spawn to result": f"p50 {loaded[0]} ms, p99 {loaded[1]} ms, all at once and with the kill",
        "one by one": f"p50 {idle.p50_ms} ms, p99 {idle.p99_ms} ms, as a client sees it",
        "took": f"{seconds:.0f} s",
    }
    out("\n".join(f"{name:16}{value}" for name, value in rows.items()))
    tell("\nTo go on:\n" + "\n".join(f"  {command}" for command in commands))
