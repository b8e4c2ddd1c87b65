"""A process whose clock is set while it runs: a file says by how many seconds it is wrong."""

from __future__ import annotations

import time
from pathlib import Path

from tests.chaos.patching import replace

__all__ = ["install"]


def install(path: str) -> None:
    """Make this process such a one; nothing happens if the text is empty. The clock that only runs is left alone."""
    if not path:
        return
    file, time_ns = Path(path), time.time_ns

    def shifted_ns() -> int:
        return time_ns() + round(float(file.read_text() or 0) * 1e9)

    replace(time, "time_ns", lambda _: shifted_ns)
    replace(time, "time", lambda _: lambda: shifted_ns() / 1e9)
