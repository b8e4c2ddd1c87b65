"""The timers of a partition, also where the marks of what has fired come late: without transactions."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from recording import Broker, checkpoint

from kantoku_kafka.avro.codec import AvroCodec
from kantoku_kafka.avro.control import encode_timer
from kantoku_kafka.engine.cancel import Cancellations
from kantoku_kafka.engine.reply import Replies
from kantoku_kafka.engine.timer_book import TimerBook
from kantoku_kafka.job import Job, Message, Partition
from kantoku_kafka.model import Status, TaskEnvelope, Timer
from kantoku_kafka.names import Topics

CODEC, TOPICS = AvroCodec(), Topics(namespace="shop")
PARTITION = Partition(TOPICS.timers, 0, 1)
NOW_US = 1_800_000_000_000_000


def timer(attempt: int) -> bytes:
    task = CODEC.encode_task(TaskEnvelope("a", "t", b"", NOW_US, attempt))
    return encode_timer(Timer("a", "t", attempt, NOW_US + attempt, TOPICS.of_type("t"), b"a", task, ()))


class Log:
    """A partition of timers, and the book of its owner."""

    def __init__(self) -> None:
        self.records: list[Job] = []
        self.book = TimerBook(
            PARTITION, 0, 0, topics=TOPICS, codec=CODEC, cancellations=Cancellations(), replies=Replies(TOPICS, {})
        )

    def write(self, value: bytes | None, headers: Sequence[tuple[str, bytes | None]] = ()) -> None:
        self.records.append(Job(PARTITION, len(self.records), b"a", value or b"", headers))

    def read(self, *at_once: int) -> None:
        """In chunks of so many records."""
        for count in at_once:
            begin = self.book.next_offset
            self.book.take_in(self.records[begin : begin + count])

    def fire(self) -> list[Message]:
        """What is written for all that is due."""
        jobs = self.book.take_due(NOW_US + 1_000, 10)
        return [message for job in jobs if job.move for message in (*job.move.messages, *job.move.marks)]


@pytest.mark.parametrize("at_once", [(1, 1), (2,)])
def test_a_late_mark_does_not_end_the_next_attempt(at_once: tuple[int, ...]) -> None:
    log = Log()
    log.write(timer(1))
    log.read(1)
    task, mark = log.fire()
    assert (task.topic, mark.value) == (TOPICS.of_type("t"), None)
    log.write(timer(2))  # it has failed already
    log.write(mark.value, mark.headers)
    log.read(*at_once)
    assert log.book.base == 1, "a successor has to read it again"
    assert log.book.next_due_us <= NOW_US
    (again,) = log.fire()
    assert (again.topic, again.value, again.partition) == (TOPICS.timers, timer(2), 0), "compaction would remove it"
    assert log.fire() == []
    log.write(again.value)
    log.read(1)
    task, second = log.fire()
    assert CODEC.decode_task(task.value or b"").attempt == 2
    log.write(second.value, second.headers)
    log.read(1)
    assert log.fire() == [] and len(log.book) == 0 and log.book.base == 5


@pytest.mark.parametrize("headers", [(), (("kantoku-attempt", b"junk"),), (("kantoku-attempt", None),)])
def test_a_mark_that_does_not_say_of_which_timer_it_is_is_of_all_before_it(
    headers: Sequence[tuple[str, bytes | None]],
) -> None:
    log = Log()
    log.write(timer(1))
    log.write(timer(2))
    log.write(None, headers)
    log.read(1, 1, 1)
    assert log.fire() == [] and log.book.base == 3


@pytest.mark.parametrize("at_once", [(1, 1, 1), (2, 1), (1, 2), (3,)])
def test_what_has_fired_meanwhile_is_not_written_again(at_once: tuple[int, ...]) -> None:
    """A successor finds the timer of the second attempt, the late mark of the first, and its own."""
    log = Log()
    log.write(timer(2))
    log.write(None, [("kantoku-attempt", b"1")])
    log.write(None, [("kantoku-attempt", b"2")])
    log.read(*at_once)
    assert log.fire() == [] and log.book.base == 3


class Deaf(Broker):
    """Takes no tasks any more."""

    def _poisoned(self) -> bool:
        return any(isinstance(item, Message) and item.topic == TOPICS.of_type("t") for item in self.staged)


def test_a_task_that_its_input_refuses_ends_here_and_that_is_replied() -> None:
    log, broker = Log(), Deaf()
    task = CODEC.encode_task(TaskEnvelope("a", "t", b"", NOW_US, options={"reply_to": b"answers"}))
    log.write(encode_timer(Timer("a", "t", 1, NOW_US, TOPICS.of_type("t"), b"customer-7", task, (("trace", b"1"),))))
    log.read(1)
    target = checkpoint(broker)
    for job in log.book.take_due(NOW_US, 10):
        target.end(job)
    target.publish(target.take({PARTITION: log.book}))
    (result,) = broker.results()
    assert (result.status, result.error and result.error.type) == (Status.FAILED, "undeliverable")
    assert result.headers == (("trace", b"1"),)
    reply, mark = broker.messages()
    assert (reply.topic, reply.key, reply.headers[:1]) == ("answers", b"customer-7", result.headers)
    assert (mark.topic, mark.key, mark.value) == (TOPICS.timers, b"a", None)
