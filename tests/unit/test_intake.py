"""Back-pressure: which partitions are paused while much waits, and when they go on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kantoku_kafka.engine.intake import Intake
from kantoku_kafka.job import Offset, Partition

MOST, MOST_BYTES = 40, 4_000
WAITING = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 6_000)), min_size=4, max_size=4)


def opened() -> tuple[Intake, list[Partition]]:
    intake = Intake(MOST, MOST_BYTES)
    return intake, intake.open(Offset("in", number, 0, "") for number in range(4))


def test_who_has_more_than_its_share_is_paused_until_half_of_it_is_left() -> None:
    intake, (slow, quick, *_) = opened()
    slow.waiting, quick.waiting = MOST, 1
    assert intake.press_back(full=False) == ({slow}, set())
    assert intake.waiting == 1, "what nobody fetches more of does not count"
    slow.waiting = 6
    assert intake.press_back(full=False) == (set(), set())
    slow.waiting = 5
    assert intake.press_back(full=False) == (set(), {slow})


def test_few_large_ones_are_as_many() -> None:
    intake, (slow, *_) = opened()
    slow.waiting, slow.waiting_bytes = 1, MOST_BYTES + 1
    assert intake.press_back(full=False) == ({slow}, set())


def test_what_is_paused_is_forgotten_with_its_partition() -> None:
    intake, partitions = opened()
    assert intake.press_back(full=True) == (set(partitions), set())
    intake.close(partitions[0])
    assert intake.paused == set(partitions[1:])
    assert intake.press_back(full=False) == (set(), set(partitions[1:]))


@given(st.lists(WAITING, max_size=6))
def test_what_flows_is_bounded_and_nothing_is_paused_for_ever(turns: list[list[tuple[int, int]]]) -> None:
    """The bounds, and half as much that goes on just now."""
    intake, partitions = opened()
    told: set[Partition] = set()
    for waiting in [*turns, [(0, 0)] * 4]:
        for partition, amounts in zip(partitions, waiting, strict=True):
            partition.waiting, partition.waiting_bytes = amounts
        pause, resume = intake.press_back(full=False)
        assert pause.isdisjoint(told) and resume <= told
        told = (told | pause) - resume
        assert intake.paused == told
        assert intake.waiting <= 1.5 * MOST
        assert sum(p.waiting_bytes for p in partitions if p not in told) <= 1.5 * MOST_BYTES
    assert not told
