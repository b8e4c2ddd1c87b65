"""The product's engine on a log in memory: executors that can be killed, frozen and thrown out at any step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from queue import SimpleQueue

from kantoku_kafka import Context, Kantoku, Retry
from kantoku_kafka.bindings import chosen_types
from kantoku_kafka.engine.cancel import Cancellations
from kantoku_kafka.engine.checkpoint import Checkpoint
from kantoku_kafka.engine.loop import Loop
from kantoku_kafka.engine.past import Past, Recollection
from kantoku_kafka.engine.pools import PoolBinding, Pools
from kantoku_kafka.engine.reply import Replies
from kantoku_kafka.engine.scheduler import Scheduler
from kantoku_kafka.engine.timer_book import TimerBook
from kantoku_kafka.engine.timer_loop import TimerLoop
from kantoku_kafka.invoke import Invoker
from kantoku_kafka.job import Job, Message, Offset, Place
from kantoku_kafka.kafka.outputs import EventWriter
from kantoku_kafka.model import Command
from kantoku_kafka.protocols import CheckpointRefused
from kantoku_kafka.settings import ExecutorSettings
from kantoku_kafka.testing.memory import (
    InMemoryEvents,
    InMemoryInputs,
    InMemoryLog,
    InMemoryOutputs,
    InMemoryTransaction,
)
from tests.simulation.kernel import Kernel, Process

__all__ = ["TASK_TYPE", "SimulatedExecutor", "SimulatedLog", "make_app"]

TASK_TYPE = "work"
PARTITIONS = 2
_SETTINGS = ExecutorSettings(
    concurrency=2, max_batch=4, max_waiting=6, drain_seconds=0.1, revoke_drain_seconds=0.03, timeout_seconds=1.0
)
_COMMIT_SECONDS = (0.0, 0.0, 0.001, 0.01, 0.06)
_REFUSED_PERCENT = 4


def make_app() -> Kantoku:
    """Tasks fail as often as their data say, and are tried three times."""
    kan = Kantoku("simulation")
    policy = Retry(max_attempts=3, initial_seconds=0.02, factor=3, jitter=0)

    @kan.task(TASK_TYPE, retry=policy, deduplicate_all=True)
    def work(data: bytes, ctx: Context) -> bytes:
        if ctx.attempt <= int(data):
            raise ConnectionError(f"attempt {ctx.attempt}")
        return b"%d" % ctx.attempt

    return kan


class SimulatedLog(InMemoryLog):
    """Waits as actors do, and sees to it that what is done stays done.

    Attributes:
        problems: places where a commit went back.
    """

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(partitions=PARTITIONS, clock=lambda: kernel.now_us)
        self._kernel = kernel
        self.problems: list[str] = []

    def wait(self, version: int, timeout_seconds: float) -> None:
        self._kernel.wait(lambda: self._version != version, timeout_seconds)

    def publish(self, member: object, messages: Sequence[Message], offsets: Sequence[Offset]) -> None:
        before = {offset[:2]: self.committed(*offset[:2]).offset for offset in offsets}
        super().publish(member, messages, offsets)
        for offset in offsets:
            if offset.offset < before[offset[:2]]:
                self.problems.append(f"{offset.topic}[{offset.partition}] went back to {offset.offset}")


class _Transaction(InMemoryTransaction):
    """Takes its time, and is refused now and then."""

    def __init__(self, log: InMemoryLog, inputs: InMemoryInputs, kernel: Kernel) -> None:
        super().__init__(log, inputs)
        self._kernel = kernel

    def commit(self, offsets: Sequence[Offset]) -> None:
        choices = self._kernel.choices
        self._kernel.wait(seconds=_COMMIT_SECONDS[choices.below(len(_COMMIT_SECONDS))])
        if choices.happens(_REFUSED_PERCENT):
            self.abort()
            raise CheckpointRefused("refused by the simulation")
        super().commit(offsets)
        self._kernel.wait(seconds=_COMMIT_SECONDS[choices.below(len(_COMMIT_SECONDS))])


class _Inputs(InMemoryInputs):
    """Others go on before each poll; the dead poll nothing."""

    def __init__(self, log: InMemoryLog, kernel: Kernel) -> None:
        super().__init__(log)
        self._kernel = kernel

    def poll(self, max_jobs: int, timeout_seconds: float) -> list[Job]:
        self._kernel.wait()
        return super().poll(max_jobs, timeout_seconds)

    def close(self) -> None:
        self._kernel.check_alive()
        super().close()


class _Pool:
    """Each job is an actor: it takes a while, and heeds a cancellation or does not."""

    backlog = 0

    def __init__(self, kernel: Kernel, process: Process, invoker: Invoker) -> None:
        self._kernel = kernel
        self._process = process
        self._invoker = invoker

    def start(self, deliver: Callable[[Job], None]) -> None:
        self._deliver = deliver

    def submit(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._kernel.start(self._process, partial(self._run, job))

    def cancel(self, jobs: Iterable[Job], reason: str) -> None:
        for job in jobs:
            job.cancelled = job.cancelled or reason

    def close(self, timeout_seconds: float) -> None:
        """What runs is left to itself."""

    def _run(self, job: Job) -> None:
        choices = self._kernel.choices
        seconds = choices.below(15) / 100 if choices.happens(30) else choices.below(20) / 10_000
        heeds = choices.happens(50)
        self._kernel.wait((lambda: job.cancelled) if heeds else None, seconds)
        self._invoker.run(job)
        self._deliver(job)


class SimulatedExecutor:
    """A process with a task loop and a timer loop, both the product's.

    Parameters:
        commands: what stands on the control topic already.
    """

    def __init__(self, kernel: Kernel, kan: Kantoku, log: SimulatedLog, name: str, commands: Sequence[Command]) -> None:
        self._kernel = kernel
        self._kan = kan
        self._log = log
        self.process = Process(name)
        self.members = (_Inputs(log, kernel), _Inputs(log, kernel))
        self._commands: SimpleQueue[Sequence[Command]] = SimpleQueue()
        self._loop: Loop | None = None
        self._timers: TimerLoop | None = None
        self._stop_asked = False
        self.command(commands)
        kernel.start(self.process, partial(self._run_tasks, list(commands)))
        kernel.start(self.process, self._run_timers)
        self._running = 2

    @property
    def has_ended(self) -> bool:
        """By a stop, a kill or an error."""
        return not self._running or not self.process.alive

    def stop(self) -> None:
        """As SIGTERM does."""
        self._stop_asked = True
        for loop in (self._loop, self._timers):
            if loop is not None:
                loop.stop()

    def command(self, commands: Sequence[Command]) -> None:
        """As the reader of the control topic does."""
        if commands:
            self._commands.put(commands)
            if self._loop is not None:
                self._loop.command(commands)

    def throw_out(self) -> None:
        """The group takes it for dead."""
        for member in self.members:
            self._log.expel(member)

    def _run_tasks(self, commands: Sequence[Command]) -> None:
        types = chosen_types(self._kan, None, None, None)
        pool = _Pool(self._kernel, self.process, Invoker(self._kan))
        topics: Mapping[str, int] = {t: w for task in types.values() for t, w in task.inputs(self._kan.topics).items()}
        scheduler = Scheduler({name: task.limits for name, task in types.items()}, topics)
        binding = PoolBinding(pool, scheduler, _SETTINGS.concurrency)
        self._loop = Loop(
            inputs=self.members[0],
            checkpoint=self._checkpoint(self.members[0]),
            codec=self._kan.codec,
            pools=Pools(dict.fromkeys(types, binding), {}),
            rules={name: task.rules for name, task in types.items()},
            input_topics=topics,
            topics=self._kan.topics,
            settings=_SETTINGS,
            history=self._recollect,
        )
        if commands:
            self._loop.command(commands)
        if self._stop_asked:
            self._loop.stop()
        self._loop.run()
        self._running -= 1

    def _run_timers(self) -> None:
        topics, cancellations = self._kan.topics, Cancellations()
        replies = Replies(topics, {name: task.rules for name, task in self._kan.task_types.items()})
        book = partial(TimerBook, topics=topics, codec=self._kan.codec, cancellations=cancellations, replies=replies)
        self._timers = TimerLoop(
            inputs=self.members[1],
            checkpoint=self._checkpoint(self.members[1]),
            books={topics.timers: book},
            commands=self._commands,
            cancellations=cancellations,
            clock=lambda: self._kernel.now_us,
            timeout_seconds=ExecutorSettings().timeout_seconds,
            progress_seconds=0.1,
        )
        if self._stop_asked:
            self._timers.stop()
        self._timers.run()
        self._running -= 1

    def _recollect(self, places: Sequence[Place]) -> Mapping[Place, Past]:
        recollection = Recollection(self._kan.codec, places)
        for record in self._log.read(self._kan.topics.results):
            recollection.result(record.value)
        for record in self._log.read(self._kan.topics.events):
            recollection.event(record.key or b"", record.value)
        return recollection.pasts

    def _checkpoint(self, inputs: InMemoryInputs) -> Checkpoint:
        topics, codec = self._kan.topics, self._kan.codec
        transaction = _Transaction(self._log, inputs, self._kernel)
        return Checkpoint(
            outputs=InMemoryOutputs.of(self._log, transaction, topics.results, codec),
            events=InMemoryEvents(transaction, EventWriter(topics.events, PARTITIONS, codec)),
            transaction=transaction,
            detail=_SETTINGS.events,
            executor_id=self.process.name,
            writer=lambda _: self.process.name,
        )
