"""A task type: its function, of bytes, how that is run, and where its tasks come from."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from kantoku_kafka.engine.rules import Rules
from kantoku_kafka.engine.scheduler import Ordering, TypeLimits
from kantoku_kafka.errors import UsageError
from kantoku_kafka.formats.base import Format
from kantoku_kafka.names import NORMAL, Topics, check_task_type, is_priority, is_topic
from kantoku_kafka.payloads import typed
from kantoku_kafka.protocols import Payload
from kantoku_kafka.settings import PoolKind, choice

__all__ = ["TaskType", "where"]

_MOST_WEIGHT = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskType:
    """As it is registered. Immutable.

    Parameters:
        name: of the type.
        function: takes and returns bytes; around the user's, if that one has payloads.
        pool: where it runs.
        limits: how many at once, in which order, how fast.
        takes_context: whether the function takes one, too.
        rules: what is asked of every task of the type.
        priorities: and their weights; ``normal`` is one of them.
        payloads: those that the function was given.
        from_topics: topics of others, and how their records are read.

    Raises:
        UsageError: they cannot be, or not together.
    """

    name: str
    function: Callable[..., Any]
    pool: PoolKind
    limits: TypeLimits
    takes_context: bool
    rules: Rules
    priorities: Mapping[str, int] = field(default_factory=lambda: {NORMAL: 1})
    payloads: tuple[Payload, ...] = ()
    from_topics: Mapping[str, Format] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_task_type(self.name)
        self._check_priorities()
        self._check_topics()
        self._check_limits()
        self._check_pool()

    @classmethod
    def of(
        cls,
        name: str,
        function: Callable[..., Any],
        *,
        pool: PoolKind | str | None,
        limits: TypeLimits,
        rules: Rules,
        priorities: Mapping[str, int] | None,
        payloads: tuple[Payload, ...],
        from_topics: Mapping[str, Format] | None,
    ) -> Self:
        """That of a user's function, in the pool that suits it if none is named. Raises UsageError."""
        suitable = PoolKind.ASYNCIO if inspect.iscoroutinefunction(function) else PoolKind.THREAD
        takes_context = _takes_context(name, function)
        return cls(
            name=name,
            function=typed(function, *payloads, takes_context=takes_context) if payloads else function,
            pool=choice(PoolKind, "pool", pool or suitable),
            limits=limits,
            takes_context=takes_context,
            rules=rules,
            priorities={NORMAL: 1, **(priorities or {})},
            payloads=payloads,
            from_topics=dict(from_topics or {}),
        )

    def own_inputs(self, topics: Topics) -> dict[str, int]:
        """The topics of ours that its tasks come from, and the weight of each. Raises UsageError."""
        return {topics.of_type(self.name, priority): weight for priority, weight in self.priorities.items()}

    def inputs(self, topics: Topics) -> dict[str, int]:
        """All topics that its tasks come from, and the weight of each: a foreign one has that of priority normal."""
        return dict.fromkeys(self.from_topics, self.priorities[NORMAL]) | self.own_inputs(topics)

    def _check_priorities(self) -> None:
        for priority, weight in self.priorities.items():
            if not isinstance(priority, str) or not is_priority(priority):
                raise UsageError(
                    f"Task {self.name!r}: {priority!r} is no priority: use lower-case letters, digits, '_' and '-', "
                    "at most 32."
                )
            if not isinstance(weight, int) or isinstance(weight, bool) or not 1 <= weight <= _MOST_WEIGHT:
                raise UsageError(
                    f"Task {self.name!r}: the weight of priority {priority!r} is a whole number from 1 to "
                    f"{_MOST_WEIGHT}, not {weight!r}."
                )

    def _check_topics(self) -> None:
        for topic, one in self.from_topics.items():
            if not isinstance(topic, str) or not is_topic(topic):
                raise UsageError(f"Task {self.name!r}: {topic!r} in from_topics cannot be a topic.")
            if not isinstance(one, Format):
                raise UsageError(
                    f"Task {self.name!r}: from_topics takes a format for {topic!r}, e.g. Json(), not {one!r}."
                )
        if self.rules.reply_to in self.from_topics:
            raise UsageError(
                f"Task {self.name!r} takes its own replies for tasks: reply_to {self.rules.reply_to!r} is in "
                "from_topics."
            )

    def _check_limits(self) -> None:
        task, limits = f"Task {self.name!r}", self.limits
        if limits.concurrency is not None and limits.concurrency < 1:
            raise UsageError(f"{task}: concurrency must be at least 1, not {limits.concurrency}.")
        if limits.key_concurrency < 1 or (limits.key_concurrency > 1 and limits.ordering is not Ordering.KEY):
            raise UsageError(f"{task}: key_concurrency is at least 1, and more only with ordering='key'.")
        if limits.rate_per_second is not None and not 0 < limits.rate_per_second < math.inf:
            raise UsageError(f"{task}: rate_per_second must be positive, not {limits.rate_per_second}.")

    def _check_pool(self) -> None:
        task, is_async = f"Task {self.name!r}", inspect.iscoroutinefunction(self.function)
        if self.pool is PoolKind.INLINE and any(payload.blocking for payload in self.payloads):
            raise UsageError(f"{task}: its payload may wait for a network, pool 'inline' must not: use 'thread'.")
        if is_async and self.pool in (PoolKind.INLINE, PoolKind.THREAD):
            raise UsageError(
                f"{task} is async def: pool {self.pool.value!r} cannot run it, use 'asyncio' or 'process'."
            )
        if not is_async and self.pool is PoolKind.ASYNCIO:
            raise UsageError(f"{task} is a plain function and would block the asyncio pool: use 'thread'.")


def _takes_context(name: str, function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind(b"", None)
    except ValueError:  # some builtins have none
        return False
    except TypeError:
        try:
            inspect.signature(function).bind(b"")
        except TypeError:
            raise UsageError(f"Task {name!r}: {where(function)} must take (data) or (data, ctx).") from None
        return False
    return True


def where(function: Callable[..., Any]) -> str:
    """Where a function stands in the code, for people."""
    name = getattr(function, "__qualname__", None)  # a partial has none
    return repr(function) if name is None else f"{function.__module__}.{name}"
