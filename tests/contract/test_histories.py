"""The log in memory and a real broker tell the same story: scripts drawn from a seed are played on both."""

from __future__ import annotations

import os
import random
import time
from typing import Any

import pytest
from test_kafka import KafkaRig
from test_memory import MemoryRig

from kantoku_kafka.engine import doneset
from kantoku_kafka.job import Job, Message, Offset, place_name
from kantoku_kafka.kafka.partitioner import partition_of
from kantoku_kafka.protocols import CheckpointRefused
from kantoku_kafka.settings import GroupProtocol
from kantoku_kafka.testing.broker import BrokerHandle
from kantoku_kafka.testing.contract import LogRig, Member
from kantoku_kafka.testing.contract.log import PATIENCE_SECONDS, a_result, eventually

SCRIPTS = int(os.environ.get("KANTOKU_SCRIPTS", "3"))  # the third one leaves amid a rebalance
STEPS = 14
PARTITIONS = 4
MOST_MEMBERS = 3

Step = tuple[Any, ...]


def script(seed: int) -> list[Step]:
    """What happens; whose turn it is follows from who has a partition then."""
    chance = random.Random(seed)
    steps: list[Step] = [("put", [chance.randrange(12) for _ in range(10)]), ("join",)]
    for _ in range(STEPS):
        kind = chance.choice(("put", "join", "leave", "work", "work", "work", "abort", "too_large", "zombie"))
        if kind == "put":
            steps.append((kind, [chance.randrange(12) for _ in range(chance.randint(1, 10))]))
        else:
            steps.append((kind, chance.randrange(PARTITIONS), chance.randint(1, 5)))
    return steps


class Stage:
    """Plays a script, and writes down what everybody can see."""

    def __init__(self, rig: LogRig) -> None:
        self._rig = rig
        self._members: list[Member] = []
        self._put_so_far = 0
        self._ends = dict.fromkeys(range(PARTITIONS), 0)
        self._committed = dict.fromkeys(range(PARTITIONS), 0)
        self._jobs: list[Job] = []
        self._published = 0

    def play(self, steps: list[Step]) -> list[Any]:
        """The story: how each step ended, what is visible then, and where the group stands at last."""
        story: list[Any] = []
        for kind, *details in steps:
            outcome = getattr(self, f"_{kind}")(*details)
            self._settle()
            story.append((kind, *details, outcome, self._visible()))
        while self._members:
            self._members.pop().inputs.close()
        self._settle()
        story.append(sorted((o.partition, o.offset, _noted(o)) for o in self._members[0].offsets))
        self._members[0].inputs.close()
        return story

    # --- steps

    def _put(self, keys: list[int]) -> None:
        records = [(b"k%d" % key, b"%d" % (self._put_so_far + n), ()) for n, key in enumerate(keys)]
        self._put_so_far += len(keys)
        self._rig.put(records)
        for key, _, _ in records:
            self._ends[partition_of(key, PARTITIONS)] += 1

    def _join(self, *_: int) -> None:
        if len(self._members) < MOST_MEMBERS:
            self._members.append(self._rig.join())

    def _leave(self, number: int, _: int) -> None:
        owner = self._owner(number)
        self._members.remove(owner)
        owner.inputs.close()

    def _work(self, number: int, most: int) -> str:
        """The results of some jobs, and a note of one that is done beyond them."""
        owner, jobs = self._owner(number), self._due(number)[:most]
        return self._checkpoint(owner, jobs) if jobs else "nothing to do"

    def _abort(self, number: int, most: int) -> None:
        owner = self._owner(number)
        owner.transaction.begin()
        owner.outputs.stage(owner.outputs.prepare([a_result(b"aborted", str(n)) for n in range(most)]))
        owner.transaction.probe()
        owner.transaction.abort()

    def _too_large(self, number: int, _: int) -> str:
        owner = self._owner(number)
        try:
            owner.transaction.begin()
            owner.transaction.produce([Message(self._rig.side_topic, None, bytes(self._rig.too_large_bytes))])
            owner.transaction.commit([])
        except CheckpointRefused as error:
            owner.transaction.abort()
            return "culprit" if error.culprit else "refused"
        return "taken"

    def _zombie(self, number: int, most: int) -> str:
        """Who has left goes on as if it had not."""
        owner, jobs = self._owner(number), self._due(number)[:most]
        self._members.remove(owner)
        owner.inputs.close()
        outcome = self._checkpoint(owner, jobs) if jobs else "nothing to do"
        owner.transaction.close()
        return outcome

    def _checkpoint(self, owner: Member, jobs: list[Job]) -> str:
        last = jobs[-1]
        offset = last.offset + 1
        note = doneset.encode("writer", place_name(*last.partition.place), offset, [(offset + 1, offset + 3)])
        owner.transaction.begin()
        owner.outputs.stage(owner.outputs.prepare([a_result(job.value, job.value.decode()) for job in jobs]))
        try:
            owner.transaction.commit(owner.positions(jobs, note))
        except CheckpointRefused:
            return "refused"
        self._published += len(jobs)
        self._committed[last.partition.number] = offset
        return "committed"

    # --- what is the case

    def _owner(self, number: int) -> Member:
        return next(m for m in self._members if any(p.number == number for p in m.partitions))

    def _due(self, number: int) -> list[Job]:
        """What the owner has of a partition that is not done."""
        mine = {p for p in self._owner(number).partitions if p.number == number}
        jobs = [job for job in self._jobs if job.partition in mine and job.offset >= self._committed[number]]
        return sorted(jobs, key=lambda job: job.offset)

    def _settle(self) -> None:
        """Everybody polls until each partition has one owner, who has all that is not done."""
        if not self._members:
            self._join()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._is_settled():
            assert time.monotonic() < deadline, "the group does not come to rest"
            for member in self._members:
                self._jobs += member.inputs.poll(100, 0.05)

    def _is_settled(self) -> bool:
        held = [p.number for member in self._members for p in member.partitions]
        if sorted(held) != list(range(PARTITIONS)) or not all(member.partitions for member in self._members):
            return False
        wanted = {n: list(range(self._committed[n], self._ends[n])) for n in range(PARTITIONS)}
        return all([job.offset for job in self._due(n)] == wanted[n] for n in range(PARTITIONS))

    def _visible(self) -> list[tuple[bytes | None, bytes]]:
        seen = eventually(self._rig.results, lambda results: len(results) >= self._published)
        return sorted((key, result.data) for key, result in seen)


