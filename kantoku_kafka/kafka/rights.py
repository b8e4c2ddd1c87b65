"""The least rights of each role, as Kafka's authorizer knows them. Pure.

A broker takes ``Read`` and ``Write`` for ``Describe`` as well, of topics, groups and transactional ids alike: where one
of them is granted, ``Describe`` is not named.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from typing import NamedTuple

from kantoku_kafka.names import Topics

__all__ = ["Operation", "Resource", "Right", "Role", "rights_of"]

_ANY = "*"


class Role(StrEnum):
    """Who needs rights."""

    SPAWNER = "spawner"
    """Spawns tasks, also in transactions, and waits for results."""
    EXECUTOR = "executor"
    """``run-executor``; it fires timers and schedules as well, unless it is told not to."""
    OBSERVER = "observer"
    """Looks at everything and changes nothing."""
    SCHEDULER = "scheduler"
    """``run-scheduler``: timers and schedules alone."""
    ADMIN = "admin"
    """An observer that also makes topics, steers executors and tasks, keeps schedules, and redrives dead letters."""


class Resource(StrEnum):
    """What a right is for, in the words of Kafka's tools."""

    TOPIC = "topic"
    GROUP = "group"
    TRANSACTIONAL_ID = "transactional-id"


class Operation(StrEnum):
    """What a right allows, in the words of Kafka's tools."""

    READ = "Read"
    WRITE = "Write"
    CREATE = "Create"
    DELETE = "Delete"
    DESCRIBE = "Describe"
    DESCRIBE_CONFIGS = "DescribeConfigs"


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """One operation on one resource; ``prefixed``: on all whose names begin so. The topic ``*`` is every topic."""

    resource: Resource
    name: str
    operation: Operation
    prefixed: bool = False

    @property
    def open(self) -> bool:
        """Whether it is for resources that it does not name."""
        return self.prefixed or self.name == _ANY

    @classmethod
    def on_topic(cls, name: str, operation: Operation) -> Right:
        """``*`` at the end of a name stands for any rest."""
        prefixed = name != _ANY and name.endswith(_ANY)
        return cls(Resource.TOPIC, name.removesuffix(_ANY) if prefixed else name, operation, prefixed)


def rights_of(
    role: Role,
    topics: Topics,
    inputs: Iterable[str],
    *,
    foreign: Iterable[str] = (),
    replies: Iterable[str] = (),
    reads: Iterable[str] = (),
    writes: Iterable[str] = (),
    timers: bool = True,
) -> list[Right]:
    """What a role needs and no more, in an order that does not change.

    Parameters:
        topics: the names of the namespace.
        inputs: the input topics of the app.
        foreign: the topics of others that it takes tasks from.
        replies: the topics of others that replies go to; ``*`` at the end of one stands for any rest.
        reads, writes: what this role reads and writes besides, in the same manner.
        timers: whether executors fire timers and schedules too; default yes.
    """
    roles = [role, Role.SCHEDULER] if role is Role.EXECUTOR and timers else [role]
    needs = [_needs(one, topics, sorted(inputs)) for one in roles]
    of_topics = [*chain(*(one.topics for one in needs)), (Operation.READ, reads), (Operation.WRITE, writes)]
    if role in (Role.EXECUTOR, Role.OBSERVER, Role.ADMIN):
        of_topics.append((Operation.READ, foreign))
    if role in (Role.EXECUTOR, Role.SCHEDULER):  # which ends tasks too: those that are cancelled, or too late
        of_topics.append((Operation.WRITE, replies))
    rights = {Right.on_topic(name, operation) for operation, names in of_topics for name in names}
    of_groups = chain(*(one.groups for one in needs))
    rights |= {Right(Resource.GROUP, name, operation) for operation, names in of_groups for name in names}
    transactions = chain(*(one.transactions for one in needs))
    rights |= {Right(Resource.TRANSACTIONAL_ID, f"{name}.", Operation.WRITE, prefixed=True) for name in transactions}
    return sorted(rights)


_Operations = Sequence[tuple[Operation, Iterable[str]]]


class _Needs(NamedTuple):
    """Operations on topics and groups; of the transactional ids what they begin with."""

    topics: _Operations
    groups: _Operations = ()
    transactions: Sequence[str] = ()


def _needs(role: Role, topics: Topics, inputs: Sequence[str]) -> _Needs:
    results, events, dlq, control = topics.results, topics.events, topics.dlq, topics.control
    timers, schedules = topics.timers, topics.schedules
    everything = [*inputs, results, events, dlq, timers, schedules, control]
    read, write, configs, describe = Operation.READ, Operation.WRITE, Operation.DESCRIBE_CONFIGS, Operation.DESCRIBE
    match role:
        case Role.SPAWNER:
            return _Needs([(write, [*inputs, events]), (read, [results])], transactions=[topics.spawners])
        case Role.SCHEDULER:
            # It fires onto inputs, cancels what a schedule spawned, and asks results whether that has ended.
            return _Needs(
                [(read, [timers, schedules, control, results]), (write, everything), (configs, everything)],
                [(read, [topics.timers_group])],
                [topics.timers_group],
            )
        case Role.EXECUTOR:
            # Children and retries go onto inputs; results and events tell what had ended where the group was set back.
            touched = [*inputs, results, events, dlq, timers, control]
            return _Needs(
                [(read, [*inputs, control, results, events]), (write, touched), (configs, touched)],
                [(read, [topics.group])],
                [topics.group],
            )
        case Role.OBSERVER:
            return _Needs([(read, everything), (configs, everything)], [(describe, [topics.group])])
        case Role.ADMIN:
            return _Needs(
                [
                    (read, everything),
                    (write, [*inputs, events, control, schedules]),
                    (configs, everything),
                    (Operation.CREATE, everything),
                    (Operation.DELETE, [dlq]),
                ],
                [(describe, [topics.group])],
                [topics.spawners],
            )
