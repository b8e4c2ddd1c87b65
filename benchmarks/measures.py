"""The three measures. Each run has a namespace of its own: new topics, new group, nothing left of others."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.cluster import Cluster, Record
from benchmarks.programs import ContestantError, Program, running

POLL_SECONDS = 0.02
FIRST_COMMIT_SECONDS = 60
STALL_SECONDS = 30
CLIENT_SECONDS = 300


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """`cpu_us_per_task` is by who spent it; None where it cannot be read."""

    tasks_per_second: float
    cpu_us_per_task: Mapping[str, float] | None = None


def throughput(
    cluster: Cluster,
    namespace: str,
    task_type: str,
    records: list[Record],
    arguments: Sequence[str],
    interpreter: Sequence[str] = (),
) -> Throughput:
    """How fast an executor works off preloaded tasks, by the offsets that it has committed.

    The clock runs from the first sight of a commit to the sight of the last one, so that imports, joining
    the group and the first fetch do not count; nor do the tasks that were done at the first sight.
    """
    topic, group, total = f"{namespace}.tasks.{task_type}", f"{namespace}.executors", len(records)
    with cluster.namespace(namespace), cluster.group(group, topic) as committed:
        cluster.preload(topic, records)
        with running(arguments, interpreter) as program:
            first = _first_commit(committed, program)
            started, cpu_before = time.perf_counter(), program.cpu_seconds()
            if first == total:
                raise program.failure(f"all {total:,} tasks were done at the first sight: use more tasks")
            _await_commits(committed, program, total)
            seconds, cpu_after = time.perf_counter() - started, program.cpu_seconds()
            published = cluster.records_in(f"{namespace}.results")
            if published < total:
                raise program.failure(f"committed {total:,} tasks, published only {published:,} results")
    cpu = None
    if cpu_before is not None and cpu_after is not None:
        cpu = {who: 1e6 * (after - cpu_before[who]) / (total - first) for who, after in cpu_after.items()}
    return Throughput(tasks_per_second=(total - first) / seconds, cpu_us_per_task=cpu)


def spawning(cluster: Cluster, namespace: str, arguments: Sequence[str], interpreter: Sequence[str] = ()) -> Throughput:
    """Tasks acknowledged in a second, by the program's own clock: first task to last acknowledgement."""
    with cluster.namespace(namespace), running(arguments, interpreter) as program:
        report = program.report(CLIENT_SECONDS)
        accepted = cluster.records_in(f"{namespace}.tasks.echo")
        if accepted < report["tasks"]:
            raise program.failure(f"{report['tasks']:,} tasks were acknowledged, only {accepted:,} are there")
    return Throughput(tasks_per_second=report["tasks"] / report["seconds"])


def round_trips(
    cluster: Cluster,
    namespace: str,
    executor: Sequence[str],
    client: Sequence[str],
    interpreter: Sequence[str] = (),
) -> list[float]:
    """Milliseconds from spawn to result, one task at a time in an idle system, by the client's own clock."""
    with (
        cluster.namespace(namespace),
        cluster.group(f"{namespace}.executors", f"{namespace}.tasks.echo"),
        running(executor, interpreter) as executor_program,
        running(client) as client_program,
    ):
        try:
            milliseconds = client_program.report(CLIENT_SECONDS)["milliseconds"]
        except ContestantError:
            executor_program.check_alive()
            raise
    assert isinstance(milliseconds, list)
    return milliseconds


def _first_commit(committed: Callable[[], int], program: Program) -> int:
    deadline = time.monotonic() + FIRST_COMMIT_SECONDS
    while time.monotonic() < deadline:
        if seen := committed():
            return seen
        program.check_alive()
        time.sleep(POLL_SECONDS)
    raise program.failure(f"committed nothing within {FIRST_COMMIT_SECONDS} s")


def _await_commits(committed: Callable[[], int], program: Program, total: int) -> None:
    seen, progress = 0, time.monotonic()
    while True:
        before, seen = seen, committed()
        if seen >= total:
            return
        if seen > before:
            progress = time.monotonic()
        elif time.monotonic() - progress > STALL_SECONDS:
            raise program.failure(f"stalled at {seen:,} of {total:,} tasks")
        program.check_alive()
        time.sleep(POLL_SECONDS)
