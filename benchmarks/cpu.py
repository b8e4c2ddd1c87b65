"""Who spends CPU time while a program is measured, from /proc: its kinds of threads, and the rest of the machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
MAIN, PYTHON, LIBRDKAFKA, REST = "main thread", "other Python threads", "librdkafka", "broker and others"
OWN = (MAIN, PYTHON, LIBRDKAFKA)

CpuSeconds = Mapping[str, float]


def cpu_seconds(pid: int) -> CpuSeconds | None:
    """User and system time so far, by who spent it; None where there is no /proc."""
    try:
        spent = dict.fromkeys(OWN, 0.0)
        for thread in Path(f"/proc/{pid}/task").iterdir():
            name, fields = _stat(thread / "stat")
            kind = MAIN if thread.name == str(pid) else LIBRDKAFKA if name.startswith("rdk:") else PYTHON
            spent[kind] += (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND
        user, nice, system, _idle, _iowait, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    except OSError:
        return None
    return {**spent, REST: (user + nice + system + irq + softirq) / TICKS_A_SECOND - sum(spent.values())}


def _stat(path: Path) -> tuple[str, list[str]]:
    """(name, the fields behind it); a name may hold spaces and parentheses. Format: proc(5)."""
    head, _, tail = path.read_text(encoding="utf-8", errors="replace").rpartition(")")
    return head.partition("(")[2], tail.split()
