"""The scheduler's promises: nothing lost, nothing twice, orders and limits kept."""

from __future__ import annotations

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
