"""The spawning side of the program under test, as a user writes it. Prints one JSON object.

python -m benchmarks.spawner many   -b HOST:PORT -n NAMESPACE --tasks N      spawn_many, all at once
python -m benchmarks.spawner nowait -b HOST:PORT -n NAMESPACE --tasks N      spawn_nowait and flush
python -m benchmarks.spawner echo   -b HOST:PORT -n NAMESPACE --samples N    spawn and wait, one by one
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

from kantoku_kafka import Kantoku, Task


def main() -> None:
    options = _options()
    kan = Kantoku(options.namespace, bootstrap_servers=options.bootstrap_servers, events=options.events)
    data = os.urandom(options.payload)
    # One task goes ahead of the clock, as in the raw programs: connecting does not count.
    kan.spawn(Task("echo", data))
    if options.command == "echo":
        report: dict[str, object] = {"milliseconds": echo(kan, data, options.warmup, options.samples)}
    else:
        spawn = spawn_many if options.command == "many" else spawn_nowait
        report = {"tasks": options.tasks, "seconds": spawn(kan, data, options.tasks)}
    kan.close()
    sys.stdout.write(json.dumps(report) + "\n")


def spawn_many(kan: Kantoku, data: bytes, count: int) -> float:
    """Seconds to make all tasks and to have every one acknowledged."""
    started = time.perf_counter()
    spawned = kan.spawn_many([Task("echo", data) for _ in range(count)])
    seconds = time.perf_counter() - started
    assert len(spawned) == count
    return seconds


def spawn_nowait(kan: Kantoku, data: bytes, count: int) -> float:
    """The same for tasks that are handed over one by one, and acknowledged by the end of `flush`."""
    started = time.perf_counter()
    for _ in range(count):
        kan.spawn_nowait(Task("echo", data))
    kan.flush()
    return time.perf_counter() - started


def echo(kan: Kantoku, data: bytes, warmup: int, samples: int) -> list[float]:
    """Milliseconds from the task to its decoded result, after `warmup` unmeasured round trips."""
    milliseconds = []
    for number in range(warmup + samples):
        started = time.perf_counter()
        result = kan.wait(kan.spawn(Task("echo", data)).id, timeout_seconds=30)
        if number >= warmup:
            milliseconds.append(1000 * (time.perf_counter() - started))
        assert result.data == data
    return milliseconds


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spawner", description="Spawns tasks.")
    parser.add_argument("command", choices=["many", "nowait", "echo"])
    parser.add_argument("-b", "--bootstrap-servers", required=True)
    parser.add_argument("-n", "--namespace", required=True)
    parser.add_argument("--events", choices=["off", "full"], default="off", help="one for each spawn")
    parser.add_argument("--tasks", type=int, default=100_000, help="many, nowait: how many")
    parser.add_argument("--samples", type=int, default=1000, help="echo: how many round trips")
    parser.add_argument("--warmup", type=int, default=100, help="echo: how many before them")
    parser.add_argument("--payload", type=int, default=100, help="bytes of data in a task")
    return parser.parse_args()


if __name__ == "__main__":
    main()
