"""``acls plan|check``: the least rights of each role, for whoever grants them, and for whoever has to have them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer

from kantoku_kafka.app import Kantoku
from kantoku_kafka.cli.common import Options
from kantoku_kafka.cli.output import out, table, tell
from kantoku_kafka.cli.parameters import App, Output
from kantoku_kafka.emit import strimzi, terraform, tools
from kantoku_kafka.errors import AccessDenied, UsageError
from kantoku_kafka.kafka.permissions import missing_rights
from kantoku_kafka.kafka.rights import Right, Role, rights_of
from kantoku_kafka.names import is_topic

__all__ = ["app_rights", "register"]

Reads = Annotated[
    list[str] | None,
    typer.Option(metavar="[ROLE=]TOPIC[*]", help="A further topic to read; default role: executor. Repeatable."),
]
Writes = Annotated[
    list[str] | None,
    typer.Option(metavar="[ROLE=]TOPIC[*]", help="A further topic to write to, as by ctx.produce. Repeatable."),
]
Timers = Annotated[
    bool, typer.Option("--timers/--no-timers", help="Whether executors fire timers, or run-scheduler does.")
]


class Form(StrEnum):
    """What ``--emit`` prints."""

    KAFKA_ACLS = "kafka-acls"
    STRIMZI = "strimzi"
    TERRAFORM = "terraform"


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The rights that each role needs.")
    group.command("plan")(plan)
    group.command("check")(check)
    app.add_typer(group, name="acls")


def plan(
    ctx: typer.Context,
    app: App,
    principal: Annotated[
        list[str] | None,
        typer.Option(metavar="ROLE=PRINCIPAL", help="Who has a role: executor=User:shop-worker. Repeatable."),
    ] = None,
    role: Annotated[list[Role] | None, typer.Option(help="Only these; default: all. Repeatable.")] = None,
    reads: Reads = None,
    writes: Writes = None,
    timers: Timers = True,
    emit: Annotated[Form | None, typer.Option(help="For which tool; each role then needs a --principal.")] = None,
    cluster: Annotated[str, typer.Option(help="--emit strimzi: the name of the Kafka resource.")] = "my-cluster",
    output: Output = "table",
) -> None:
    """Print the least rights of each role; ask and change nothing.

    Example: kantoku-kafka acls plan shop.tasks:kan --principal executor=User:shop-worker --emit kafka-acls
    """
    options: Options = ctx.obj
    kantoku = options.app(app)
    principals = _principals(principal or [])
    roles = role or list(principals) or list(Role)
    rights = {one: app_rights(kantoku, one, reads, writes, timers=timers) for one in roles}
    if emit is None:
        table((row for one in roles for row in _rows(one, rights[one])), output)
        return
    if unnamed := [one for one in roles if one not in principals]:
        raise UsageError(f"--emit needs to know who has the role: --principal {unnamed[0]}=User:NAME.")
    granted: dict[str, set[Right]] = {}
    for one in roles:
        for name in principals[one]:
            granted.setdefault(name, set()).update(rights[one])
    sorted_rights = {name: sorted(all_of) for name, all_of in granted.items()}
    out(_emitted(emit, kantoku, sorted_rights, cluster).removesuffix("\n"))


def check(
    ctx: typer.Context,
    app: App,
    role: Annotated[Role, typer.Option(help="Whose rights we should have.")] = Role.EXECUTOR,
    reads: Reads = None,
    writes: Writes = None,
    timers: Timers = True,
    output: Output = "table",
) -> None:
    """Say which rights of a role we lack on this cluster. With the credentials that are given; exit code 4 if any.

    Example: kantoku-kafka acls check shop.tasks:kan --role spawner -F client.properties
    """
    options: Options = ctx.obj
    kantoku = options.app(app)
    kantoku.clients.check()
    missing = missing_rights(kantoku.clients, app_rights(kantoku, role, reads, writes, timers=timers))
    table(_rows(role, missing), output)
    if missing:
        raise AccessDenied(
            f"{len(missing)} rights of role {role} are missing. Whoever may grant them: "
            f"kantoku-kafka acls plan {app} --principal {role}=User:NAME --emit kafka-acls"
        )
    tell(f"no right of role {role} is missing")


def app_rights(
    kantoku: Kantoku,
    role: Role,
    reads: Iterable[str] | None = None,
    writes: Iterable[str] | None = None,
    *,
    timers: bool = True,
) -> list[Right]:
    """What a role needs of this app, with what it reads and writes besides, as the options say it."""
    return rights_of(
        role,
        kantoku.topics,
        kantoku.inputs,
        foreign=kantoku.foreign_inputs,
        replies=kantoku.reply_topics,
        reads=_topics(reads or [], "--reads", role),
        writes=_topics(writes or [], "--writes", role),
        timers=timers,
    )


def _emitted(form: Form, kantoku: Kantoku, rights: Mapping[str, Sequence[Right]], cluster: str) -> str:
    match form:
        case Form.KAFKA_ACLS:
            return tools.acls(rights, kantoku.connection.bootstrap_servers)
        case Form.STRIMZI:
            return strimzi.users(rights, cluster)
        case Form.TERRAFORM:
            return terraform.acls(rights, kantoku.namespace)


def _rows(role: Role, rights: Iterable[Right]) -> Iterable[dict[str, Any]]:
    """One for each resource."""
    operations: dict[tuple[str, str, str], list[str]] = {}
    for right in rights:
        pattern = "prefixed" if right.prefixed else "literal"
        operations.setdefault((right.resource, right.name, pattern), []).append(right.operation)
    for (resource, name, pattern), allowed in operations.items():
        yield {
            "role": role.value,
            "resource": resource,
            "name": name,
            "pattern": pattern,
            "operations": ",".join(allowed),
        }


def _principals(given: Iterable[str]) -> dict[Role, list[str]]:
    """By role. Raises UsageError."""
    found: dict[Role, list[str]] = {}
    for text in given:
        role, equals, name = text.partition("=")
        kind, colon, rest = name.partition(":")
        if not (role in set(Role) and equals and kind and colon and rest and name.isprintable()):
            raise UsageError(f"--principal takes ROLE=User:NAME with one of the roles {', '.join(Role)}, not {text!r}.")
        found.setdefault(Role(role), []).append(name)
    return found


def _topics(given: Iterable[str], option: str, wanted: Role) -> list[str]:
    """Those that are for this role. Raises UsageError."""
    found = []
    for text in given:
        role, equals, name = text.rpartition("=")
        if not (name == "*" or is_topic(name.removesuffix("*"))) or (equals and role not in set(Role)):
            raise UsageError(
                f"{option} takes TOPIC or ROLE=TOPIC with one of the roles {', '.join(Role)}, not {text!r}."
            )
        if (role or Role.EXECUTOR) == wanted:
            found.append(name)
    return found
