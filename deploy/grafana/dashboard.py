"""The dashboard as code: prints kantoku.json, which deploy/generate.sh writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

_WIDTH, _HEIGHT, _COLUMNS = 8, 7, 24
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
_MINE = 'job=~"$job"'
_TYPES = _MINE + ', type=~"$type"'


class Panel(NamedTuple):
    """One graph: lines are (PromQL, legend). ``unit``: a name that Grafana knows."""

    title: str
    unit: str
    lines: list[tuple[str, str]]
    help: str


def rate(metric: str, by: str, where: str = _MINE, what: str = "") -> list[tuple[str, str]]:
    """How fast a counter grows, by labels; the legend ends with ``what``."""
    return [(f"sum by ({by}) (rate({metric}{{{where}}}[$__rate_interval]))", _legend(by, what))]


def total(metric: str, by: str, where: str = _MINE, what: str = "", fold: str = "sum") -> list[tuple[str, str]]:
    """A gauge over all processes, by labels."""
    return [(f"{fold} by ({by}) ({metric}{{{where}}})", _legend(by, what))]


def quantiles(metric: str, by: str, where: str = _MINE) -> list[tuple[str, str]]:
    """Median and slowest twentieth of a histogram, by a label."""
    ((buckets, _),) = rate(f"{metric}_bucket", f"le, {by}", where)
    return [(f"histogram_quantile({q}, {buckets})", f"p{q * 100:.0f} {_legend(by)}") for q in (0.5, 0.95)]


def share(metric: str, by: str, where: str, condition: str) -> list[tuple[str, str]]:
    """Of a counter's growth that of the series with a condition, by a label."""
    ((some, legend),), ((all_, _),) = rate(metric, by, f"{where}, {condition}"), rate(metric, by, where)
    return [(f"{some} / {all_}", legend)]


def _legend(by: str, what: str = "") -> str:
    return " ".join([*(f"{{{{{label}}}}}" for label in by.split(", ")), *([what] if what else [])])


