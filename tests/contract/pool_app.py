"""The app whose tasks every pool must be able to run."""

from __future__ import annotations

from kantoku_kafka import Kantoku

kan = Kantoku("pools")
kan_async = Kantoku("pools")


@kan.task("upper")
def upper(data: bytes) -> bytes:
    return data.upper()


@kan.task("fail")
def fail(data: bytes) -> bytes:
    raise ValueError(data.decode())


@kan_async.task("upper")
async def upper_async(data: bytes) -> bytes:
    return data.upper()


@kan_async.task("fail")
async def fail_async(data: bytes) -> bytes:
    raise ValueError(data.decode())
