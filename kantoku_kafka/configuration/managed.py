"""Settings on which a promise stands, or the program's own working: a user's value for them does not count."""

from __future__ import annotations

from collections.abc import Mapping

from kantoku_kafka.configuration.known import canonical

__all__ = ["MANAGED", "TUNED", "is_managed", "note", "overridden"]

MANAGED: Mapping[str, tuple[str | None, str]] = {
    "acks": ("all", "a record counts only once all replicas in sync have it"),
    "allow.auto.create.topics": ("false", "topics are made by topics create"),
    "auto.commit.interval.ms": (None, "nothing commits by itself"),
    "auto.offset.reset": ("earliest", "new partitions are read from their beginning"),
    "delivery.report.only.error": (None, "a spawn waits for its acknowledgement"),
    "delivery.timeout.ms": (None, "a spawn has delivery_timeout_seconds, a transaction its own limit"),
    "enable.auto.commit": ("false", "offsets are committed together with results"),
    "enable.auto.offset.store": (None, "offsets are committed together with results"),
    "enable.idempotence": ("true", "a record that is sent again must not be there twice"),
    "enable.partition.eof": (None, "readers count on it"),
    "group.id": (None, "the group follows from the namespace"),
    "group.instance.id": (None, "give --slot"),
    "group.protocol": (None, "give --group-protocol"),
    "heartbeat.interval.ms": (None, "it belongs to the session timeout"),
    "isolation.level": ("read_committed", "what a transaction took back is no result"),
    "max.in.flight.requests.per.connection": (None, "more than 5 could change the order of records"),
    "partition.assignment.strategy": ("cooperative-sticky", "a rebalance must not stop what runs"),
    "partitioner": ("murmur2_random", "any client must find the same partition for a key"),
    "retries": (None, "sending again is safe, giving up is not"),
    "session.timeout.ms": ("10000", "a crash is noticed after 10 s"),
    "socket.timeout.ms": (None, "a request ends before its transaction does"),
    "transaction.timeout.ms": (None, "transactions never wait for a task"),
    "transactional.id": (None, "it follows from the slot"),
}
"""Key: our value for it, if it is one for all, and the reason."""

TUNED = frozenset(
    {
        "batch.size",
        "check.crcs",
        "connections.max.idle.ms",
        "fetch.queue.backoff.ms",
        "fetch.wait.max.ms",
        "linger.ms",
        "max.partition.fetch.bytes",
        "message.max.bytes",
        "queued.max.messages.kbytes",
        "queued.min.messages",
        "retry.backoff.max.ms",
        "retry.backoff.ms",
        "topic.metadata.propagation.max.ms",
        "topic.metadata.refresh.interval.ms",
    }
)
"""What some of our clients set for themselves; of the others the user's value counts."""


def is_managed(key: str) -> bool:
    """Whether a user's value for the key does not count."""
    return canonical(key) in MANAGED


def note(key: str) -> str:
    """What people should know of a setting beside its value; mostly nothing."""
    if is_managed(key):
        return f"ignored: {MANAGED[canonical(key)][1]}"
    return "executors and spawners have their own" if canonical(key) in TUNED else ""


def overridden(config: Mapping[str, object]) -> list[str]:
    """Of a user's settings those that do not count, in words; without those that say what we do anyway."""
    found = []
    for key, value in config.items():
        if is_managed(key):
            own, reason = MANAGED[canonical(key)]
            if own is None or str(value).lower() != own:
                found.append(f"{key} ({reason})")
    return found
