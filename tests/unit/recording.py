"""A broker and inputs over lists, for the tests of the checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kantoku_kafka.engine.checkpoint import Batch, Checkpoint
from kantoku_kafka.engine.window import Window
from kantoku_kafka.job import Job, Message, Offset, Partition
from kantoku_kafka.model import ErrorInfo, Event, Result, Status, Trail
from kantoku_kafka.protocols import CheckpointRefused
from kantoku_kafka.settings import EventDetail

NOW_US = 1_800_000_000_000_000
REFUSED = CheckpointRefused("the broker says no")


class Broker:
    """Outputs, Events and Transaction in one, over lists; what is committed stands in ``durable``.

    ``poison``: task ids of which no broker takes anything but an empty result; nor what they say of their progress.
    ``refuse``: raises at the steps named, once each.
    """

    promise = "exactly-once"
    max_data_bytes = 1_000_000

    def __init__(self, poison: Sequence[str] = (), refuse: Sequence[str] = ()) -> None:
        self.poison = set(poison)
        self.refuse = list(refuse)
        self.calls: list[str] = []
        self.staged: list[Result | Event | Message] = []
        self.durable: list[Result | Event | Message] = []
        self.offsets: dict[tuple[str, int], Offset] = {}
        self.open = False

    def begin(self) -> None:
        assert not self.open, "the last transaction is still open"
        self._step("begin")
        self.open, self.staged = True, []

    def prepare(self, items: Sequence[Any]) -> Sequence[Any]:
        return [part for item in items for part in (item.events() if isinstance(item, Trail) else [item])]

    def stage(self, items: Sequence[Result] | Sequence[Event]) -> None:
        assert self.open
        self._step("events" if items and isinstance(items[0], Event) else "results")
        self.staged += items

    def produce(self, messages: Sequence[Message]) -> None:
        assert self.open
        self._step("produce")
        self.staged += messages

    def probe(self) -> None:
        assert self.open
        self.calls.append("probe")
        if self._poisoned():
            raise CheckpointRefused("too large", culprit=True)

    def commit(self, offsets: Sequence[Offset]) -> None:
        assert self.open
        self._step("commit")
        self.open = False
        if self._poisoned():
            raise CheckpointRefused("too large", culprit=True)
        self.durable += self.staged
        self.offsets |= {(o.topic, o.partition): o for o in offsets}

    def abort(self) -> None:
        self.calls.append("abort")
        self.open = False

    def close(self) -> None:
        self.abort()

    def _step(self, name: str) -> None:
        self.calls.append(name)
        if name in self.refuse:
            self.refuse.remove(name)
            self.open = False if name == "commit" else self.open
            raise REFUSED

    def _poisoned(self) -> bool:
        return any(
            (isinstance(item, Result) and item.task_id in self.poison and item.data)
            or (isinstance(item, Event) and item.task_id in self.poison and item.name == "progress")
            for item in self.staged
        )

    def results(self) -> list[Result]:
        return [item for item in self.durable if isinstance(item, Result)]

    def events(self, task_id: str) -> list[Event]:
        return [item for item in self.durable if isinstance(item, Event) and item.task_id == task_id]

    def messages(self) -> list[Message]:
        return [item for item in self.durable if isinstance(item, Message)]


def checkpoint(broker: Broker, detail: EventDetail = EventDetail.FULL) -> Checkpoint:
    return Checkpoint(
        outputs=broker,
        events=broker,
        transaction=broker,
        detail=detail,
        executor_id="host-1-ab",
        writer=lambda _: "host.0",
    )


class Inputs:
    """Partitions with windows, and jobs out of them."""

    def __init__(self, *numbers: int) -> None:
        self.partitions = [Partition("tasks", number, 1) for number in numbers or (0,)]
        self.windows = {partition: Window(0) for partition in self.partitions}

    def job(self, name: str, of: int = 0) -> Job:
        partition = self.partitions[of]
        window = self.windows[partition]
        job = Job(partition, window.next_offset, b"key", b"the record", [("a", b"1")])
        job.task_id, job.type, job.data, job.attempt = name, "work", b"", 1
        job.received_at_us, job.started_at_us = NOW_US, NOW_US + 1
        assert window.admit(job.offset)
        return job

    def end(self, target: Checkpoint, job: Job, output: bytes = b"done") -> Job:
        job.succeed(output)
        return self.settle(target, job)

    def fail(self, target: Checkpoint, job: Job, status: Status = Status.FAILED) -> Job:
        job.fail(status, ErrorInfo("E", "m"))
        return self.settle(target, job)

    def settle(self, target: Checkpoint, job: Job) -> Job:
        self.windows[job.partition].finish(job.offset)
        target.end(job)
        return job


def publish(target: Checkpoint, inputs: Inputs) -> Batch:
    batch = target.take(inputs.windows)
    target.publish(batch)
    return batch
