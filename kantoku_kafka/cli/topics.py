"""``topics plan|create|check``: the topics of an app."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

import typer

from kantoku_kafka.app import Kantoku
from kantoku_kafka.cli.output import out, table, tell
from kantoku_kafka.cli.parameters import App, Output, Yes
from kantoku_kafka.emit import strimzi, terraform, tools
from kantoku_kafka.errors import AccessDenied, TopicMismatch
from kantoku_kafka.kafka import topics
from kantoku_kafka.kafka.drift import Difference, Seen, compare
from kantoku_kafka.kafka.wanted import TopicPlan

Partitions = Annotated[int, typer.Option("-p", "--partitions", help="Partitions of each topic.", min=1)]
Replicas = Annotated[
    int | None,
    typer.Option("-r", "--replication-factor", help="Default: 3, or as many as there are brokers.", min=1, max=32_767),
]
_REPLICAS = 3
_ABSENT = "Topics of others are missing, and not ours to create: {}. See from_topics and reply_to of the task types."
_UNSEEN = {
    Seen.NOTHING: "we may not look at it: ask for the right Describe",
    Seen.SHAPE: "its settings may not be read: ask for the right DescribeConfigs",
}


class Form(StrEnum):
    """What ``--emit`` prints."""

    KAFKA_TOPICS = "kafka-topics"
    STRIMZI = "strimzi"
    TERRAFORM = "terraform"


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The topics of an app.")
    group.command("plan")(plan)
    group.command("create")(create)
    group.command("check")(check)
    app.add_typer(group, name="topics")


def plan(
    ctx: typer.Context,
    app: App,
    partitions: Partitions = 4,
    replication_factor: Replicas = None,
    emit: Annotated[
        Form | None, typer.Option(help="Print the wanted state for a tool; with 3 replicas unless -r says otherwise.")
    ] = None,
    cluster: Annotated[str, typer.Option(help="--emit strimzi: the name of the Kafka resource.")] = "my-cluster",
    output: Output = "table",
) -> None:
    """Show how each topic differs from what it should be. Changes nothing.

    Exit code 0: nothing is missing, and no difference loses data or breaks a promise; else 7; 4 if we may not look.
    With --emit no broker is asked.

    Example: kantoku-kafka topics plan shop.tasks:kan
    """
    kantoku = ctx.obj.app(app)
    if emit is not None:
        out(_emitted(emit, kantoku, _plans(kantoku, partitions, replication_factor or _REPLICAS), cluster))
        return
    kantoku.clients.check()
    differences = _differences(kantoku, partitions, replication_factor)
    _show(differences, output)
    bad = [d for d in differences if d.missing or d.harms]
    absent = _absent(kantoku)
    if absent:
        tell(_ABSENT.format(", ".join(absent)))
    if bad:
        create = sum(d.missing for d in bad)
        how = f" (kantoku-kafka topics create {app})" if create else ""
        tell(f"to create: {create}{how}, to change by hand: {len(bad) - create}")
    if bad or absent:
        raise typer.Exit(TopicMismatch.exit_code)
    _refuse_hidden(differences)


def create(
    ctx: typer.Context,
    app: App,
    partitions: Partitions = 4,
    replication_factor: Replicas = None,
    yes: Yes = False,
) -> None:
    """Create the topics that are missing. Those that exist are left as they are.

    Example: kantoku-kafka topics create shop.tasks:kan --yes
    """
    kantoku = ctx.obj.app(app)
    kantoku.clients.check()
    replicas = replication_factor or min(topics.broker_count(kantoku.clients), _REPLICAS)
    differences = _differences(kantoku, partitions, replicas)
    missing = [d.plan for d in differences if d.seen in (Seen.MISSING, Seen.NOTHING)]  # who may not look may not create
    for difference in differences:
        for deviation in difference.harms:
            tell(f"warning: {difference.plan.name}: {deviation}; change it: {deviation.remedy}")
    if not missing:
        tell("all topics are there")
        return
    if not yes:
        _show(differences, "table")
        typer.confirm(f"Create {len(missing)} topics?", abort=True, err=True)
    for name in topics.create(kantoku.clients, missing):
        tell(f"created {name}")


def check(
    ctx: typer.Context,
    app: App,
    partitions: Partitions = 4,
    replication_factor: Replicas = None,
    output: Output = "table",
) -> None:
    """Show the topics that are missing or wrong; exit code 7 if any. What is wrong loses data or breaks a promise.

    Example: kantoku-kafka topics check shop.tasks:kan
    """
    kantoku = ctx.obj.app(app)
    kantoku.clients.check()
    differences = _differences(kantoku, partitions, replication_factor)
    bad = [d for d in differences if d.missing or d.harms]
    _show(bad, output)
    if absent := _absent(kantoku):
        raise TopicMismatch(_ABSENT.format(", ".join(absent)))
    if bad:
        names = ", ".join(d.plan.name for d in bad)
        raise TopicMismatch(
            f"{len(bad)} topics are not as they should be: {names}. See: kantoku-kafka topics plan {app}"
        )
    _refuse_hidden(differences)


def _plans(kantoku: Kantoku, partitions: int, replication_factor: int | None) -> list[TopicPlan]:
    return topics.plan(
        kantoku.topics,
        kantoku.task_types,
        inputs=kantoku.inputs,
        partitions=partitions,
        replication_factor=replication_factor,
    )


def _differences(kantoku: Kantoku, partitions: int, replication_factor: int | None) -> list[Difference]:
    return compare(kantoku.clients, _plans(kantoku, partitions, replication_factor))


def _refuse_hidden(differences: Iterable[Difference]) -> None:
    """Of what nobody lets us see we do not say that all is well."""
    if hidden := [d.plan.name for d in differences if d.seen is Seen.NOTHING]:
        raise AccessDenied(f"Topics that we may not look at: {', '.join(hidden)}. Ask for the right Describe.")


def _absent(kantoku: Kantoku) -> list[str]:
    """Topics of others that the app reads or replies to, and that are not there."""
    return topics.missing(kantoku.clients, kantoku.topics_of_others)


def _emitted(form: Form, kantoku: Kantoku, plans: Iterable[TopicPlan], cluster: str) -> str:
    match form:
        case Form.KAFKA_TOPICS:
            text = tools.topics(plans, kantoku.connection.bootstrap_servers)
        case Form.STRIMZI:
            text = strimzi.topics(plans, cluster)
        case Form.TERRAFORM:
            text = terraform.topics(plans, kantoku.namespace)
    return text.removesuffix("\n")


def _show(differences: Iterable[Difference], output: str) -> None:
    table(map(_row, differences), output, wrapped=True)


def _row(difference: Difference) -> dict[str, object]:
    plan, seen = difference.plan, difference.seen
    problems = [f"{deviation} ({deviation.remedy})" for deviation in difference.deviations]
    if seen in _UNSEEN:
        problems.append(_UNSEEN[seen])
    state = "missing" if difference.missing else "wrong" if difference.harms else "differs" if problems else "ok"
    return {
        "topic": plan.name,
        "state": "hidden" if seen is Seen.NOTHING else state,
        "wanted": ", ".join([f"partitions={plan.partitions}", *(f"{k}={v}" for k, v in plan.config.items())]),
        "problems": problems,
    }
