"""The topics of an app as they should be, and what is lost where one is otherwise. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from kantoku_kafka.names import Topics

__all__ = ["TopicPlan", "plan"]

_DAY_MS = 86_400_000
_MIB = 1 << 20
_COPIES = 2
"""How many replicas have a record before it counts as written, where there are enough of them."""


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """One topic as it should be.

    Attributes:
        config: settings of the topic, by Kafka's names.
        fixed: its number of partitions must never change once there are records.
        replication_factor: None: the broker's default.
        holds: what of it would be lost, in words.
    """

    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)
    fixed: bool = False
    replication_factor: int | None = None
    holds: str = "records"


def plan(
    topics: Topics,
    task_types: Iterable[str],
    *,
    inputs: Iterable[str] = (),
    partitions: int = 4,
    replication_factor: int | None = None,
) -> list[TopicPlan]:
    """What an app needs.

    Parameters:
        topics: the names.
        task_types: for their input topics.
        inputs: further input topics, those of priorities.
        partitions: of each topic; default 4. For results, events and timers the number is for ever.
        replication_factor: of each topic; from 3 on, two copies are written before a record counts. Default: the
            broker's, and as many copies as it says.
    """
    week, month = str(7 * _DAY_MS), str(30 * _DAY_MS)
    two_mib = str(2 * _MIB)
    names = sorted({*map(topics.of_type, task_types), *inputs})  # types may share a topic
    wanted = [
        *(
            TopicPlan(name, partitions, {"cleanup.policy": "delete", "retention.ms": week}, holds="waiting tasks")
            for name in names
        ),
        TopicPlan(
            topics.results,
            partitions,
            {"cleanup.policy": "compact,delete", "retention.ms": week},
            fixed=True,
            holds="results",
        ),
        # Stamped by the broker: the offsets of a time are then those of all that stood there by that time.
        TopicPlan(
            topics.events,
            partitions,
            {"cleanup.policy": "compact", "message.timestamp.type": "LogAppendTime"},
            fixed=True,
            holds="events",
        ),
        # A dead letter is its original and the cause: it must fit where the original did.
        TopicPlan(
            topics.dlq,
            partitions,
            {"cleanup.policy": "delete", "retention.ms": month, "max.message.bytes": two_mib},
            holds="dead letters",
        ),
        # A timer is a task and where it belongs. Rebuilding reads the segment that is not compacted yet: a small one.
        TopicPlan(
            topics.timers,
            partitions,
            {
                "cleanup.policy": "compact",
                "max.message.bytes": two_mib,
                "segment.bytes": str(128 * _MIB),
                "min.cleanable.dirty.ratio": "0.2",
            },
            fixed=True,
            holds="delayed and retried tasks",
        ),
        TopicPlan(
            topics.schedules,
            1,
            {"cleanup.policy": "compact", "max.message.bytes": two_mib},
            fixed=True,
            holds="schedules",
        ),
        TopicPlan(
            topics.control,
            1,
            {"cleanup.policy": "compact,delete", "retention.ms": week, "message.timestamp.type": "LogAppendTime"},
            fixed=True,  # who runs listens to those partitions that were there as it began
            holds="commands",
        ),
    ]
    if replication_factor is None:
        return wanted
    copies = {"min.insync.replicas": str(_COPIES)} if replication_factor > _COPIES else {}
    return [replace(one, replication_factor=replication_factor, config={**one.config, **copies}) for one in wanted]