ROWS = {
    "Tasks": [
        Panel(
            "Ended, by status",
            "ops",
            rate("kantoku_tasks_total", "status", _TYPES),
            "Tasks per second whose result was published.",
        ),
        Panel("Ended, by type", "ops", rate("kantoku_tasks_total", "type", _TYPES), "The same by task type."),
        Panel(
            "Not OK",
            "percentunit",
            share("kantoku_tasks_total", "type", _TYPES, 'status!="OK"'),
            "Share of the results that are not OK. No line: nothing has ended.",
        ),
        Panel(
            "Queue age",
            "s",
            total("kantoku_oldest_waiting_seconds", "type", _TYPES, fold="max"),
            "How long the oldest task that waits in an executor has waited.",
        ),
        Panel("Lag", "short", total("kantoku_lag_records", "topic"), "Records of the inputs that are not done."),
        Panel(
            "In flight and waiting",
            "short",
            total("kantoku_tasks_in_flight", "type", _TYPES, "in flight")
            + total("kantoku_tasks_waiting", "type", _TYPES, "waiting"),
            "In flight: they run, or are next in line in a pool. Waiting: fetched, and not given to a pool yet.",
        ),
        Panel(
            "How long functions run",
            "s",
            quantiles("kantoku_execution_seconds", "type", _TYPES),
            "Of each attempt. No line: nothing ran.",
        ),
        Panel(
            "Retries and duplicates",
            "ops",
            rate("kantoku_retries_total", "type", _TYPES, "tried again")
            + rate("kantoku_duplicates_total", "type", _TYPES, "duplicate"),
            "Attempts that failed and are tried again; spawns of an id that was spawned before.",
        ),
        Panel(
            "Dead letters in an hour",
            "short",
            [(f"sum by (type) (increase(kantoku_dead_letters_total{{{_TYPES}}}[1h]))", "{{type}}")],
            "Records that no task can be read from, and tasks whose attempts are used up: kantoku-kafka dlq list.",
        ),
    ],
    "Timers": [
        Panel(
            "Pending",
            "short",
            total("kantoku_timers_pending", "topic"),
            "What waits for its time: delayed tasks and retries, and schedules.",
        ),
        Panel(
            "Late",
            "s",
            total("kantoku_timers_overdue_seconds", "instance", fold="max"),
            "How late the timer is that is due next.",
        ),
        Panel(
            "Fired",
            "ops",
            rate("kantoku_timers_fired_total", "type", _TYPES, "timer")
            + rate("kantoku_scheduled_total", "type", _TYPES, "schedule"),
            "Tasks put onto their inputs by timers, and spawned by schedules.",
        ),
    ],
    "Checkpoints": [
        Panel(
            "How long a checkpoint takes",
            "s",
            quantiles("kantoku_checkpoint_seconds", "loop"),
            "From its begin to its commit.",
        ),
        Panel(
            "Records in a checkpoint",
            "short",
            quantiles("kantoku_checkpoint_records", "loop"),
            "Under load checkpoints grow by themselves.",
        ),
        Panel(
            "Data in a checkpoint",
            "bytes",
            quantiles("kantoku_checkpoint_bytes", "loop"),
            "But for envelopes and events.",
        ),
        Panel(
            "Refused and fenced",
            "ops",
            rate("kantoku_checkpoints_refused_total", "instance", what="refused")
            + rate("kantoku_fenced_total", "instance", what="fenced"),
            "A few around a rebalance are usual: each is tried again.",
        ),
        Panel(
            "Blocked and paused partitions",
            "short",
            total("kantoku_blocked_partitions", "instance", what="blocked")
            + total("kantoku_paused_partitions", "instance", what="paused"),
            "Blocked: an old task that runs holds up new ones. Paused: enough waits, which is usual under load.",
        ),
        Panel(
            "Heartbeats",
            "ops",
            rate("kantoku_heartbeats_total", "outcome"),
            "What executors say of themselves, delivered or lost.",
        ),
    ],
    "Group": [
        Panel(
            "Assigned partitions",
            "short",
            total("kantoku_assigned_partitions", "instance, loop"),
            "Who has how many.",
        ),
        Panel(
            "Rebalances in five minutes",
            "short",
            [(f"sum by (loop, change) (increase(kantoku_rebalances_total{{{_MINE}}}[5m]))", "{{loop}} {{change}}")],
            "Lost: the group took an executor for dead.",
        ),
        Panel(
            "Processes, by version",
            "short",
            total("kantoku_build_info", "version", fold="count"),
            "More than one line while a new version is rolled out.",
        ),
    ],
    "Process and connections": [
        Panel("Processor", "percentunit", rate("process_cpu_seconds_total", "instance"), "Of one core."),
        Panel(
            "Memory",
            "bytes",
            total("process_resident_memory_bytes", "instance"),
            "Resident; children of pool process are not in it.",
        ),
        Panel(
            "Open descriptors",
            "percentunit",
            [(f"process_open_fds{{{_MINE}}} / process_max_fds{{{_MINE}}}", "{{instance}}")],
            "Of those that there may be.",
        ),
        Panel(
            "Round trip to the coordinator",
            "s",
            total("kantoku_coordinator_rtt_seconds", "loop", fold="max"),
            "Mean of the consumers' heartbeats to their group's coordinator.",
        ),
        Panel(
            "Consumer traffic",
            "Bps",
            rate("kantoku_consumer_received_bytes_total", "loop", what="received")
            + rate("kantoku_consumer_sent_bytes_total", "loop", what="sent"),
            "What consumers read and ask.",
        ),
        Panel(
            "Consumer requests",
            "reqps",
            rate("kantoku_consumer_requests_total", "loop", what="sent")
            + rate("kantoku_consumer_request_timeouts_total", "loop", what="timed out"),
            "Requests to brokers, and those without an answer in time.",
        ),
        Panel(
            "Fetched and not taken",
            "bytes",
            total("kantoku_consumer_queue_bytes", "instance, loop"),
            "What the client library holds for the executor.",
        ),
        Panel(
            "The same in records",
            "short",
            total("kantoku_consumer_queue_records", "instance, loop"),
            "What the client library holds for the executor.",
        ),
    ],
}


def dashboard() -> dict[str, Any]:
    """As Grafana imports it."""
    return {
        "uid": "kantoku-kafka",
        "title": "Kantoku",
        "description": "Executors of kantoku-kafka: docs/howto/observability.md.",
        "tags": ["kantoku", "kafka"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": list(_variables())},
        "panels": list(_panels()),
    }


def _variables() -> Iterator[dict[str, Any]]:
    yield {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    for name, label, query in (
        ("job", "Job", "label_values(kantoku_build_info, job)"),
        ("type", "Task type", f"label_values(kantoku_tasks_total{{{_MINE}}}, type)"),
    ):
        yield {
            "name": name,
            "label": label,
            "type": "query",
            "datasource": _DATASOURCE,
            "query": {"query": query, "refId": name},
            "definition": query,
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        }


def _panels() -> Iterator[dict[str, Any]]:
    number, top = 0, 0
    for row, panels in ROWS.items():
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": row,
            "collapsed": False,
            "gridPos": {"x": 0, "y": top, "w": _COLUMNS, "h": 1},
            "panels": [],
        }
        top += 1
        for index, panel in enumerate(panels):
            number += 1
            across, down = index % (_COLUMNS // _WIDTH), index // (_COLUMNS // _WIDTH)
            yield _graph(panel, number, across * _WIDTH, top + down * _HEIGHT)
        top += -(-len(panels) // (_COLUMNS // _WIDTH)) * _HEIGHT


def _graph(panel: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.help,
        "datasource": _DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": _DATASOURCE, "expr": expr, "legendFormat": legend}
            for index, (expr, legend) in enumerate(panel.lines)
        ],
    }


if __name__ == "__main__":
    print(json.dumps(dashboard(), indent=1))  # noqa: T201 - its output is the file
