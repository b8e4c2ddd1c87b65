"""One schedule: tasks are spawned, executors come, go, die and freeze, then all of it is judged by the log."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from kantoku_kafka import Kantoku
from kantoku_kafka.engine.cancel import CANCEL
from kantoku_kafka.ids import idempotent_id
from kantoku_kafka.job import Message
from kantoku_kafka.model import Command, TaskEnvelope
from kantoku_kafka.settings import EventDetail
from kantoku_kafka.verify import Evidence, Journal, judge
from kantoku_kafka.verify.evidence import Coordinates, Gathering, Input, position
from tests.simulation.choices import Choices
from tests.simulation.kernel import Kernel, Process, Stuck, installed
from tests.simulation.world import PARTITIONS, TASK_TYPE, SimulatedExecutor, SimulatedLog, make_app

__all__ = ["Verdict", "simulate"]

_SETTLE_SECONDS = 60.0
_MOST_TASKS, _MOST_FAULTS, _MOST_EXECUTORS = 12, 8, 3
_FAILURES = (b"0", b"0", b"0", b"1", b"2", b"9")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a schedule. ``story``: what was done to it, in order; ``problems``: what must not be."""

    problems: Sequence[str]
    story: Sequence[str]
    choices: Sequence[int]

    @property
    def ok(self) -> bool:
        return not self.problems


def simulate(choices: Choices) -> Verdict:
    """The same choices make the same schedule, step by step."""
    random.seed(0)
    logging.disable(logging.CRITICAL)
    kernel = Kernel(choices)
    try:
        with installed(kernel):
            schedule = _Schedule(kernel)
            schedule.run()
    finally:
        kernel.close()
        logging.disable(logging.NOTSET)
    return Verdict(schedule.problems, schedule.story, choices.made)


@lru_cache(1)
def _app() -> Kantoku:
    return make_app()


