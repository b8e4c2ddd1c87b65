"""For Kafka's own ``kafka-topics.sh`` and ``kafka-acls.sh``: a shell script that changes nothing that is there."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping

from kantoku_kafka.kafka.rights import Resource, Right
from kantoku_kafka.kafka.wanted import TopicPlan

__all__ = ["acls", "topics"]

_HEAD = """#!/bin/sh
# Kafka's bin directory must be in PATH. What this script is given goes to each command: --command-config FILE
set -eu
"""


def topics(plans: Iterable[TopicPlan], bootstrap_servers: str) -> str:
    """Create each topic that is missing."""
    commands = []
    for plan in plans:
        words = ["--create", "--if-not-exists", "--topic", plan.name, "--partitions", str(plan.partitions)]
        if plan.replication_factor is not None:
            words += ["--replication-factor", str(plan.replication_factor)]
        for setting, value in plan.config.items():
            words += ["--config", f"{setting}={value}"]
        commands.append(_command("kafka-topics.sh", bootstrap_servers, words))
    return _HEAD + "".join(commands)


def acls(rights: Mapping[str, Iterable[Right]], bootstrap_servers: str) -> str:
    """Add the rights of each principal. What is the same for several resources is one command."""
    commands = []
    for principal, granted in rights.items():
        operations: dict[tuple[Resource, bool, str], list[str]] = defaultdict(list)
        for right in granted:
            operations[right.resource, right.prefixed, right.name].append(right.operation)
        names: dict[tuple[Resource, bool, tuple[str, ...]], list[str]] = defaultdict(list)
        for (resource, prefixed, name), allowed in operations.items():
            names[resource, prefixed, tuple(allowed)].append(name)
        for (resource, prefixed, wanted), alike in names.items():
            words = ["--add", "--allow-principal", principal]
            words += [word for operation in wanted for word in ("--operation", operation)]
            words += [word for name in alike for word in (f"--{resource}", name)]
            if prefixed:
                words += ["--resource-pattern-type", "prefixed"]
            commands.append(_command("kafka-acls.sh", bootstrap_servers, words))
    return _HEAD + "".join(commands)


def _command(tool: str, bootstrap_servers: str, words: Iterable[str]) -> str:
    return f'{tool} --bootstrap-server {shlex.quote(bootstrap_servers)} "$@" {shlex.join(words)}\n'
