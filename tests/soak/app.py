"""The tasks of the steady load."""

from __future__ import annotations

import time

from kantoku_kafka import Context, Kantoku, Retry

__all__ = ["TYPES", "kan"]

TYPES = ("quick", "work", "flaky")
_REMEMBERED_SECONDS = 30.0  # so that windows fill while the soak warms up

kan = Kantoku("soak")


@kan.task("quick", pool="inline", deduplicate_all=True, deduplicate_seconds=_REMEMBERED_SECONDS)
def quick(data: bytes) -> bytes:
    return data


@kan.task("work")
def work(data: bytes) -> bytes:
    time.sleep(0.005)
    return data


@kan.task("flaky", retry=Retry(max_attempts=3, initial_seconds=0.5))
def flaky(data: bytes, ctx: Context) -> bytes:
    if ctx.attempt < 2:
        raise ConnectionError("once")
    return data
