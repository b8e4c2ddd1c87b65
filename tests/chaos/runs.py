"""The runs that count: load, executors, faults. Scale 1 is what is claimed; a smaller one has less of everything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["RUNS", "Run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One kind of run.

    Parameters:
        tasks, seconds: the load, and over what time it is spread; both grow with the scale.
        mix: of tasks, see ``spawner.MIXES``.
        types: what the executors serve.
        faults: see ``faults.PLANS``.
        executors: processes.
        slots: whether each has a slot of its own.
        fails: whether executors die at steps of their checkpoints.
        options: more of their command line.
        nodes, proxied, partitions, settings, small_disk: the cluster.
        at_least_seconds: at any scale that counts.
    """

    tasks: int
    seconds: float
    mix: str = "quick"
    types: str = "quick,work,flaky"
    faults: str = "nothing"
    executors: int = 3
    slots: bool = False
    fails: bool = False
    options: tuple[str, ...] = ()
    nodes: int = 3
    proxied: bool = False
    partitions: int = 4
    settings: Mapping[str, str] = field(default_factory=dict)
    small_disk: int = 0
    at_least_seconds: float = 20.0


RUNS: Mapping[str, Run] = {
    "eos-broker": Run(tasks=100_000, seconds=180, faults="broker_kills"),
    "eos-executor": Run(tasks=100_000, seconds=180, faults="executor_kills", executors=8, fails=True, nodes=1),
    "eos-slots": Run(tasks=100_000, seconds=180, faults="executor_kills", slots=True, fails=True, nodes=1),
    "eos-consumer": Run(
        tasks=100_000,
        seconds=180,
        faults="executor_kills",
        slots=True,
        fails=True,
        nodes=1,
        options=("--group-protocol", "consumer"),
    ),
    "zombie": Run(tasks=10_000, seconds=90, faults="stopped_executors", nodes=1, at_least_seconds=40),
    "twins": Run(
        tasks=20_000,
        seconds=90,
        faults="twins",
        slots=True,
        nodes=1,
        proxied=True,
        options=("--group-protocol", "consumer"),
        at_least_seconds=40,
    ),
    "delayed-endtxn": Run(tasks=20_000, seconds=90, faults="delayed_end", proxied=True, nodes=1, at_least_seconds=40),
    "network": Run(tasks=20_000, seconds=120, faults="bad_network", proxied=True, at_least_seconds=40),
    "storm": Run(tasks=50_000, seconds=120, faults="comings_and_goings", executors=20, partitions=32, nodes=1),
    "long-tasks": Run(
        tasks=200,
        seconds=30,
        mix="long",
        types="long",
        faults="comings_and_goings",
        options=("-X", "max.poll.interval.ms=10000", "--drain-seconds", "5", "-c", "64"),
        nodes=1,
    ),
    "poison": Run(tasks=50_000, seconds=120, mix="poison", types="quick,work,flaky,rogue", nodes=1),
    "compaction": Run(
        tasks=250_000,
        seconds=240,
        faults="replays",
        nodes=1,
        settings={
            "log.cleaner.min.cleanable.ratio": "0.01",
            "log.segment.bytes": str(1 << 20),
            "log.roll.ms": "2000",
            "log.cleaner.delete.retention.ms": "1000",
        },
    ),
    "reset-grow": Run(tasks=20_000, seconds=60, mix="plain", faults="resets_and_growth", nodes=1),
    "environment": Run(
        tasks=20_000,
        seconds=120,
        faults="bad_surroundings",
        small_disk=2,
        at_least_seconds=40,
    ),
}
