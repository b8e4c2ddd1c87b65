"""The schedules' book: whatever happens to its owners, each time is served once, in order, and not early."""

from __future__ import annotations

from concurrent.futures import Future

from hypothesis import given
from hypothesis import strategies as st

from kantoku_kafka.avro.codec import AvroCodec
from kantoku_kafka.avro.control import encode_schedule, encode_schedule_state
from kantoku_kafka.engine.schedule_book import ScheduleBook
from kantoku_kafka.ids import occurrence_id, task_id_time_ms
from kantoku_kafka.job import Job, Partition
from kantoku_kafka.model import CatchUp, Overlap, Schedule, ScheduleState, TaskEnvelope
from kantoku_kafka.names import Topics

SECOND_US = 1_000_000
START_US = 1_800_000_000 * SECOND_US
CODEC, TOPICS = AvroCodec(), Topics(namespace="shop")
TEMPLATE = CODEC.encode_task(TaskEnvelope("schedule/tick", "t", b"", 0))


def tick(**fields: object) -> Schedule:
    schedule = Schedule("tick", START_US, TOPICS.of_type("t"), TEMPLATE, every_us=SECOND_US, catch_up=CatchUp.ALL)
    return schedule._replace(**fields)


class World:
    """The topic of the schedules, its owner, and the tasks that were committed."""

    def __init__(self, schedule: Schedule) -> None:
        self.now_us = START_US
        self.log: list[tuple[bytes, bytes | None]] = []
        self.tasks: list[TaskEnvelope] = []
        self.cancelled: list[str] = []
        self.ended: set[str] = set()
        self.write(b"tick", encode_schedule(schedule))
        self.take_over()

    def write(self, key: bytes, value: bytes | None) -> None:
        self.log.append((key, value))

    def take_over(self) -> None:
        """Another owner reads what stands in the topic."""
        self.partition = Partition(TOPICS.schedules, 0, 1)
        self.book = ScheduleBook(self.partition, 0, len(self.log), topics=TOPICS, codec=CODEC, has_ended=self.has_ended)
        self.read = 0
        self.catch_up()

    def catch_up(self) -> None:
        records = [Job(self.partition, n, key, value or b"") for n, (key, value) in enumerate(self.log)]
        self.book.take_in(record for record in records[self.read :] if record.key is not None)
        self.read = len(self.log)

    def compact(self) -> None:
        """Of each key the last record stays, at its offset."""
        last = {key: n for n, (key, _) in enumerate(self.log)}
        self.log = [(key, value) if last[key] == n else (None, None) for n, (key, value) in enumerate(self.log)]  # type: ignore[misc]  # a gap

    def has_ended(self, task_id: str) -> Future[bool]:
        answer: Future[bool] = Future()
        answer.set_result(task_id in self.ended)
        return answer

    def fire(self, *, commits: bool = True) -> None:
        """What is due goes into one transaction; if that is not committed, its owner is no more."""
        jobs = []
        while due := self.book.take_due(self.now_us, 3):
            jobs += due
        if not commits:
            self.take_over()
            return
        for job in jobs:
            assert job.move is not None
            for message in (*job.move.messages, *job.move.marks):
                if message.topic == TOPICS.schedules:
                    self.write(message.key or b"", message.value)
                elif message.topic == TOPICS.control:
                    self.cancelled.append((message.key or b"").decode())
                else:
                    self.tasks.append(CODEC.decode_task(message.value or b""))


steps = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(0, 4 * SECOND_US)),
        st.tuples(st.sampled_from(["fire", "lose", "take over", "read", "compact"]), st.just(0)),
    ),
    max_size=40,
)


@given(steps)
def test_each_time_once_though_owners_come_and_go(story: list[tuple[str, int]]) -> None:
    world = World(tick())
    for step, microseconds in [*story, ("wait", SECOND_US), ("fire", 0)]:
        match step:
            case "wait":
                world.now_us += microseconds
            case "fire":
                world.fire()
            case "lose":
                world.fire(commits=False)
            case "take over":
                world.take_over()
            case "read":
                world.catch_up()
            case "compact":
                world.compact()
    dues = range(START_US + SECOND_US, world.now_us + 1, SECOND_US)
    assert [task.id for task in world.tasks] == [occurrence_id("shop", "tick", due_us) for due_us in dues]
    assert all(task.created_at_us >= 1_000 * (task_id_time_ms(task.id) or 0) for task in world.tasks), "early"


@given(steps)
def test_of_what_was_missed_the_last_and_nothing_twice(story: list[tuple[str, int]]) -> None:
    world = World(tick(catch_up=CatchUp.ONE))
    for step, microseconds in story:
        world.now_us += microseconds
        if step == "fire":
            before = len(world.tasks)
            world.fire()
            assert len(world.tasks) - before <= 1
        elif step == "lose":
            world.fire(commits=False)
        elif step == "take over":
            world.take_over()
    times = [task_id_time_ms(task.id) or 0 for task in world.tasks]
    assert times == sorted(set(times))


def test_one_that_has_not_ended_is_not_overtaken() -> None:
    world = World(tick(overlap=Overlap.SKIP))
    for _ in range(3):
        world.now_us += SECOND_US
        world.fire()
    (first,) = world.tasks
    world.ended.add(first.id)
    world.take_over()
    world.now_us += SECOND_US
    world.fire()
    assert [task_id_time_ms(task.id) for task in world.tasks] == [START_US // 1_000 + 1_000, START_US // 1_000 + 4_000]


def test_the_last_one_is_cancelled() -> None:
    world = World(tick(overlap=Overlap.CANCEL))
    for _ in range(3):
        world.now_us += SECOND_US
        world.fire()
        world.take_over()
    assert world.cancelled == [task.id for task in world.tasks[:-1]]


def test_a_change_counts_from_when_it_was_made_and_a_pause_is_not_made_up_for() -> None:
    world = World(tick())
    world.now_us += SECOND_US
    world.fire()
    world.write(b"tick", encode_schedule(tick(paused=True, changed_at_us=world.now_us)))
    world.catch_up()
    world.now_us += 10 * SECOND_US
    world.fire()
    world.write(b"tick", encode_schedule(tick(every_us=2 * SECOND_US, changed_at_us=world.now_us)))
    world.catch_up()
    world.now_us += 2 * SECOND_US
    world.fire()
    world.write(b"tick", None)
    world.write(b"state/tick", None)
    world.catch_up()
    world.now_us += 10 * SECOND_US
    world.fire()
    assert [(task_id_time_ms(task.id) or 0) - START_US // 1_000 for task in world.tasks] == [1_000, 13_000]


def test_records_that_are_none_are_passed_over() -> None:
    world = World(tick(cron="* * * * * *", every_us=None))
    world.write(b"other", b"\xff")
    world.write(b"state/tick", b"\x00")
    late = tick(name="nanoseconds", cron="* * * * * *", every_us=None, changed_at_us=START_US * 1_000)
    world.write(b"nanoseconds", encode_schedule(late))
    world.write(b"state/tick", encode_schedule_state(ScheduleState(START_US * 1_000, None, 0, 0)))
    world.write(b"never", encode_schedule(tick(name="never", cron="0 0 30 2 *", every_us=None)))
    world.take_over()
    world.now_us += SECOND_US
    world.fire()
    assert len(world.tasks) == 1