def _noted(offset: Offset) -> object:
    """Metadata without what is the topic's own."""
    return offset.metadata and doneset.decode(offset.metadata, place_name(*offset.place), offset.offset)


@pytest.mark.parametrize("protocol", GroupProtocol)
@pytest.mark.parametrize("seed", range(SCRIPTS))
def test_both_tell_the_same_story(kantoku_broker: BrokerHandle, seed: int, protocol: GroupProtocol) -> None:
    steps = script(seed)
    rig = KafkaRig(kantoku_broker.bootstrap_servers, protocol, exactly_once=True)
    real = Stage(rig).play(steps)
    rig.close()
    assert Stage(MemoryRig()).play(steps) == real


def test_what_stands_behind_an_open_transaction_is_unseen_and_counts(kantoku_broker: BrokerHandle) -> None:
    rig = KafkaRig(kantoku_broker.bootstrap_servers, GroupProtocol.CLASSIC, exactly_once=True)
    _look_behind_a_transaction(rig)
    rig.close()


def test_so_it_does_in_memory() -> None:
    _look_behind_a_transaction(MemoryRig())


def _look_behind_a_transaction(rig: KafkaRig | MemoryRig) -> None:
    member, key = rig.join(), b"k0"
    rig.put([(key, b"before", ())])
    assert [job.value for job in member.poll(1)] == [b"before"]
    (mine,) = [p for p in member.partitions if p.number == partition_of(key, PARTITIONS)]
    with rig.behind_a_transaction(mine.number):
        rig.put([(key, b"behind", ())])
        assert member.poll(1, timeout_seconds=1.0) == []
        end = member.inputs.ends_of([mine])[mine]
    (job,) = member.poll(1)
    assert (job.value, job.offset) == (b"behind", end - 1)
