"""The cluster, the executors and everything that a fault can be done to."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

from confluent_kafka import TopicPartition
from confluent_kafka.cimpl import NewPartitions

from kantoku_kafka import Kantoku
from kantoku_kafka.kafka.group import describe
from kantoku_kafka.kafka.scan import beginnings
from kantoku_kafka.replay.query import TaskQuery
from tests.chaos.cluster import Cluster
from tests.integration.executors import ExecutorUnderTest, until

__all__ = ["MARK", "Executor", "Stage"]

MARK = "KANTOKU_CHAOS_RUN"
_ROOT = Path(__file__).parents[2]
_WATCH_SECONDS = 0.1
_TERM_SECONDS = 45.0
_FULL_DISK_SECONDS = 15.0  # a broker learns of it when it needs another page


@dataclass(slots=True)
class Executor:
    """One executor process. ``wanted``: it is started again when it dies; ``told``: it was made to end by us.

    ``elders``: processes of its slot that were not ended before it was started.
    """

    number: int
    process: ExecutorUnderTest | None = None
    elders: list[ExecutorUnderTest] = field(default_factory=list)
    wanted: bool = True
    told: bool = False
    start_at: float = 0.0
    starts: int = 0

    @property
    def name(self) -> str:
        """By which brokers know its present process."""
        return f"chaos-{self.number}-{self.starts}."

    @property
    def all(self) -> list[ExecutorUnderTest]:
        """Its present process, and the elders."""
        return [*self.elders, *([self.process] if self.process else ())]

    @property
    def lives(self) -> bool:
        return self.process is not None and self.process.returncode is None

    def end(self, number: signal.Signals) -> None:
        """By this signal, if it lives."""
        if self.process is not None and self.lives:
            self.told = True
            self.process.kill(number)


class Stage:
    """Faults are applied by one thread, dead executors started again by another.

    Parameters:
        cluster: runs.
        kan: a client of the namespace that goes to the brokers directly.
        count: how many executors.
        options: of their command line.
        failpoints: where one process after the other is to die by itself; None: nowhere.
        folder: for their logs.
        slots: whether each has a slot of its own.
        may_end_with: exit codes that are no surprise with these faults.

    Attributes:
        unexpected: exit codes of executors that ended though nobody had made them to.
        gave_up: how many ended by themselves with one of the codes that are no surprise.
    """

    def __init__(
        self,
        cluster: Cluster,
        kan: Kantoku,
        *,
        count: int,
        options: Sequence[str],
        failpoints: Iterator[str] | None,
        chance: random.Random,
        folder: Path,
        slots: bool,
        may_end_with: Collection[int] = (),
    ) -> None:
        self.cluster = cluster
        self.kan = kan
        self.unexpected: list[int] = []
        self.gave_up = 0
        self.notes: list[str] = []
        self._options = list(options)
        self._failpoints = failpoints or repeat("")
        self._dying = failpoints is not None
        self._chance = chance
        self._folder = folder
        self._slots = slots
        self._may_end_with = frozenset(may_end_with)
        self._lock = threading.RLock()
        self._executors = [Executor(number) for number in range(count)]
        self._dead_brokers: set[int] = set()
        self._stopped: set[int] = set()
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._keep_alive, name="watch", daemon=True)

    def open(self) -> None:
        """Start the executors, and go on starting them."""
        for executor in self._executors:
            self._start(executor)
        self._watch.start()

    def close(self) -> list[int | None]:
        """SIGTERM; the exit codes that surprise, None of one that did not end in time."""
        self._over.set()
        self._watch.join()
        elders = [process for executor in self._executors for process in executor.elders]
        ended = [process.returncode for process in elders if process.returncode is not None]
        self.unexpected += [code for code in ended if code not in self._may_end_with]
        for process in elders:
            process.kill()
        alive = [executor for executor in self._executors if executor.lives]
        for executor in alive:
            executor.end(signal.SIGTERM)
        deadline = time.monotonic() + _TERM_SECONDS
        while any(executor.lives for executor in alive) and time.monotonic() < deadline:
            time.sleep(_WATCH_SECONDS)
        codes = [executor.process.returncode for executor in alive if executor.process is not None]
        self.ask_where()
        for executor in alive:
            executor.end(signal.SIGKILL)
        return [code for code in codes if code is None or not self._is_expected(code, told=True)]

    def ask_where(self) -> None:
        """Have the executors write into their logs where their threads are."""
        for executor in self._executors:
            if executor.process is not None and executor.lives:
                executor.process.kill(signal.SIGUSR1)
        time.sleep(_WATCH_SECONDS)

    def kill(self) -> None:
        """All at once, whatever happened."""
        self._over.set()
        for executor in self._executors:
            for process in executor.all:
                process.kill()

    def apply(self, kind: str, **details: Any) -> bool:
        """Do a fault. Whether there was somebody to do it to."""
        action: Callable[..., bool | None] = getattr(self, f"_{kind.replace('-', '_')}")
        return action(**details) is not False

    def heal(self) -> None:
        """What is still broken is repaired: from here on time counts."""
        self.cluster.free_disk()
        for node in sorted(self._dead_brokers):
            self._restart_broker(node)
        with self._lock:
            self._failpoints = repeat("")
            for number in list(self._stopped):
                self._signal_executor(number, "SIGCONT")
            for executor in self._executors:
                executor.wanted = True
                self._set_clock(executor.number, 0.0)

    # --- faults

    def _kill_broker(self, node: int) -> None:
        self._dead_brokers.add(node)
        self.cluster.broker.kill(node)

    def _restart_broker(self, node: int) -> None:
        self.cluster.broker.restart(node)
        self._dead_brokers.discard(node)

    def _kill_executor(self, number: int) -> bool:
        """Who is dead or leaves is passed over for the next one."""
        with self._lock:
            for executor in self._executors[number:] + self._executors[:number]:
                if executor.lives and executor.wanted:
                    executor.end(signal.SIGKILL)
                    return True
            return False

    def _toggle_executor(self, number: int) -> None:
        """It leaves in order, or comes back."""
        with self._lock:
            executor = self._executors[number]
            executor.wanted = not executor.wanted
            if not executor.wanted:
                executor.end(signal.SIGTERM)

    def _signal_executor(self, number: int, name: str) -> bool:
        with self._lock:
            processes = [process for process in self._executors[number].all if process.returncode is None]
            for process in processes:
                process.kill(signal.Signals[name])
            (self._stopped.add if name == "SIGSTOP" else self._stopped.discard)(number)
            return bool(processes)

    def _start_twin(self, number: int, delay_seconds: float, seconds: float) -> bool:
        """Another process of this slot, while there is one, which is slow from now on."""
        with self._lock:
            executor = self._executors[number]
            if executor.process is None or not executor.lives:
                return False
            self.cluster.command(do="delay", client=executor.name, delay_seconds=delay_seconds, seconds=seconds)
            executor.elders.append(executor.process)
            self._start(executor)
            return True

    def _proxy(self, **rule: Any) -> None:
        self.cluster.command(**rule)

    def _reset_group(self) -> None:
        """Only an empty group can be set back."""
        with self._lock:
            for executor in self._executors:
                executor.end(signal.SIGTERM)
            for executor in self._executors:
                if executor.process is not None:
                    executor.process.wait(_TERM_SECONDS)
            clients, topics = self.kan.clients, self.kan.topics
            inputs = [topics.of_type(name) for name in self._types()]
            starts = [TopicPartition(t, p, offset) for t in inputs for p, offset in beginnings(clients, t).items()]
            until(lambda: not describe(clients, topics.group).members, _TERM_SECONDS, "the group is empty")
            observer = clients.consumer(**{"group.id": topics.group})
            observer.commit(offsets=starts, asynchronous=False)
            observer.close()

    def _grow_inputs(self) -> None:
        admin = self.kan.clients.admin()
        for name in self._types():
            topic = self.kan.topics.of_type(name)
            present = len(beginnings(self.kan.clients, topic))
            admin.create_partitions([NewPartitions(topic, present + 2)])[topic].result(20)

    def _replay(self) -> bool:
        """A snapshot amid writes and compaction has no impossible history in it."""
        with self.kan.events.snapshot() as store:
            states = list(store.find(TaskQuery()))
        broken = [state for state in states if state.problems]
        self.notes.append(f"replay of {len(states)} tasks, {len(broken)} of them impossible")
        return bool(states)

    def _types(self) -> list[str]:
        return self._options[self._options.index("--types") + 1].split(",")

    def _fill_disk(self, node: int) -> None:
        """The broker ends by itself when it writes next."""
        self.cluster.fill_disk()
        self._dead_brokers.add(node)

    def _free_disk(self, node: int) -> None:
        assert self.cluster.broker.wait(_FULL_DISK_SECONDS) == node, "a broker goes on though its disk is full"
        self.cluster.free_disk()
        self._restart_broker(node)

    def _set_clock(self, number: int, seconds: float) -> None:
        self._clock_of(number).write_text(str(seconds))

    # --- processes

    def _clock_of(self, number: int) -> Path:
        return self._folder / f"clock-{number}"

    def _keep_alive(self) -> None:
        while not self._over.wait(_WATCH_SECONDS):
            with self._lock:
                for executor in self._executors:
                    self._look_after(executor)

    def _look_after(self, executor: Executor) -> None:
        process = executor.process
        if process is None or process.returncode is None:
            return
        if executor.start_at == 0.0:
            if not self._is_expected(process.returncode, told=executor.told):
                self.unexpected.append(process.returncode)
            self.gave_up += process.returncode in self._may_end_with
            executor.start_at = time.monotonic() + self._chance.uniform(0.0, 1.0)
        elif executor.wanted and executor.start_at <= time.monotonic():
            executor.start_at = 0.0
            self._start(executor)

    def _is_expected(self, code: int, *, told: bool) -> bool:
        if told and code in (0, -signal.SIGKILL, -signal.SIGTERM):  # SIGTERM: before it was up
            return True
        return code in self._may_end_with or (self._dying and code == -signal.SIGKILL)

    def _start(self, executor: Executor) -> None:
        slot = ["--slot", f"s{executor.number}"] if self._slots else []
        self._set_clock(executor.number, 0.0)
        os.environ |= {
            "KANTOKU_FAILPOINT": next(self._failpoints),
            "KANTOKU_CLOCK": str(self._clock_of(executor.number)),
        }
        with suppress(KeyError):
            os.environ.pop("KANTOKU_BOOTSTRAP_SERVERS")
        executor.told = False
        executor.starts += 1
        executor.process = ExecutorUnderTest(
            *(self.cluster.bootstrap, self.kan.namespace, "-X", f"client.id={executor.name}", *self._options, *slot),
            log=self._folder / f"executor-{executor.number}.log",
            app="tests.chaos.app:kan",
            cwd=_ROOT,
        )
