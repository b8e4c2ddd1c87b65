"""The program under test: one echo task for each kind of pool."""

from __future__ import annotations

from kantoku_kafka import Kantoku

kan = Kantoku("bench")


@kan.task("echo", pool="inline")
def echo(data: bytes) -> bytes:
    return data


@kan.task("echo-thread", pool="thread")
def echo_thread(data: bytes) -> bytes:
    return data


@kan.task("echo-asyncio", pool="asyncio")
async def echo_asyncio(data: bytes) -> bytes:
    return data
