"""Every metric, as data: what is exposed, documented and tested is this table and nothing else.

Names follow Prometheus: base units, ``_total`` for counters. The values of ``type`` are the task types that the process
knows and ``unknown``, so strangers' records add no series.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

__all__ = ["BUCKETS", "Kind", "METRICS", "Metric", "PROCESS", "UNKNOWN"]

UNKNOWN = "unknown"
"""Label ``type`` of what is of no task type that this process knows."""


class Kind(StrEnum):
    """As Prometheus has them."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Metric(NamedTuple):
    """One row. ``unit``: of the value; ``help``: one sentence."""

    name: str
    kind: Kind
    unit: str
    labels: tuple[str, ...]
    help: str


_C, _G, _H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM
_TYPE, _LOOP = ("type",), ("loop",)

PROCESS = (
    Metric("process_cpu_seconds_total", _C, "seconds", (), "CPU time used."),
    Metric("process_resident_memory_bytes", _G, "bytes", (), "Memory resident."),
    Metric("process_virtual_memory_bytes", _G, "bytes", (), "Memory reserved."),
    Metric("process_start_time_seconds", _G, "seconds", (), "When the process started, since the epoch."),
    Metric("process_open_fds", _G, "descriptors", (), "Open file descriptors."),
    Metric("process_max_fds", _G, "descriptors", (), "How many there may be."),
)
"""Those of prometheus-client itself; it has them on Linux only."""

METRICS = (
    # Tasks. Counted when the checkpoint that tells of them is committed, so they agree with the topics.
    Metric(
        "kantoku_tasks_total", _C, "tasks", ("type", "status"), "Tasks that have ended, by the status of their result."
    ),
    Metric("kantoku_execution_seconds", _H, "seconds", _TYPE, "How long the function ran, of each attempt."),
    Metric("kantoku_retries_total", _C, "attempts", _TYPE, "Attempts that failed and are tried again later."),
    Metric("kantoku_dead_letters_total", _C, "records", _TYPE, "Dead letters written."),
    Metric("kantoku_duplicates_total", _C, "tasks", _TYPE, "Tasks left out, because their id had been spawned before."),
    Metric("kantoku_tasks_in_flight", _G, "tasks", _TYPE, "Tasks handed to a pool that have not ended."),
    Metric("kantoku_tasks_waiting", _G, "tasks", _TYPE, "Tasks fetched that wait for their start."),
    Metric(
        "kantoku_oldest_waiting_seconds",
        _G,
        "seconds",
        _TYPE,
        "Queue age: since when the record of the oldest task that waits here stands on its input; 0: none waits.",
    ),
    # Inputs.
    Metric(
        "kantoku_lag_records",
        _G,
        "records",
        ("topic", "partition"),
        "Records of an assigned input partition that are not done, up to its end as it was within the last 15 s.",
    ),
    Metric("kantoku_assigned_partitions", _G, "partitions", _LOOP, "Partitions this process has."),
    Metric(
        "kantoku_paused_partitions", _G, "partitions", (), "Input partitions not fetched, because enough of them waits."
    ),
    Metric(
        "kantoku_blocked_partitions",
        _G,
        "partitions",
        (),
        "Input partitions whose window is full: new work waits until the oldest unfinished task ends.",
    ),
    Metric(
        "kantoku_rebalances_total",
        _C,
        "rebalances",
        ("loop", "change"),
        "Rebalances in which partitions were assigned, revoked or lost.",
    ),
    # Checkpoints.
    Metric("kantoku_checkpoint_seconds", _H, "seconds", _LOOP, "From the begin of a checkpoint to its commit."),
    Metric(
        "kantoku_checkpoint_records", _H, "records", _LOOP, "Records in one checkpoint: results, events and all else."
    ),
    Metric(
        "kantoku_checkpoint_bytes",
        _H,
        "bytes",
        _LOOP,
        "Data in one checkpoint, but for the envelopes and events around.",
    ),
    Metric(
        "kantoku_checkpoints_refused_total",
        _C,
        "checkpoints",
        _LOOP,
        "Checkpoints of which nothing became visible; each is tried again.",
    ),
    Metric("kantoku_fenced_total", _C, "fences", _LOOP, "How often another process took this one's transactional id."),
    # Timers.
    Metric(
        "kantoku_timers_pending",
        _G,
        "timers",
        ("topic",),
        "What waits here for its time: delayed tasks and retries; schedules.",
    ),
    Metric(
        "kantoku_timers_overdue_seconds", _G, "seconds", (), "How late the timer is that is due next; 0: it is not due."
    ),
    Metric("kantoku_timers_fired_total", _C, "timers", _TYPE, "Tasks put onto their inputs when they were due."),
    Metric("kantoku_scheduled_total", _C, "tasks", _TYPE, "Tasks spawned by schedules."),
    # Connections.
    Metric("kantoku_heartbeats_total", _C, "heartbeats", ("outcome",), "Heartbeats, delivered or lost."),
    Metric("kantoku_consumer_requests_total", _C, "requests", _LOOP, "Requests that the consumer has sent to brokers."),
    Metric("kantoku_consumer_request_timeouts_total", _C, "requests", _LOOP, "Of these, how many timed out."),
    Metric("kantoku_consumer_sent_bytes_total", _C, "bytes", _LOOP, "Sent to brokers by the consumer."),
    Metric("kantoku_consumer_received_bytes_total", _C, "bytes", _LOOP, "Received from brokers by the consumer."),
    Metric("kantoku_consumer_queue_records", _G, "records", _LOOP, "Fetched by the client and not taken from it yet."),
    Metric("kantoku_consumer_queue_bytes", _G, "bytes", _LOOP, "The same by size."),
    Metric(
        "kantoku_coordinator_rtt_seconds",
        _G,
        "seconds",
        _LOOP,
        "Mean round trip to the group's coordinator; 0: no request within 5 s.",
    ),
    Metric("kantoku_build_info", _G, "1", ("version", "python", "librdkafka"), "What runs here; always 1."),
    *PROCESS,
)
"""What ``/metrics`` shows."""

_TIMES = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
    900.0,
    3600.0,
)
BUCKETS = {
    "kantoku_execution_seconds": _TIMES,
    "kantoku_checkpoint_seconds": _TIMES[:14],
    "kantoku_checkpoint_records": (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000),
    "kantoku_checkpoint_bytes": (1 << 10, 1 << 13, 1 << 16, 1 << 19, 1 << 20, 1 << 22, 1 << 23, 1 << 25),
}
"""Upper bounds of each histogram; ``+Inf`` comes besides."""
