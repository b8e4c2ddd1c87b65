"""``run-executor``: one executor process, or several under a supervisor; ``run-scheduler``: timers alone."""

from __future__ import annotations

import faulthandler
import signal
import sys
from dataclasses import replace
from types import FrameType
from typing import Annotated

import typer

from kantoku_kafka.cli.common import Options, relax_garbage_collection
from kantoku_kafka.cli.lifeline import Lifeline
from kantoku_kafka.cli.parameters import App
from kantoku_kafka.cli.reload import Renewal, on_hangup, watch_files
from kantoku_kafka.cli.status import shown
from kantoku_kafka.cli.supervisor import MAX_PROCESSES, Supervisor
from kantoku_kafka.errors import UsageError
from kantoku_kafka.executor import ExecutorProcess
from kantoku_kafka.meter import TASKS, TIMERS
from kantoku_kafka.settings import EventDetail, ExecutorSettings, GroupProtocol, Guarantee, PoolKind
from kantoku_kafka.timing import SchedulerProcess

Http = Annotated[
    str | None,
    typer.Option(
        envvar="KANTOKU_HTTP",
        metavar="HOST:PORT",
        help="Serve /metrics, /livez, /readyz, /startupz here; of several processes each one port further.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("run-executor")(run_executor)
    app.command("run-scheduler")(run_scheduler)


def run_executor(
    ctx: typer.Context,
    app: App,
    concurrency: Annotated[int, typer.Option("-c", "--concurrency", help="Tasks at once in each pool.")] = 16,
    processes: Annotated[int, typer.Option(help="Executor processes, supervised.", min=1, max=MAX_PROCESSES)] = 1,
    types: Annotated[str | None, typer.Option(help="Only these task types, comma-separated.")] = None,
    pool: Annotated[PoolKind | None, typer.Option(help="Overrides the pool of every task type.")] = None,
    guarantee: Annotated[Guarantee, typer.Option(help="What is promised of results.")] = Guarantee.EXACTLY_ONCE,
    events: Annotated[EventDetail, typer.Option(help="Which events are logged.")] = EventDetail.FULL,
    group_protocol: Annotated[
        GroupProtocol, typer.Option(help="classic, or consumer (KIP-848).")
    ] = GroupProtocol.CLASSIC,
    slot: Annotated[
        str | None,
        typer.Option(help="Stable name of this process: a restart goes on where a kill interrupted."),
    ] = None,
    drain_seconds: Annotated[float, typer.Option(help="How long running tasks may go on after SIGTERM.")] = 25.0,
    max_batch: Annotated[int, typer.Option(help="Results in one checkpoint.")] = 2000,
    max_tasks_per_child: Annotated[
        int, typer.Option(help="Pool process: replace a child after so many tasks; 0: never.")
    ] = 0,
    max_memory_per_child: Annotated[
        int,
        typer.Option(help="Pool process: MiB that a child may have; a task that needs more is CRASHED. 0: no limit."),
    ] = 0,
    max_tasks: Annotated[int, typer.Option(help="Drain and end after so many tasks; 0: never.")] = 0,
    burst: Annotated[bool, typer.Option("--burst", help="End when all that stood on the inputs is done.")] = False,
    timers: Annotated[bool, typer.Option(help="Also put tasks onto their inputs when they are due.")] = True,
    http: Http = None,
    reload: Annotated[
        bool, typer.Option("--reload", help="For development: reload when Python files here change.")
    ] = False,
) -> None:
    """Take tasks from the inputs, run them, publish results.

    SIGTERM or Ctrl-C: drain and end. SIGHUP, except in a terminal: drain and begin anew with the code as it is then;
    several processes do so one after the other. SIGUSR1: say on stderr where all threads are.

    Example: kantoku-kafka run-executor shop.tasks:kan -c 64 -b localhost:9092
    """
    options: Options = ctx.obj
    settings = ExecutorSettings(
        concurrency=concurrency,
        guarantee=guarantee,
        events=events,
        group_protocol=group_protocol,
        slot=slot,
        pool=pool,
        drain_seconds=drain_seconds,
        max_batch=max_batch,
        max_tasks_per_child=max_tasks_per_child,
        max_memory_per_child_bytes=max_memory_per_child << 20,
        max_tasks=max_tasks,
        burst=burst,
        timers=timers,
    )
    kantoku = options.app(app)
    lifeline = Lifeline()
    if lifeline.number is None and (processes > 1 or reload):
        raise typer.Exit(_supervise(processes, drain_seconds, reload=reload, burst=burst))
    if slot is not None and processes > 1:
        settings = replace(settings, slot=f"{slot}.{lifeline.number}")
    chosen = None if types is None else [name.strip() for name in types.split(",") if name.strip()]
    if chosen == []:
        raise UsageError("--types names no task type.")
    process = ExecutorProcess(kantoku, settings, task_types=chosen, reference=app)
    renewal = _heed_signals(process)
    lifeline.watch(process.stop, drain_seconds)
    relax_garbage_collection()
    with shown(http, kantoku, process.vitals, [TASKS, TIMERS] if timers else [TASKS], lifeline.number):
        process.run(on_ready=lifeline.ready)
    if lifeline.number is None:  # its supervisor would start it again
        options.flush_traces()
        renewal.begin_anew_if_asked()


def _supervise(processes: int, drain_seconds: float, *, reload: bool, burst: bool) -> int:
    # -P: the current directory must not come before the standard library.
    command = [sys.executable, "-P", "-m", "kantoku_kafka", *sys.argv[1:]]
    supervisor = Supervisor(command, processes, drain_seconds, burst=burst)
    on_hangup(supervisor.reload)
    if reload:
        watch_files(supervisor.reload)
    return supervisor.run()


def run_scheduler(
    ctx: typer.Context,
    app: App,
    guarantee: Annotated[Guarantee, typer.Option(help="What is promised of timers.")] = Guarantee.EXACTLY_ONCE,
    group_protocol: Annotated[
        GroupProtocol, typer.Option(help="classic, or consumer (KIP-848).")
    ] = GroupProtocol.CLASSIC,
    slot: Annotated[str | None, typer.Option(help="Stable name of this process.")] = None,
    http: Http = None,
) -> None:
    """Put tasks onto their inputs when they are due. Executes none: for executors that run with --no-timers.

    SIGTERM or Ctrl-C: end. SIGHUP, except in a terminal: begin anew.

    Example: kantoku-kafka run-scheduler shop.tasks:kan -b localhost:9092
    """
    options: Options = ctx.obj
    settings = ExecutorSettings(guarantee=guarantee, group_protocol=group_protocol, slot=slot)
    kantoku = options.app(app)
    process = SchedulerProcess(kantoku, settings)
    renewal = _heed_signals(process)
    relax_garbage_collection()
    with shown(http, kantoku, process.vitals, [TIMERS], None):
        process.run()
    options.flush_traces()
    renewal.begin_anew_if_asked()


def _heed_signals(process: ExecutorProcess | SchedulerProcess) -> Renewal:
    """The first SIGTERM or SIGINT drains, the second one ends at once; so does the first, if nothing runs yet.

    SIGHUP drains and asks for the renewal that is returned, unless one of those comes meanwhile; SIGUSR1 has all
    threads say on stderr where they are.
    """
    renewal = Renewal(process.stop)

    def stop(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        if not process.running:
            raise SystemExit(0 if number == signal.SIGTERM else 130)
        renewal.forget()
        process.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    faulthandler.register(signal.SIGUSR1)
    on_hangup(renewal.ask)
    return renewal
