"""The scheduler's promises: nothing lost, nothing twice, orders and limits kept."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from kantoku_kafka.engine.scheduler import Ordering, Scheduler, TypeLimits
from kantoku_kafka.job import Job, Partition


@given(st.data())
def test_orderings_and_limits_hold(data: st.DataObject) -> None:
    orderings = {name: data.draw(st.sampled_from(Ordering)) for name in ("a", "b")}
    limits = {name: data.draw(st.none() | st.integers(1, 3)) for name in orderings}
    types = {n: TypeLimits(ordering=orderings[n], concurrency=limits[n]) for n in orderings}
    scheduler = Scheduler(types)
    partitions = [Partition(name, number, 1) for name in orderings for number in range(2)]
    added: list[Job] = []
    taken: list[Job] = []
    running: list[Job] = []
    for step in range(data.draw(st.integers(1, 60))):
        if data.draw(st.booleans()):
            partition = data.draw(st.sampled_from(partitions))
            job = Job(partition, step, data.draw(st.sampled_from([b"k", b"l"])), b"")
            job.type = partition.topic
            added.append(job)
            scheduler.add([job])
        for job in scheduler.take(data.draw(st.integers(0, 4))):
            lane = [j for j in running if j.type == job.type]
            if orderings[job.type] is not Ordering.UNORDERED:
                same = [j for j in added if j.partition is job.partition and j.type == job.type]
                if orderings[job.type] is Ordering.KEY:
                    same = [j for j in same if j.key == job.key]
                assert not any(j in running for j in same), "two of one lane at once"
                assert all(j in taken for j in same if j.offset < job.offset), "out of order"
            limit = limits[job.type]
            assert limit is None or len(lane) < limit
            running.append(job)
            taken.append(job)
        if running and data.draw(st.booleans()):
            scheduler.done(running.pop(data.draw(st.integers(0, len(running) - 1))))
        assert scheduler.running == len(running)
        assert scheduler.waiting == len(added) - len(taken)
    while running or scheduler.waiting:
        for job in running:
            scheduler.done(job)
        running = scheduler.take(3)
        taken += running
    assert sorted(map(id, taken)) == sorted(map(id, added))


def test_types_and_partitions_take_turns() -> None:
    scheduler = Scheduler({"a": TypeLimits(), "b": TypeLimits()})
    for name, count in (("a", 100), ("b", 100)):
        partition = Partition(name, 0, 1)
        jobs = [Job(partition, n, None, b"") for n in range(count)]
        for job in jobs:
            job.type = name
        scheduler.add(jobs)
    first = scheduler.take(20)
    assert 5 <= sum(job.type == "a" for job in first) <= 15


def test_drop_forgets_what_waits_and_nothing_else() -> None:
    scheduler = Scheduler({"a": TypeLimits()})
    gone, stays = Partition("a", 0, 1), Partition("a", 1, 1)
    for partition in (gone, stays):
        jobs = [Job(partition, n, None, b"") for n in range(5)]
        for job in jobs:
            job.type = "a"
        scheduler.add(jobs)
    taken = scheduler.take(2)
    dropped = scheduler.drop(gone)
    assert {job.partition for job in dropped} == {gone}
    for job in taken:
        scheduler.done(job)
    rest = scheduler.take(100)
    assert {job.partition for job in rest} == {stays}
    assert len(taken) + len(dropped) + len(rest) == 10


@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 20), min_size=2),
    st.sampled_from(Ordering),
    st.integers(1, 64),
)
def test_topics_of_a_type_share_its_starts_by_weight(weights: dict[str, int], ordering: Ordering, chunk: int) -> None:
    """As long as all of them have jobs; and each is served once in a round of all weights."""
    chunk = 1 if ordering is Ordering.PARTITION else chunk  # each topic may run one at a time then
    scheduler = Scheduler({"t": TypeLimits(ordering=ordering)}, weights)
    for topic in weights:
        partition = Partition(topic, 0, 1)
        scheduler.add([waiting(partition, "t", n, b"%d" % n) for n in range(1_000)])
    taken: list[Job] = []
    while len(taken) < 400:
        batch = scheduler.take(chunk)
        for job in batch:
            scheduler.done(job)
        taken += batch
    total = sum(weights.values())
    for topic, weight in weights.items():
        starts = [at for at, job in enumerate(taken) if job.partition.topic == topic]
        if starts[-1] - starts[0] < len(taken) - 3 * total - chunk:  # it ran dry
            continue
        assert abs(len(starts) - len(taken) * weight / total) <= weight + total
        assert max(after - before for before, after in pairwise(starts)) <= 2 * total


def test_a_topic_that_was_idle_does_not_make_up_for_it() -> None:
    scheduler = Scheduler({"t": TypeLimits()}, {"high": 4})
    low, high = Partition("low", 0, 1), Partition("high", 0, 1)
    scheduler.add([waiting(low, "t", n) for n in range(1_000)])
    for job in scheduler.take(500):
        scheduler.done(job)
    scheduler.add([waiting(high, "t", n) for n in range(1_000)])
    assert sum(job.partition is low for job in scheduler.take(50)) >= 8


@given(st.floats(0.5, 5_000), st.lists(st.floats(0, 2), min_size=1, max_size=50))
def test_a_rate_is_never_exceeded_by_more_than_a_tenth_of_a_second(rate: float, waits: list[float]) -> None:
    scheduler = Scheduler({"a": TypeLimits(rate_per_second=rate), "b": TypeLimits()})
    partition, now, started, offset = Partition("a", 0, 1), 0.0, 0, 0
    for wait in waits:
        now += wait
        scheduler.add([waiting(partition, "a", offset + n) for n in range(50)])
        offset += 50
        taken = scheduler.take(1_000, now)
        for job in taken:
            scheduler.done(job)
        started += len(taken)
        assert started <= rate * now + max(1.0, rate / 10) + 1e-6
    scheduler.add([waiting(Partition("b", 0, 1), "b", 0)])
    assert any(job.type == "b" for job in scheduler.take(1_000, now)), "another type is not held up"


def test_a_rate_is_used_to_the_full() -> None:
    scheduler = Scheduler({"a": TypeLimits(rate_per_second=100)})
    scheduler.add([waiting(Partition("a", 0, 1), "a", n) for n in range(1_000)])
    assert 490 <= sum(len(scheduler.take(64, n / 100)) for n in range(501)) <= 510


@given(st.integers(1, 4), st.lists(st.sampled_from([b"k", b"l"]), max_size=30))
def test_so_many_of_one_key_run_at_once(limit: int, keys: list[bytes]) -> None:
    scheduler = Scheduler({"a": TypeLimits(ordering=Ordering.KEY, key_concurrency=limit)})
    partition = Partition("a", 0, 1)
    jobs = [waiting(partition, "a", n, key) for n, key in enumerate(keys)]
    scheduler.add(jobs)
    running = scheduler.take(100)
    assert {key: sum(j.key == key for j in running) for key in keys} == {k: min(limit, keys.count(k)) for k in keys}
    taken = list(running)
    while running:
        scheduler.done(running.pop(0))
        more = scheduler.take(100)
        running += more
        taken += more
    assert sorted(map(id, taken)) == sorted(map(id, jobs))


def test_pull_takes_out_what_waits_and_leaves_the_rest_in_order() -> None:
    scheduler = Scheduler({"a": TypeLimits(ordering=Ordering.PARTITION)})
    jobs = [waiting(Partition("a", 0, 1), "a", n) for n in range(10)]
    for job in jobs:
        job.partition = jobs[0].partition
    scheduler.add(jobs)
    (first,) = scheduler.take(10)
    assert scheduler.pull(lambda job: job.offset % 2 == 0) == jobs[2::2]
    order = []
    while True:
        scheduler.done(first)
        if not (taken := scheduler.take(10)):
            break
        (first,) = taken
        order.append(first)
    assert order == jobs[1::2] and scheduler.waiting == 0
    assert scheduler.pull(lambda _: True) == []


def waiting(partition: Partition, name: str, offset: int, key: bytes | None = None) -> Job:
    job = Job(partition, offset, key, b"")
    job.type = name
    return job
