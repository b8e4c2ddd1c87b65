"""Jobs on their way to a pool and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from recording import Broker, Inputs, checkpoint, publish

from kantoku_kafka.avro.codec import AvroCodec
from kantoku_kafka.engine.cancel import CANCEL
from kantoku_kafka.engine.dispatcher import Dispatcher
from kantoku_kafka.engine.judge import Judge
from kantoku_kafka.engine.pools import PoolBinding, Pools
from kantoku_kafka.engine.rules import Rules
from kantoku_kafka.engine.scheduler import Scheduler, TypeLimits
from kantoku_kafka.job import Job
from kantoku_kafka.model import Command, Status, TaskEnvelope
from kantoku_kafka.names import Topics

CODEC, RULES = AvroCodec(), {"work": Rules()}


class Pool:
    """Keeps what it is given until the test ends it."""

    backlog = 0

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.deliver: Callable[[Job], None] = lambda _: None

    def start(self, deliver: Callable[[Job], None]) -> None:
        self.deliver = deliver

    def submit(self, jobs: Sequence[Job]) -> None:
        self.jobs += jobs

    def cancel(self, jobs: Iterable[Job], reason: str) -> None:
        for job in jobs:
            job.cancelled = reason

    def close(self, timeout_seconds: float) -> None:
        """Nothing to stop."""

    def end(self, job: Job) -> None:
        job.succeed(b"done")
        self.deliver(job)


class Rig:
    """A dispatcher with jobs that wait, of which two may run at once."""

    def __init__(self, *names: str, max_tasks: int | None = None) -> None:
        self.pool, self.broker, self.inputs = Pool(), Broker(), Inputs()
        self.binding = PoolBinding(self.pool, Scheduler({"work": TypeLimits()}), 2)
        self.checkpoint = checkpoint(self.broker)
        self.pools = Pools({"work": self.binding}, {})
        judge = Judge(Topics(namespace="n"), CODEC, RULES, self.broker.max_data_bytes)
        self.dispatcher = Dispatcher(self.pools, judge, self.checkpoint, self.inputs.windows, max_tasks)
        self.dispatcher.open()
        jobs = [self.inputs.job(name) for name in names]
        for job in jobs:
            job.value = CODEC.encode_task(TaskEnvelope(job.task_id, "work", b"", 1))
        self.pools.add(jobs)

    def start(self) -> list[str]:
        """The tasks that are started now."""
        before = len(self.pool.jobs)
        while self.dispatcher.start(self.binding):
            pass
        return [job.task_id for job in self.pool.jobs[before:]]

    def statuses(self) -> dict[str, Status]:
        publish(self.checkpoint, self.inputs)
        return {result.task_id: result.status for result in self.broker.results()}


def test_what_has_ended_makes_room_and_goes_into_the_checkpoint() -> None:
    rig = Rig("a", "b", "c")
    assert (rig.start(), rig.start()) == (["a", "b"], [])
    assert not rig.dispatcher.collect()
    rig.pool.end(rig.pool.jobs[1])
    assert rig.dispatcher.collect()
    assert rig.start() == ["c"]
    assert rig.statuses() == {"b": Status.OK}


def test_no_more_are_started_than_may() -> None:
    rig = Rig("a", "b", "c", max_tasks=1)
    assert not rig.dispatcher.is_exhausted
    assert rig.start() == ["a"]
    assert rig.dispatcher.is_exhausted
    rig.pool.end(rig.pool.jobs[0])
    assert rig.dispatcher.collect()
    assert rig.start() == []


def test_what_ends_of_a_partition_that_is_gone_is_dropped() -> None:
    rig = Rig("a")
    rig.start()
    (job,) = rig.pool.jobs
    rig.inputs.windows.clear()
    rig.pool.end(job)
    assert rig.dispatcher.await_ended(0.0)
    assert not rig.checkpoint.due
    assert not rig.pools.running


def test_what_waits_and_is_cancelled_ends_and_what_runs_is_told() -> None:
    rig = Rig("a", "b", "c", "d")
    rig.start()
    rig.dispatcher.command([Command(CANCEL, 2, task_id=name) for name in "ac"])
    assert rig.dispatcher.await_ended(0.0), "a command ends the wait"
    rig.dispatcher.obey()
    assert [job.cancelled for job in rig.pool.jobs] == ["cancelled", None]
    assert rig.statuses() == {"c": Status.CANCELLED}
    for job in list(rig.pool.jobs):
        rig.pool.end(job)
    assert rig.dispatcher.collect()
    assert rig.statuses() == {"a": Status.CANCELLED, "b": Status.OK, "c": Status.CANCELLED}
    assert rig.start() == ["d"]


def test_to_wait_for_nothing_ends() -> None:
    rig = Rig()
    assert not rig.dispatcher.await_ended(0.0)
    rig.dispatcher.wake()
    assert rig.dispatcher.await_ended(0.0)
