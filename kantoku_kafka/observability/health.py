"""Whether a process has started, lives and is ready, as reasons why not. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kantoku_kafka.meter import Vitals

__all__ = ["PROBES", "live", "ready", "started"]

_TURNS_WITHIN_SECONDS = 30.0
"""A loop that is ready. A rebalance, and one checkpoint that is refused, may take as long as half of that."""


def started(vitals: Vitals, _: float) -> list[str]:
    """It has connected, found its topics and started its pools."""
    return ["it has not connected yet"] if vitals.turned_at is None else []


def live(vitals: Vitals, now: float) -> list[str]:
    """Its loop has not hung for so long that the group takes it for dead: to restart it would help."""
    return _silent(vitals, now, vitals.patience_seconds)


def ready(vitals: Vitals, now: float) -> list[str]:
    """It takes tasks: it has partitions, its loop goes round, and it does not drain."""
    reasons = started(vitals, now) or _silent(vitals, now, _TURNS_WITHIN_SECONDS)
    if vitals.stopping:
        reasons.append("it drains")
    elif vitals.turned_at is not None and not vitals.assigned:
        reasons.append("it has no partitions: there are none left for it, or its group is not settled yet")
    return reasons


def _silent(vitals: Vitals, now: float, most_seconds: float) -> list[str]:
    seconds = 0.0 if vitals.turned_at is None else now - vitals.turned_at
    return [f"its loop has not gone round for {seconds:.0f} s"] if seconds > most_seconds else []


PROBES: Mapping[str, Callable[[Vitals, float], list[str]]] = {"/startupz": started, "/livez": live, "/readyz": ready}
"""By path, what Kubernetes asks; with the monotonic time."""
