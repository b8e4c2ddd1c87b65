"""``python -m tests.soak --minutes 30``: a steady load with rebalances; what the executors hold must not grow.

Two executors stay and are watched, a third one comes and goes. The first two fifths of the time warm up: windows of
deduplication fill, allocators and client libraries take what they need. Of the rest the second half is compared with
the first, by medians: rebalances open connections for a moment. Less than ten minutes say little.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from kantoku_kafka import Kantoku, KantokuError, Task, delay
from kantoku_kafka.dev.broker import EmbeddedBroker
from kantoku_kafka.kafka import topics
from kantoku_kafka.kafka.group import lag_of
from tests.integration.executors import ExecutorUnderTest
from tests.soak.app import TYPES

__all__ = ["Sample", "judge", "main"]

_ROOT = Path(__file__).parents[2]
_LOOK_SECONDS = 5.0
_TICK_SECONDS = 0.1
_WARM_UP = 0.4
_RSS_SHARE, _RSS_SLACK_KB = 1.03, 2_048
_HANDLES_SLACK = 2


@dataclass(frozen=True, slots=True)
class Sample:
    """What one executor holds at some time, and how far behind all of them are."""

    at_seconds: float
    executor: int
    rss_kb: int
    threads: int
    descriptors: int
    lag: int


def judge(samples: Sequence[Sample], tasks_per_second: float) -> list[str]:
    """What is not flat; empty: all is."""
    problems = []
    for executor in sorted({sample.executor for sample in samples}):
        mine = [sample for sample in samples if sample.executor == executor]
        mine = mine[round(len(mine) * _WARM_UP) :]
        before, after = mine[: len(mine) // 2], mine[len(mine) // 2 :]
        rss = [median(sample.rss_kb for sample in half) for half in (before, after)]
        if rss[1] > rss[0] * _RSS_SHARE + _RSS_SLACK_KB:
            problems.append(f"executor {executor}: RSS went from {rss[0]:.0f} to {rss[1]:.0f} kB")
        for name in ("threads", "descriptors"):
            held = [median(getattr(sample, name) for sample in half) for half in (before, after)]
            if held[1] > held[0] + _HANDLES_SLACK:
                problems.append(f"executor {executor}: {name} went from {held[0]:g} to {held[1]:g}")
    behind = median(sample.lag for sample in samples[round(len(samples) * _WARM_UP) :])
    if behind > 5 * tasks_per_second:
        problems.append(f"the lag is {behind:.0f} records")
    return problems


class _Load(threading.Thread):
    """Spawns until told to stop; ``spawned`` counts."""

    def __init__(self, client: Kantoku, tasks_per_second: float) -> None:
        super().__init__(name="load", daemon=True)
        self._client = client
        self._each_tick = max(1, round(tasks_per_second * _TICK_SECONDS))
        self._over = threading.Event()
        self.spawned = 0
        self.error: KantokuError | None = None

    def run(self) -> None:
        chance = random.Random(1)
        while not self._over.wait(_TICK_SECONDS):
            try:
                self.spawned += len(self._client.spawn_many([self._task(chance) for _ in range(self._each_tick)]))
            except KantokuError as error:
                self.error = error
                return

    def end(self) -> None:
        self._over.set()
        self.join()

    def _task(self, chance: random.Random) -> Task:
        task = Task(chance.choices(TYPES, (90, 7, 3))[0], chance.randbytes(100))
        return task.with_(delay(seconds=2)) if chance.random() < 0.02 else task


def main() -> int:
    """The exit code is 1 if something grows."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=300.0, help="tasks a second")
    parser.add_argument("--rebalance-seconds", type=float, default=20.0, help="the third one comes or goes so often")
    parser.add_argument("--out", type=Path, default=Path("chaos/soak"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with EmbeddedBroker() as broker:
        client = Kantoku("soak", bootstrap_servers=broker.bootstrap_servers)
        topics.create(client.clients, topics.plan(client.topics, TYPES, partitions=6))
        samples, problems = _run(client, broker.bootstrap_servers, arguments)
        client.close()
    problems += judge(samples, arguments.rate)
    with (arguments.out / "samples.jsonl").open("w") as file:
        file.writelines(json.dumps(asdict(sample)) + "\n" for sample in samples)
    print("; ".join(problems) if problems else "flat")
    return 1 if problems else 0


def _run(client: Kantoku, bootstrap: str, arguments: argparse.Namespace) -> tuple[list[Sample], list[str]]:
    def start(number: int) -> ExecutorUnderTest:
        log = arguments.out / f"executor-{number}.log"
        options = (bootstrap, client.namespace, "--types", ",".join(TYPES), "--slot", f"s{number}")
        return ExecutorUnderTest(*options, log=log, app="tests.soak.app:kan", cwd=_ROOT)

    watched = [start(0), start(1)]
    guest: ExecutorUnderTest | None = None
    load = _Load(client, arguments.rate)
    samples: list[Sample] = []
    codes: list[int] = []
    try:
        load.start()
        began, rebalances, shown = time.monotonic(), 0, 0
        print("minute  spawned  rebalances  lag   RSS MB       threads  descriptors")
        while (passed := time.monotonic() - began) < arguments.minutes * 60 and load.error is None:
            if passed > (rebalances + 1) * arguments.rebalance_seconds:
                rebalances += 1
                if guest is None:
                    guest = start(2)
                else:
                    codes.append(_end(guest))
                    guest = None
            lag = _lag(client)
            now = [_sample(passed, number, process, lag) for number, process in enumerate(watched)]
            samples += now
            if passed >= 60 * shown:
                shown += 1
                print(_row(shown - 1, load.spawned, rebalances, now), flush=True)
            time.sleep(_LOOK_SECONDS)
        load.end()
    finally:
        codes += [_end(process) for process in (*watched, guest) if process is not None]
    problems = [] if load.error is None else [str(load.error)]
    return samples, problems + [f"an executor ended with {code}" for code in codes if code != 0]


def _sample(passed: float, number: int, process: ExecutorUnderTest, lag: int) -> Sample:
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if ":" in line
    )
    descriptors = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
    rss_kb = int(status["VmRSS"].split()[0])
    return Sample(round(passed, 1), number, rss_kb, int(status["Threads"]), descriptors, lag)


def _lag(client: Kantoku) -> int:
    inputs = [client.topics.of_type(name) for name in TYPES]
    return sum(found.lag for found in lag_of(client.clients, client.topics, inputs, oldest=False))


def _row(minute: int, spawned: int, rebalances: int, now: Sequence[Sample]) -> str:
    held = [" ".join(f"{value:>5}" for value in values) for values in _columns(now)]
    return f"{minute:>6} {spawned:>8} {rebalances:>11} {now[0].lag:>4}   " + "  ".join(held)


def _columns(now: Sequence[Sample]) -> list[list[str]]:
    return [
        [f"{sample.rss_kb / 1024:.1f}" for sample in now],
        [str(sample.threads) for sample in now],
        [str(sample.descriptors) for sample in now],
    ]


def _end(process: ExecutorUnderTest) -> int:
    process.kill(signal.SIGTERM)
    return process.wait(45)


if __name__ == "__main__":
    sys.exit(main())
