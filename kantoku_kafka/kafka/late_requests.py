"""How a transactional producer is kept safe from its own requests that arrive late.

librdkafka sends a request again when a connection breaks, and does not tell. The first one may still be under way,
arrive when its transaction is long over, and end the next one of the same producer epoch (KAFKA-17754; brokers forbid
it from KIP-890 on, with clients that know of it). A request is not sent again before the backoff has passed. So a
commit that was quicker than that sent nothing twice; after any other one the producer is replaced: a new epoch fences
what is under way.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

__all__ = ["BACKOFF", "may_be_under_way"]

_BACKOFF_MS = 250
_SHORTEST_SECONDS = 0.75 * _BACKOFF_MS / 1000  # librdkafka varies the backoff by a fifth

BACKOFF: Mapping[str, object] = {"retry.backoff.ms": _BACKOFF_MS, "retry.backoff.max.ms": 4 * _BACKOFF_MS}
"""Settings of a transactional producer."""


def may_be_under_way(since: float) -> bool:
    """Whether a request may have been sent twice since this time (``time.monotonic()``)."""
    return time.monotonic() - since > _SHORTEST_SECONDS
