"""Typed tasks for child processes."""

from __future__ import annotations

from kantoku_kafka import JsonPayload, Kantoku

kan = Kantoku("test")


@kan.task("child", pool="process", payload=JsonPayload())
def child(value: dict[str, int]) -> dict[str, int]:
    return {"n": value["n"] + 1}


@kan.task("async-child", pool="process", payload=JsonPayload())
async def async_child(value: dict[str, int]) -> dict[str, int]:
    return {"n": value["n"] + 1}
