"""The story of the demo: many tasks, an executor that is killed amid them, and what the topics say afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from itertools import islice

from kantoku_kafka import Kantoku, Task
from kantoku_kafka.demo.account import Account, Latency, TopicContents, latency, take_account
from kantoku_kafka.demo.fleet import Fleet
from kantoku_kafka.errors import WaitTimeout
from kantoku_kafka.model import Result

__all__ = ["Outcome", "Scenario"]

Bar = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]

_KINDS = ("hash", "fetch", "flaky")
_CHUNK = 500
_ROUND = 36
_ROUND_SECONDS = 0.1
_READY_SECONDS = 60.0
_RESULTS_SECONDS = 60.0
_PROBES = 100
_VICTIM = 0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The account, who was killed, and the time from spawn to result as a client sees it when nothing else runs."""

    account: Account
    killed: str
    idle_latency: Latency


class Scenario:
    """One run of the demo, on topics and executors of its own. Call :meth:`run` once.

    Parameters:
        kantoku: the demo's app, connected, its topics created.
        fleet: its executors, started.
        count: how many tasks to spawn at once.
        tell: told in one line what happens.
        bar: makes a progress bar of a label and a length.
    """

    def __init__(self, kantoku: Kantoku, fleet: Fleet, count: int, *, tell: Callable[[str], None], bar: Bar) -> None:
        self._kantoku = kantoku
        self._fleet = fleet
        self._count = count
        self._tell = tell
        self._bar = bar
        self._accepted: set[str] = set()

    def run(self) -> Outcome:
        """1. Wait until all executors work. 2. Spawn, and kill one amid it. 3. Wait for the rest. 4. Ask one by one.
        5. Stop, and read the topics."""
        self._warm_up()
        self._tell(f"spawning {self._count} tasks: {', '.join(_KINDS)}")
        first = self._spawn_numbered(range(self._count // 2))
        self._await_part(first, self._count // 6)
        pid = self._fleet.kill(_VICTIM)
        self._fleet.start(_VICTIM)
        self._tell(f"killed executor {_VICTIM} (process {pid}) by SIGKILL, and started it again")
        burst = first + self._spawn_numbered(range(self._count // 2, self._count))
        with suppress(WaitTimeout):  # then the account tells what is lost
            self._await_rest(burst)
        idle = self._probe()
        self._fleet.stop()
        self._tell("reading the topics from beginning to end")
        kantoku = self._kantoku
        contents = TopicContents.read(kantoku.connection, kantoku.topics, kantoku.task_types, kantoku.codec)
        account = take_account(contents, accepted=self._accepted, burst=set(burst), runs=self._fleet.runs())
        return Outcome(account=account, killed=f"executor {_VICTIM}, process {pid}", idle_latency=idle)

    def _warm_up(self) -> None:
        """Small rounds of tasks, until results have come from every executor."""
        deadline = time.monotonic() + _READY_SECONDS
        seen: set[str] = set()
        while len(seen) < len(self._fleet):
            ids = self._spawn_numbered(range(_ROUND))
            found: dict[str, Result] = {}
            while len(found) < len(ids):
                self._fleet.check()
                if time.monotonic() > deadline:
                    raise WaitTimeout(f"{len(seen)} executors worked within {_READY_SECONDS:.0f} s; start again.")
                found = self._kantoku.find_results(ids, timeout_seconds=_ROUND_SECONDS)
            seen |= {result.executor_id for result in found.values()}
            time.sleep(_ROUND_SECONDS)

    def _spawn_numbered(self, numbers: Iterable[int]) -> list[str]:
        return self._spawn(Task(_KINDS[number % len(_KINDS)], b"%d" % number) for number in numbers)

    def _spawn(self, tasks: Iterable[Task]) -> list[str]:
        """Ids of tasks that the broker has acknowledged."""
        ids: list[str] = []
        rest = iter(tasks)
        while chunk := list(islice(rest, _CHUNK)):
            ids += [spawned.id for spawned in self._kantoku.spawn_many(chunk)]
        self._accepted.update(ids)
        return ids

    def _await_part(self, ids: list[str], count: int) -> None:
        results = self._kantoku.as_completed(ids, timeout_seconds=_RESULTS_SECONDS)
        with self._bar("before the kill", count) as advance:
            for _ in islice(results, count):
                advance(1)

    def _await_rest(self, ids: list[str]) -> None:
        """All results, and those of the children, whose ids are the results of their parents."""
        children: list[str] = []
        with self._bar("all results", len(ids)) as advance:
            for result in self._kantoku.as_completed(ids, timeout_seconds=_RESULTS_SECONDS):
                advance(1)
                if result.type == "fetch" and result.data:
                    children.append(result.data.decode())
        for _ in self._kantoku.as_completed(children, timeout_seconds=_RESULTS_SECONDS):
            pass

    def _probe(self) -> Latency:
        """One task after the other: spawned, acknowledged, run, committed, received."""
        milliseconds = []
        with suppress(WaitTimeout):
            for _ in range(_PROBES):
                started = time.perf_counter()
                (task_id,) = self._spawn([Task("hash", b"probe")])
                self._kantoku.wait(task_id, timeout_seconds=_RESULTS_SECONDS)
                milliseconds.append((time.perf_counter() - started) * 1000)
        return latency(milliseconds)
