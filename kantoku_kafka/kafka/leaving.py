"""How a member leaves its group."""

from __future__ import annotations

import time

from confluent_kafka import Consumer

__all__ = ["leave"]

_SERVE_SECONDS = 0.05
_LEAVE_SECONDS = 10.0


def leave(consumer: Consumer, *, stays: bool = False) -> None:
    """Close a consumer that has subscribed, once what it held is given back; calls its callbacks as ``poll`` does.

    Where a rebalance is still to be told as ``close`` begins, the client may ask itself for something when it answers
    itself no more, for ever and with the interpreter's lock held (librdkafka #4041, #4884). So it is told before.

    Parameters:
        stays: it is a static member of a classic group, and remains one until its session ends; else it leaves now.
    """
    try:
        if not stays:
            consumer.unsubscribe()
        deadline = time.monotonic() + _LEAVE_SECONDS
        consumer.poll(_SERVE_SECONDS)
        while not stays and consumer.assignment() and time.monotonic() < deadline:
            consumer.poll(_SERVE_SECONDS)
    finally:
        consumer.close()