class _Schedule:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._choices = kernel.choices
        self._kan = _app()
        self._log = SimulatedLog(kernel)
        self._input = self._kan.topics.of_type(TASK_TYPE)
        self._executors: list[SimulatedExecutor] = []
        self._number = 0
        self._commands: list[Command] = []
        self._spawned: list[str] = []
        self._world = Process("world")
        self._busy = 2
        self.story: list[str] = []
        self.problems: list[str] = []

    def run(self) -> None:
        """Misfortune until it ends, then peace, then the verdict."""
        kernel = self._kernel
        for _ in range(1 + self._choices.below(_MOST_EXECUTORS)):
            self._start()
        kernel.start(self._world, self._spawn)
        kernel.start(self._world, self._break)
        try:
            kernel.run(lambda: self._busy == 0, 1_000)
            self._heal()
            if not kernel.run(self._is_settled, _SETTLE_SECONDS):
                self.problems.append(f"not all had ended {_SETTLE_SECONDS:g} s after the last fault")
            for executor in self._executors:
                executor.stop()
            if not kernel.run(lambda: all(e.has_ended for e in self._executors), _SETTLE_SECONDS):
                self.problems.append("not all executors ended when they were told to")
        except Stuck as error:
            self.problems.append(str(error))
        self._judge()

    # --- what happens

    def _say(self, text: str) -> None:
        self.story.append(f"{self._kernel.now_us % 1_000_000_000 / 1e6:9.5f} {text}")

    def _spawn(self) -> None:
        """Tasks, some of them twice, and now and then what nobody can read."""
        for number in range(1 + self._choices.below(_MOST_TASKS)):
            self._kernel.wait(seconds=self._choices.below(10) / 100)
            if self._choices.happens(5):
                self._say("junk")
                self._log.append(Message(self._input, b"junk", b"junk"))
                continue
            again = self._spawned and self._choices.happens(10)
            key = str(self._choices.below(number)) if again and number else str(number)
            task_id = idempotent_id(self._kan.namespace, TASK_TYPE, key)
            data = _FAILURES[self._choices.below(len(_FAILURES))]
            envelope = TaskEnvelope(task_id, TASK_TYPE, data, self._kernel.now_us)
            if self._choices.happens(25):
                delay_us = self._choices.below(80) * 10_000
                envelope = envelope._replace(not_before_us=self._kernel.now_us + delay_us)
            (record,) = self._log.append(Message(self._input, task_id.encode(), self._kan.codec.encode_task(envelope)))
            self._say(f"spawn {task_id[:8]} with {data.decode()}, at {record.partition}/{record.offset}")
            self._spawned.append(task_id)
        self._busy -= 1

    def _break(self) -> None:
        """Faults, one after the other."""
        faults = (
            *(self._kill, self._kill, self._freeze, self._freeze, self._throw_out, self._throw_out),
            *(self._leave, self._join, self._cancel, self._reset, self._block, self._block),
        )
        for _ in range(self._choices.below(_MOST_FAULTS + 1)):
            self._kernel.wait(seconds=self._choices.below(25) / 100)
            faults[self._choices.below(len(faults))]()
        self._busy -= 1

    def _start(self) -> None:
        self._number += 1
        name = f"e{self._number}"
        self._say(f"{name} starts")
        self._executors.append(SimulatedExecutor(self._kernel, self._kan, self._log, name, self._commands))

    def _pick(self) -> SimulatedExecutor | None:
        alive = [executor for executor in self._executors if not executor.has_ended]
        return alive[self._choices.below(len(alive))] if alive else None

    def _kill(self) -> None:
        """The group learns of it after a while."""
        if executor := self._pick():
            self._say(f"{executor.process.name} is killed")
            executor.process.alive = False
            self._kernel.wait(seconds=self._choices.below(12) / 100)
            executor.throw_out()
            self._start()

    def _freeze(self) -> None:
        """For longer than its session, or not."""
        if executor := self._pick():
            seconds = 0.05 + self._choices.below(40) / 100
            self._say(f"{executor.process.name} freezes for {seconds:.2f} s")
            executor.process.frozen_until_us = self._kernel.now_us + round(seconds * 1e6)
            if self._choices.happens(70):
                self._kernel.wait(seconds=self._choices.below(round(seconds * 100)) / 100)
                self._throw(executor)

    def _throw_out(self) -> None:
        if executor := self._pick():
            self._throw(executor)

    def _throw(self, executor: SimulatedExecutor) -> None:
        self._say(f"{executor.process.name} is thrown out of its group")
        executor.throw_out()

    def _leave(self) -> None:
        if executor := self._pick():
            self._say(f"{executor.process.name} is told to stop")
            executor.stop()

    def _join(self) -> None:
        if sum(not executor.has_ended for executor in self._executors) < _MOST_EXECUTORS:
            self._start()

    def _cancel(self) -> None:
        if self._spawned:
            task_id = self._spawned[self._choices.below(len(self._spawned))]
            self._say(f"{task_id[:8]} is cancelled")
            command = Command(kind=CANCEL, task_id=task_id, at_us=self._kernel.now_us)
            self._commands.append(command)
            for executor in self._executors:
                executor.command([command])

    def _reset(self) -> None:
        """All die, and the group is set back to the beginning."""
        self._say("all are killed, and the group is set back")
        present = [executor for executor in self._executors if not executor.has_ended]
        for executor in present:
            executor.process.alive = False
            executor.throw_out()
        self._log.reset(self._input)
        for _ in present:
            self._start()

    def _block(self) -> None:
        """Somebody's transaction is open in a partition; what others commit behind it is not seen meanwhile."""
        topic = (self._input, self._kan.topics.timers)[self._choices.below(2)]
        place = topic, self._choices.below(PARTITIONS)
        seconds = 0.05 + self._choices.below(40) / 100
        self._say(f"{topic}[{place[1]}] is blocked for {seconds:.2f} s")
        self._log.block(place)

        def unblock() -> None:
            self._kernel.wait(seconds=seconds)
            self._log.unblock(place)
            self._busy -= 1

        self._busy += 1
        self._kernel.start(self._world, unblock)
        if self._choices.happens(70):
            self._kernel.wait(seconds=self._choices.below(round(seconds * 100)) / 100)
            self._throw_out()

    def _heal(self) -> None:
        self._say("peace")
        for executor in self._executors:
            executor.process.frozen_until_us = 0
        self._start()

    # --- what became of it

    def _is_settled(self) -> bool:
        return self._log.is_done([self._input, self._kan.topics.timers]) or self._has_crashed()

    def _has_crashed(self) -> bool:
        return any(executor.process.error is not None for executor in self._executors)

    def _judge(self) -> None:
        for executor in self._executors:
            if executor.process.error is not None:
                self.problems.append(f"{executor.process.name} died of {executor.process.error!r}")
        if self._world.error is not None:
            raise self._world.error
        self.problems += self._log.problems
        report = judge(self._evidence(), Journal(frozenset(self._spawned)), at_rest=True, events=EventDetail.FULL)
        for finding in report.findings:
            self.problems += [
                f"{finding.name}: {(v.task_id or '')[:8]} {v.text} {[str(r) for r in v.records]}"
                for v in finding.violations
            ]

    def _evidence(self) -> Evidence:
        topics, log = self._kan.topics, self._log
        gathering = Gathering(self._kan.codec)
        evidence = gathering.evidence
        evidence.timers = topics.timers
        for number in range(PARTITIONS):
            stands = position(*log.committed(self._input, number))
            evidence.inputs[self._input, number] = Input(0, stands, stands)
        for record in log.read(self._input):
            gathering.spawn(Coordinates(*record[:3]), record.value, record.headers, record.timestamp_us // 1_000)
        for record in log.read(topics.timers):
            gathering.timer(Coordinates(*record[:3]), record.key or b"", record.value)
        for record in log.read(topics.results):
            gathering.result(Coordinates(*record[:3]), record.value)
        for record in log.read(topics.events):
            gathering.event(Coordinates(*record[:3]), record.key or b"", record.value or None)
        for record in log.read(topics.dlq):
            gathering.letter(Coordinates(*record[:3]), record.value, record.headers)
        return evidence
