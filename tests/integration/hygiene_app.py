"""Hooks that note that they ran, and a type with a rate."""

from __future__ import annotations

import os
import time

from kantoku_kafka import Kantoku

kan = Kantoku("hygiene")
state = {"warm": b"cold"}


def note(word: str) -> None:
    descriptor = os.open(os.environ["HOOKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{word}\n".encode())
    os.close(descriptor)


@kan.on_startup
def up() -> None:
    state["warm"] = b"warm"
    note("up")


@kan.on_shutdown
def down() -> None:
    note("down")


@kan.task("warm")
def warm(data: bytes) -> bytes:
    return state["warm"]


@kan.task("warm-process", pool="process")
def warm_process(data: bytes) -> bytes:
    return state["warm"]


@kan.task("limited", rate_per_second=100)
def limited(data: bytes) -> bytes:
    return data


@kan.task("lanes", concurrency=4, priorities={"high": 8, "normal": 2, "low": 1})
def lanes(data: bytes) -> bytes:
    time.sleep(float(data))
    return data
