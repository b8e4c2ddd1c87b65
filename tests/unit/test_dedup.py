"""The same idempotency key, however often and wherever it is spawned: one result."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kantoku_kafka import Context, Kantoku, Task, delay, idempotency_key
from kantoku_kafka.avro.codec import AvroCodec
from kantoku_kafka.engine import doneset
from kantoku_kafka.engine.dedup import Memory
from kantoku_kafka.engine.judge import PUT_BACK, Judge
from kantoku_kafka.engine.rules import Rules
from kantoku_kafka.engine.window import Window
from kantoku_kafka.ids import idempotent_id, new_task_id, packed_id
from kantoku_kafka.job import Job, Message, Partition, place_name
from kantoku_kafka.model import EventName, TaskEnvelope
from kantoku_kafka.names import Topics
from kantoku_kafka.testing import InMemoryLog, Run, run_tasks

IDS = [idempotent_id("ns", "t", str(n)) for n in range(6)]
HOUR_US = 3_600_000_000
CODEC = AvroCodec()
NOW_US = 1_800_000_000_000_000


def app(**options: float) -> Kantoku:
    kan = Kantoku("dedup")

    @kan.task("t", **options)  # type: ignore[arg-type]  # passed through
    def t(data: bytes, ctx: Context) -> bytes:
        if data == b"fail" and ctx.attempt == 1:
            raise ConnectionError
        return data

    @kan.task("all", deduplicate_all=True)
    def everything(data: bytes) -> bytes:
        return data

    return kan


def counts(run: Run) -> dict[str, int]:
    return dict(Counter(result.task_id for result in run.all_results))


def test_many_spawns_of_a_key_have_one_result_and_an_event() -> None:
    log = InMemoryLog()
    run = run_tasks(app(), [Task("t", b"%d" % n).with_(idempotency_key("order-7")) for n in range(20)], log=log)
    assert list(counts(run).values()) == [1]
    assert run.results[0].data == b"0", "the first one counts"
    assert Counter(event.name for event in run.events)["duplicate"] == 19
    again = run_tasks(app(), [Task("t", b"later").with_(idempotency_key("order-7"))], log=log)
    assert list(counts(again).values()) == [1], "a new executor has read what its predecessor knew"


def test_a_delayed_task_is_not_a_duplicate_of_itself_but_a_second_spawn_is() -> None:
    task = Task("t", b"x").with_(idempotency_key("a"), delay(seconds=3_600))
    run = run_tasks(app(), [task, task, Task("t", b"now").with_(idempotency_key("a"))])
    assert list(counts(run).values()) == [1] and run.results[0].data == b"x"


def test_a_retry_is_not_a_duplicate() -> None:
    from kantoku_kafka import Retry, retry

    run = run_tasks(app(), [Task("t", b"fail").with_(idempotency_key("a"), retry(Retry()))])
    assert run.results[0].ok and run.results[0].attempt == 2


def test_a_type_may_forget_at_once_and_another_remember_everything() -> None:
    task = Task("t").with_(idempotency_key("a"))
    run = run_tasks(app(deduplicate_seconds=0), [task, task])
    assert list(counts(run).values()) == [2]
    kan, log = app(), InMemoryLog()
    first = run_tasks(kan, [Task("all", b"1")], log=log)
    (record,) = log.read(kan.topics.of_type("all"))
    log.append(Message(record.topic, record.key, record.value))
    assert counts(run_tasks(kan, [], log=log)) == {first.results[0].task_id: 1}


spawns = st.lists(st.sampled_from(IDS), min_size=1, max_size=40)
rounds = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 2**40)), max_size=8)


@given(spawns, rounds)
def test_however_it_is_interrupted_each_id_is_new_once(ids: list[str], restarts: list[tuple[int, int]]) -> None:
    """A partition of spawns, of which some finish in any order; then a restart from what the checkpoint said."""
    finished: Counter[str] = Counter()
    offset, text = 0, ""
    for ahead, chosen in [*restarts, (len(ids), -1)]:
        found = doneset.decode(text, "t/0", offset)
        runs = list(found.runs) if found else []
        begin = offset if found is None or found.remembered_from is None else found.remembered_from
        window = Window(begin, [(begin, offset), *runs] if begin < offset else runs, history_end=offset)
        for at_offset in range(begin, min(offset + ahead, len(ids))):
            fresh = window.admit(at_offset)
            duplicate = window.memory.is_duplicate(ids[at_offset], at_offset, HOUR_US, 0)
            if fresh and (duplicate or chosen >> at_offset & 1):
                window.finish(at_offset)
                finished[ids[at_offset]] += not duplicate
        offset = window.base
        text = doneset.encode("s", "t/0", offset, window.done_runs(), 1, window.remembered_from)
    assert finished == dict.fromkeys(ids, 1)
    assert offset == len(ids)


def test_what_is_over_is_forgotten() -> None:
    memory = Memory()
    assert not memory.is_duplicate(IDS[0], 0, 100, 0)
    assert not memory.is_duplicate(IDS[1], 1, 200, 50)
    assert memory.is_duplicate(IDS[0], 2, 300, 99)
    assert not memory.is_duplicate(IDS[0], 3, 400, 150)
    assert memory.first_offset == 1
    assert not memory.is_duplicate(IDS[2], 4, 2_000, 1_000)
    assert (memory.first_offset, len(memory)) == (4, 1)


def judge_of(rules: Rules) -> Judge:
    return Judge(Topics(namespace="test"), AvroCodec(), {"t": rules}, 1_000)


def arrived(task_id: str, offset: int, created_at_us: int | None = None) -> Job:
    job = Job(Partition("in", 0, 1), offset, None, b"")
    job.task_id, job.type, job.data, job.attempt = task_id, "t", b"", 1
    if created_at_us is not None:
        job.envelope = TaskEnvelope(task_id, "t", b"", created_at_us)
    return job


def test_a_clock_that_is_ahead_makes_nobody_remember_for_ever() -> None:
    judge, memory = judge_of(Rules()), Memory()
    judge.is_duplicate(arrived(IDS[0], 0, NOW_US + 10_000 * HOUR_US), memory, NOW_US)
    for number, later_us in ((1, 0), (2, 4 * HOUR_US), (3, 8 * HOUR_US)):
        judge.is_duplicate(arrived(IDS[number], number, NOW_US + later_us), memory, NOW_US + later_us)
        assert memory.first_offset == (number if later_us else 0)


@pytest.mark.parametrize("back_us", [0, HOUR_US // 2, 2 * HOUR_US])
@pytest.mark.parametrize("seen_before", [False, True])
def test_an_executor_whose_clock_was_set_back_and_right_again_still_knows(back_us: int, seen_before: bool) -> None:
    judge, memory = judge_of(Rules()), Memory()
    if seen_before:
        judge.is_duplicate(arrived(IDS[1], 0, NOW_US - 1), memory, NOW_US)
    assert not judge.is_duplicate(arrived(IDS[0], 1, NOW_US), memory, NOW_US - back_us)
    later_us = NOW_US + HOUR_US - 1
    assert judge.is_duplicate(arrived(IDS[0], 2, later_us), memory, later_us)


@pytest.mark.parametrize("task_id", ["of time", "of their own"])
def test_takeovers_do_not_make_an_id_remembered_for_longer(task_id: str) -> None:
    task_id = new_task_id(NOW_US // 1_000) if task_id == "of time" else task_id
    judge = judge_of(Rules(deduplicate_all=True))
    value = AvroCodec().encode_task(TaskEnvelope(task_id, "t", b"", NOW_US))
    for later_us in (0, HOUR_US // 2, 5 * HOUR_US):
        memory, job = Memory(), arrived(task_id, 0)
        job.value = value
        judge.is_duplicate(job, memory, NOW_US + later_us)
        assert memory.first_offset == 0
        judge.is_duplicate(arrived(IDS[1], 1, NOW_US + HOUR_US), memory, NOW_US + 5 * HOUR_US)
        assert memory.first_offset == 1


@pytest.mark.parametrize("behind_us", [0, HOUR_US * 5 // 6, 100 * HOUR_US])
def test_an_executor_that_is_behind_recognises_what_one_that_is_not_would(behind_us: int) -> None:
    judge, memory = judge_of(Rules()), Memory()
    spawns = [(0, False), (HOUR_US - 1, True), (HOUR_US, False), (HOUR_US + 1, True)]
    for offset, (made_us, duplicate) in enumerate(spawns):
        job = arrived(IDS[0], offset, NOW_US + made_us)
        assert judge.is_duplicate(job, memory, NOW_US + made_us + behind_us) is duplicate


def test_a_second_spawn_that_cannot_be_is_a_duplicate_all_the_same() -> None:
    """It would put REJECTED over the result that its key has."""
    judge, memory = judge_of(Rules()), Memory()
    assert judge.enter(arrived(IDS[0], 0, NOW_US), memory, NOW_US)
    second = arrived(IDS[0], 1, NOW_US)
    assert second.envelope is not None
    second.envelope = second.envelope._replace(timeout_ms=0)
    assert not judge.enter(second, memory, NOW_US)
    assert second.move is not None and second.move.step is EventName.DUPLICATE


@pytest.mark.parametrize("recalled", [False, True])
def test_a_letter_that_is_put_back_is_no_duplicate_of_itself_but_what_is_spawned_later_is(recalled: bool) -> None:
    """Though executors can read by now what stands where it was buried."""
    judge, memory = judge_of(Rules()), Memory()
    if recalled:
        judge.is_duplicate(arrived(IDS[0], 10, NOW_US), memory, NOW_US)
    put_back = arrived(IDS[0], 80, NOW_US)
    put_back.raw_headers = [(PUT_BACK, b"in/0/10")]
    assert not judge.is_duplicate(put_back, memory, NOW_US)
    assert judge.is_duplicate(arrived(IDS[0], 90, NOW_US), memory, NOW_US)


@pytest.mark.parametrize("other", ["x", "", "x" * 36, "0" * 36])
def test_ids_that_are_no_uuids_stay_apart(other: str) -> None:
    assert len(packed_id(IDS[0])) == 16
    assert len({packed_id(IDS[0]), packed_id(other), packed_id(IDS[0].replace("-", ""))}) == 3


def test_tasks_without_keys_let_it_be_forgotten_too() -> None:
    """Else one key would have every successor read from there again."""
    kan, log = app(), InMemoryLog()
    old_ms = time.time_ns() // 1_000_000 - 2 * 3_600_000
    for number, task_id in enumerate((IDS[0], *(new_task_id(old_ms + n * 3_600_000) for n in range(3)))):
        envelope = TaskEnvelope(task_id, "t", b"", old_ms * 1_000, idempotency_key=None if number else "0")
        log.append(Message(kan.topics.of_type("t"), b"same", CODEC.encode_task(envelope)))
    run_tasks(kan, [], log=log)
    (place,) = {(record.topic, record.partition) for record in log.read(kan.topics.of_type("t"))}
    _, _, offset, metadata = log.committed(*place)
    found = doneset.decode(metadata, place_name(*place), offset)
    assert (offset, found and found.remembered_from) == (4, None) and found is not None
