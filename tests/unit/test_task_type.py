"""What may be registered as a task type, and what is said of the rest."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from kantoku_kafka import Context, Kantoku
from kantoku_kafka.bindings import chosen_types
from kantoku_kafka.errors import UsageError
from kantoku_kafka.formats.plain import Json
from kantoku_kafka.settings import PoolKind


async def asynchronous(data: bytes) -> bytes:
    return data


def plain(data: bytes) -> bytes:
    return data


def with_context(data: bytes, ctx: Context) -> bytes:
    return ctx.task_id.encode() + data


def nothing() -> bytes:
    return b""


@pytest.mark.parametrize(
    ("function", "options", "says"),
    [
        (nothing, {}, r"nothing must take \(data\) or \(data, ctx\)"),
        (functools.partial(nothing), {}, r"partial.* must take \(data\) or \(data, ctx\)"),
        (asynchronous, {"pool": "thread"}, "async def: pool 'thread' cannot run it"),
        (asynchronous, {"pool": "inline"}, "async def: pool 'inline' cannot run it"),
        (plain, {"pool": "asyncio"}, "a plain function and would block"),
        (plain, {"pool": "gpu"}, "pool"),
        (plain, {"ordering": "random"}, "ordering"),
        (plain, {"concurrency": 0}, "concurrency must be at least 1, not 0"),
        (plain, {"key_concurrency": 2}, "more only with ordering='key'"),
        (plain, {"rate_per_second": 0}, "rate_per_second must be positive"),
        (plain, {"rate_per_second": float("nan")}, "rate_per_second must be positive"),
        (plain, {"priorities": {"High": 1}}, "'High' is no priority"),
        (plain, {"priorities": {"high": 1_001}}, "a whole number from 1 to 1000, not 1001"),
        (plain, {"from_topics": {"no topic": Json()}}, "'no topic' in from_topics cannot be a topic"),
        (plain, {"from_topics": {"orders": Json}}, "takes a format for 'orders'"),
        (plain, {"from_topics": {"orders": Json()}, "reply_to": "orders"}, "takes its own replies for tasks"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(function: Callable[..., Any], options: dict[str, Any], says: str) -> None:
    kan = Kantoku("shop")
    with pytest.raises(UsageError, match=says):
        kan.task("t", **options)(function)
    assert not kan.task_types


@pytest.mark.parametrize("name", ["", "no type", "é", "-a", "a" * 201, None])
def test_a_name_that_cannot_be(name: Any) -> None:
    with pytest.raises(UsageError, match="cannot be a task type"):
        Kantoku("shop").task(name)(plain)


def test_a_decorator_without_a_name() -> None:
    with pytest.raises(UsageError, match=r"test_task_type\.plain: write @kan\.task\('NAME'\)"):
        Kantoku("shop").task(plain)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("other", [with_context, functools.partial(plain)])
def test_two_of_one_name(other: Callable[..., bytes]) -> None:
    kan = Kantoku("shop")
    kan.task("t")(plain)
    with pytest.raises(UsageError, match=r"Two tasks are named 't': .*plain and .*\. Rename one"):
        kan.task("t")(other)
    assert kan.task_types["t"].function is plain


def test_the_pool_follows_from_the_function_unless_it_is_named() -> None:
    kan = Kantoku("shop")
    kan.task("async")(asynchronous)
    kan.task("plain")(with_context)
    kan.task("named", pool="process")(plain)
    found = {name: (task.pool, task.takes_context) for name, task in kan.task_types.items()}
    assert found == {
        "async": (PoolKind.ASYNCIO, False),
        "plain": (PoolKind.THREAD, True),
        "named": (PoolKind.PROCESS, False),
    }
    assert chosen_types(kan, ["plain", "named"], PoolKind.INLINE, None)["named"].pool is PoolKind.INLINE
    with pytest.raises(UsageError, match="async def: pool 'inline' cannot run it"):
        chosen_types(kan, None, PoolKind.INLINE, None)
