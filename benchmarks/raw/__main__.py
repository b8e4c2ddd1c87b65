"""Options of `python -m benchmarks.raw`. `spawn` and `echo` print one JSON object."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.raw.clients import make_consumer, make_producer
from benchmarks.raw.loops import WORK, Route, at_least_once, exactly_once
from benchmarks.raw.spawning import echo, spawn


def main() -> None:
    options = _options()
    servers, failures = options.bootstrap_servers, list[str]()
    for_consumer, for_producer = (_tuning(options.set, client) for client in ("consumer.", "producer."))
    if options.command in ("exactly-once", "at-least-once"):
        route = Route(topic=options.topic, results=options.results, batch=options.batch)
        work, stopped = WORK[options.codec], _stopped_by_signal()
        consumer = make_consumer(servers, options.group, for_consumer)
        if options.command == "exactly-once":
            transactional: dict[str, Any] = {
                "transactional.id": f"{options.group}.raw",
                "transaction.timeout.ms": 10_000,
            }
            producer = make_producer(servers, for_producer, **transactional)
            exactly_once(consumer, producer, route, work, stopped)
        else:
            producer = make_producer(servers, for_producer, failures=failures)
            at_least_once(consumer, producer, failures, route, work, stopped)
    elif options.command == "spawn":
        producer = make_producer(servers, for_producer, failures=failures)
        seconds = spawn(producer, failures, options.topic, tasks=options.tasks, payload_bytes=options.payload)
        _print({"tasks": options.tasks, "seconds": seconds})
    else:
        producer = make_producer(servers, {"linger.ms": "0", **for_producer}, failures=failures)
        consumer = make_consumer(servers, options.group, for_consumer)
        milliseconds = echo(
            producer,
            consumer,
            failures,
            options.topic,
            options.results,
            warmup=options.warmup,
            samples=options.samples,
            payload_bytes=options.payload,
        )
        consumer.close()
        _print({"milliseconds": milliseconds})


def _print(report: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(report) + "\n")


def _tuning(items: list[str], prefix: str) -> dict[str, str]:
    pairs = (item.removeprefix(prefix).partition("=") for item in items if item.startswith(prefix))
    return {key: value for key, _, value in pairs}


def _stopped_by_signal() -> Callable[[], bool]:
    signals: list[int] = []
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda number, _frame: signals.append(number))
    return lambda: bool(signals)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.raw", description="Hand-written opponents.")
    parser.add_argument("command", choices=["exactly-once", "at-least-once", "spawn", "echo"])
    parser.add_argument("-b", "--bootstrap-servers", required=True)
    parser.add_argument("--topic", required=True, help="input topic")
    parser.add_argument("--results", default="", help="results topic")
    parser.add_argument("--group", default="benchmarks-raw")
    parser.add_argument("--codec", choices=sorted(WORK), default="fastavro")
    parser.add_argument("--batch", type=int, default=2000, help="at most so many tasks in one commit")
    parser.add_argument("--tasks", type=int, default=100_000, help="spawn: how many")
    parser.add_argument("--samples", type=int, default=1000, help="echo: how many round trips")
    parser.add_argument("--warmup", type=int, default=100, help="echo: how many before them")
    parser.add_argument("--payload", type=int, default=100, help="bytes of data in a task")
    parser.add_argument("--set", action="append", default=[], metavar="CLIENT.KEY=VALUE", help="other tuning")
    return parser.parse_args()


if __name__ == "__main__":
    main()
