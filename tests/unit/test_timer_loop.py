"""The loop of the timers where Kafka takes nothing. No Kafka."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue

from recording import Broker, checkpoint

from kantoku_kafka.avro.codec import AvroCodec
from kantoku_kafka.avro.control import encode_timer
from kantoku_kafka.engine.book import Book
from kantoku_kafka.engine.cancel import Cancellations
from kantoku_kafka.engine.reply import Replies
from kantoku_kafka.engine.timer_book import TimerBook
from kantoku_kafka.engine.timer_loop import TimerLoop
from kantoku_kafka.job import Job, Offset, Partition
from kantoku_kafka.model import TaskEnvelope, Timer
from kantoku_kafka.names import Topics
from kantoku_kafka.protocols import Rebalance

CODEC, TOPICS = AvroCodec(), Topics(namespace="shop")


class Inputs:
    """One partition with one timer that is due; ``each_turn`` is called when the loop polls."""

    def __init__(self, each_turn: Callable[[int], None]) -> None:
        self._each_turn = each_turn
        self._turns = 0

    def subscribe(self, topics: Sequence[str], rebalance: Rebalance) -> None:
        (self._partition,) = rebalance.assigned([Offset(topics[0], 0, 0, "")])

    def ends_of(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        return dict.fromkeys(partitions, 1)

    def read_up_to(self, partition: Partition) -> int:
        return 1

    def poll(self, max_jobs: int, timeout_seconds: float) -> list[Job]:
        self._turns += 1
        self._each_turn(self._turns)
        task = CODEC.encode_task(TaskEnvelope("a", "t", b"", 0))
        timer = encode_timer(Timer("a", "t", 1, 0, TOPICS.of_type("t"), b"a", task, ()))
        return [Job(self._partition, 0, b"a", timer)] if self._turns == 1 else []

    def pause(self, partitions: object) -> None: ...

    def resume(self, partitions: object) -> None: ...

    def close(self) -> None: ...


def test_a_loop_whose_checkpoints_are_refused_goes_round_all_the_same() -> None:
    turned: list[float | None] = []

    def each_turn(number: int) -> None:
        turned.append(loop.turned_at)
        if number == 5:
            loop.stop()

    def book(partition: Partition, offset: int, end: int) -> Book:
        replies = Replies(TOPICS, {})
        return TimerBook(
            partition, offset, end, topics=TOPICS, codec=CODEC, cancellations=Cancellations(), replies=replies
        )

    broker = Broker(refuse=["begin"] * 99)
    loop = TimerLoop(
        inputs=Inputs(each_turn),
        checkpoint=checkpoint(broker),
        books={TOPICS.timers: book},
        commands=SimpleQueue(),
        cancellations=Cancellations(),
        timeout_seconds=1.0,
    )
    loop.run()
    assert broker.durable == [] and "begin" in broker.calls
    assert turned[0] is None and None not in turned[1:] and len(set(turned)) == 5
