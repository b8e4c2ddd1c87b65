"""Which task types an executor serves, and the pool that each of them runs in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from kantoku_kafka.app import Kantoku
from kantoku_kafka.engine.pools import PoolBinding
from kantoku_kafka.engine.scheduler import Scheduler
from kantoku_kafka.errors import UsageError
from kantoku_kafka.invoke import Invoker
from kantoku_kafka.pools.aio import AsyncioExecutor
from kantoku_kafka.pools.hello import Hello
from kantoku_kafka.pools.inline import InlineExecutor
from kantoku_kafka.pools.processes import ProcessExecutor
from kantoku_kafka.pools.threads import ThreadExecutor
from kantoku_kafka.protocols import Executor
from kantoku_kafka.settings import ExecutorSettings, PoolKind
from kantoku_kafka.task_type import TaskType

__all__ = ["bind_pools", "chosen_types"]


def chosen_types(
    kantoku: Kantoku, names: Iterable[str] | None, pool: PoolKind | None, reference: str | None
) -> Mapping[str, TaskType]:
    """The task types to serve, all of them unless ``names`` says which, in ``pool`` if it is given.

    Raises:
        UsageError: nothing to serve, an unknown name, or a pool that cannot run the function.
    """
    registered = kantoku.task_types
    chosen = list(names) if names is not None else list(registered)
    if not chosen:
        raise UsageError("The app has no task types: register one with @kan.task('name').")
    types = {}
    for name in chosen:
        if name not in registered:
            raise UsageError(f"Task type {name!r} is not registered; there are: {', '.join(sorted(registered))}.")
        task = registered[name]
        if pool is not None:
            task = replace(task, pool=pool)
        if task.pool is PoolKind.PROCESS and reference is None:
            raise UsageError(
                f"Task {name!r} runs in pool 'process', whose children import the app themselves: "
                "say where it is, ExecutorProcess(..., reference='module:attribute')."
            )
        types[name] = task
    _check_shared_topics(kantoku, types)
    return types


def _check_shared_topics(kantoku: Kantoku, types: Mapping[str, TaskType]) -> None:
    """Who takes a topic takes all that stands in it: a type in it that is not served would be rejected."""
    served = {topic: name for name, task in types.items() for topic in task.inputs(kantoku.topics)}
    for name in kantoku.task_types.keys() - types.keys():
        for topic in kantoku.task_types[name].inputs(kantoku.topics).keys() & served.keys():
            raise UsageError(f"Task types {served[topic]!r} and {name!r} share topic {topic}: serve both or none.")


def bind_pools(
    kantoku: Kantoku, types: Mapping[str, TaskType], settings: ExecutorSettings, reference: str | None = None
) -> dict[str, PoolBinding]:
    """By task type: one pool of each kind that is used, and one scheduler for the types in it."""
    invoker, concurrency = Invoker(kantoku), settings.concurrency
    bindings: dict[str, PoolBinding] = {}
    for kind in {task.pool for task in types.values()}:
        members = {name: task for name, task in types.items() if task.pool is kind}
        executor: Executor
        match kind:
            case PoolKind.INLINE:
                executor = InlineExecutor(invoker)
            case PoolKind.THREAD:
                executor = ThreadExecutor(invoker, concurrency)
            case PoolKind.ASYNCIO:
                executor = AsyncioExecutor(invoker, concurrency)
            case PoolKind.PROCESS:
                assert reference is not None, "chosen_types has checked it"
                hello = Hello.of(
                    kantoku,
                    reference,
                    members,
                    max_tasks=settings.max_tasks_per_child,
                    max_memory_bytes=settings.max_memory_per_child_bytes,
                )
                executor = ProcessExecutor(hello, concurrency)
        weights = {topic: weight for task in members.values() for topic, weight in task.inputs(kantoku.topics).items()}
        scheduler = Scheduler({name: task.limits for name, task in members.items()}, weights)
        bindings |= dict.fromkeys(members, PoolBinding(executor, scheduler, concurrency + executor.backlog))
    return bindings
