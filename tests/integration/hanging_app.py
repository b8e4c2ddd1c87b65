"""A task that holds the loop up, and one that does not, until a file is there."""

from __future__ import annotations

import time
from pathlib import Path

from kantoku_kafka import Kantoku

kan = Kantoku("hanging")


def wait_for(data: bytes) -> bytes:
    while not Path(data.decode()).exists():
        time.sleep(0.05)
    return data


kan.task("inline", pool="inline")(wait_for)
kan.task("thread")(wait_for)
