"""Where the executor's loop stands, for its meters."""

from __future__ import annotations

from kantoku_kafka.engine.intake import Intake
from kantoku_kafka.engine.pools import Pools
from kantoku_kafka.meter import Standing

__all__ = ["standing_of"]


def standing_of(pools: Pools, intake: Intake) -> Standing:
    """In the loop's thread."""
    waiting = pools.waiting_by_type()
    return Standing(
        assigned=len(intake.windows),
        paused=len(intake.paused),
        blocked=intake.blocked,
        in_flight=pools.running_by_type(),
        waiting={name: count for name, (count, _) in waiting.items()},
        written_at_ms={name: at_ms for name, (_, at_ms) in waiting.items() if at_ms is not None},
        undone=intake.undone(),
    )
