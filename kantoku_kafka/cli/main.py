"""The entry point: global options, the commands, and what an error becomes."""

from __future__ import annotations

import gc
import logging
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from kantoku_kafka.cli import (
    acls,
    config,
    control,
    demo,
    dev,
    dlq,
    doctor,
    events,
    group,
    run,
    schedules,
    schemas,
    tasks,
    topics,
    verify,
    views,
)
from kantoku_kafka.cli.common import LogFormat, Options, configure_logging
from kantoku_kafka.cli.output import out, tell
from kantoku_kafka.errors import KantokuError, UsageError
from kantoku_kafka.logs import are_json
from kantoku_kafka.model import utf8_safe

__all__ = ["app", "main"]

_log = logging.getLogger(__name__)
# Base of the errors of usage. It is click's, or that of the click which later versions of typer bring along and
# do not export: BadParameter, UsageError, ClickException.
_ClickException: Any = typer.BadParameter.__mro__[2]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Distributed task execution on Kafka: at-least-once execution, exactly-once results.

Exit codes: 0 ok, 1 the task failed or any other error, 2 usage, 3 no broker, 4 authentication or ACL, 5 not found,
6 timed out, 7 topic or schema mismatch, 130 interrupted.""",
)


def _show_version(asked: bool) -> None:
    if asked:
        out(f"kantoku-kafka {metadata.version('kantoku-kafka')}")
        raise typer.Exit


@app.callback()
def options(
    ctx: typer.Context,
    bootstrap_servers: Annotated[
        str | None, typer.Option("-b", "--bootstrap-servers", help="HOST:PORT[,...]; or KANTOKU_BOOTSTRAP_SERVERS.")
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option(
            "-n", "--namespace", help="Prefix of all topics; or KANTOKU_NAMESPACE; default the app's, else kantoku."
        ),
    ] = None,
    config_file: Annotated[
        Path | None,
        typer.Option(
            "-F",
            "--config",
            help="File of settings, of librdkafka or of a Java client, or profiles (.toml); or KANTOKU_CONFIG.",
        ),
    ] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", help="A profile of kantoku.toml; or KANTOKU_PROFILE.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "-X", metavar="KEY=VALUE", help="A librdkafka setting; repeatable. No secrets here: refer to them."
        ),
    ] = None,
    version: Annotated[  # noqa: ARG001 - its callback has answered
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Print the version.")
    ] = False,
    log_level: Annotated[str, typer.Option(envvar="KANTOKU_LOG_LEVEL", help="debug, info, warning, error")] = "info",
    otel: Annotated[
        bool, typer.Option("--otel", envvar="KANTOKU_OTEL", help="Trace by OpenTelemetry, as OTEL_* variables say.")
    ] = False,
    log_format: Annotated[
        LogFormat, typer.Option(envvar="KANTOKU_LOG_FORMAT", help="Lines of text, or one JSON object a line.")
    ] = LogFormat.TEXT,
) -> None:
    """Global options may stand before the command or behind it. The command line counts more than the environment,
    this more than the kantoku.toml that is found, and this more than the app's own code. In each, a single setting
    counts more than a file or profile named there. config show tells what counts."""
    configure_logging(log_level, log_format)
    ctx.obj = Options(
        bootstrap_servers=bootstrap_servers,
        namespace=namespace,
        config_file=config_file,
        profile=profile,
        settings=setting or (),
        otel=otel,
    )


run.register(app)
tasks.register(app)
topics.register(app)
acls.register(app)
verify.register(app)
events.register(app)
task_views = views.tasks_group()
task_views.command("cancel")(control.cancel)
app.add_typer(task_views, name="tasks")
executors = typer.Typer(invoke_without_command=True, subcommand_metavar="[quiet|stop]", rich_markup_mode=None)
executors.callback()(group.executors)
executors.command("quiet")(control.quiet)
executors.command("stop")(control.stop)
app.add_typer(executors, name="executors")
group.register(app)
dlq.register(app)
schedules.register(app)
schemas.register(app)
dev.register(app)
doctor.register(app)
config.register(app)
demo.register(app)


def main(arguments: list[str] | None = None) -> None:
    """Run a command; errors of use end in one sentence and the documented exit code."""
    try:
        given = sys.argv[1:] if arguments is None else arguments
        _check_utf8(given)
        code = app(_globals_first(given), standalone_mode=False)
    except KantokuError as error:
        code = error.exit_code
        _tell_error(str(error), code)
    except typer.Abort:
        code = 130
    except _ClickException as error:
        error.show()
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    except OSError as error:
        code = 1
        _tell_error(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}.", code)
    _flush()
    gc.freeze()  # else clients that nobody closed are closed at the exit, which waits for what does not answer
    sys.exit(code if isinstance(code, int) else 0)


def _tell_error(sentence: str, code: int) -> None:
    """On stderr, as log lines are where they are JSON."""
    if are_json(logging.getLogger()):
        _log.error(sentence, extra={"action": "failed", "exit_code": code})
    else:
        tell(f"error: {sentence}")


def _check_utf8(arguments: list[str]) -> None:
    """What the system could not decode stands in arguments as lone surrogates, which no topic takes."""
    for argument in arguments:
        shown = utf8_safe(argument)
        if shown != argument:
            name, equals, _ = shown.partition("=")  # behind it may stand a secret
            told = f"{name}=..." if equals else name
            raise UsageError(f"The argument {told} is not UTF-8. Data may be any bytes, by @FILE or - (stdin).")


def _flush() -> None:
    """Keep Python from complaining at exit of a pipe whose reader has seen enough."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


_WITH_VALUE = {
    "-b",
    "--bootstrap-servers",
    "-n",
    "--namespace",
    "-F",
    "--config",
    "--profile",
    "-X",
    "--log-level",
    "--log-format",
}
_FLAGS = {"--otel"}


def _globals_first(arguments: list[str]) -> list[str]:
    """Let the global options stand anywhere before ``--``: nobody remembers which side they belong on."""
    moved: list[str] = []
    kept: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        name = argument.partition("=")[0]
        if argument == "--":
            kept += [argument, *rest]
        elif name in _WITH_VALUE | _FLAGS:
            moved.append(argument)
            if "=" not in argument and name in _WITH_VALUE:
                moved += [value for value in [next(rest, None)] if value is not None]
        else:
            kept.append(argument)
    return moved + kept
