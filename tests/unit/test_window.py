"""The window and its done-set against the obvious model: a set of offsets, each done or not."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from kantoku_kafka.engine import doneset
from kantoku_kafka.engine.window import Window


@given(st.text(st.characters(codec="ascii"), max_size=300), st.integers(0, 2**40))
def test_foreign_metadata_are_empty_not_an_error(text: str, offset: int) -> None:
    assert doneset.decode(text, "t/0", offset) is None


@given(st.data())
def test_what_is_finished_never_runs_again_and_nothing_else_is_skipped(data: st.DataObject) -> None:
    """Arrivals, completions, checkpoints and crashes in any order; offsets have gaps, as transactions leave them."""
    gaps = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=60))
    offsets = [sum(gaps[: i + 1]) for i in range(len(gaps))]
    committed: tuple[int, str] = (0, "")
    durable: set[int] = set()
    window, position = Window(0), 0
    running: set[int] = set()
    finished: set[int] = set()
    for _ in range(data.draw(st.integers(1, 120))):
        step = data.draw(st.sampled_from(["arrive", "arrive", "finish", "finish", "checkpoint", "crash"]))
        if step == "arrive" and position < len(offsets):
            offset = offsets[position]
            position += 1
            assert window.may_admit(offset)
            assert window.admit(offset) is (offset not in durable)
            if offset not in durable:
                running.add(offset)
        elif step == "finish" and running:
            offset = data.draw(st.sampled_from(sorted(running)))
            running.remove(offset)
            window.finish(offset)
            finished.add(offset)
        elif step == "checkpoint":
            base = window.base
            assert base >= committed[0], "the committed offset went back"
            assert not {o for o in running if o < base}, "an unfinished offset is below the committed one"
            committed = base, doneset.encode("slot", "t/0", base, window.done_runs())
            durable = set(finished)
        elif step == "crash":
            base, metadata = committed
            done = doneset.decode(metadata, "t/0", base) if metadata else None
            window = Window(base, done.runs if done else ())
            position = sum(1 for o in offsets if o < base)
            assert {o for o in offsets if o < base} <= durable
            running, finished = set(), set(durable)


@settings(max_examples=30)
@given(st.integers(1, 40), st.lists(st.tuples(st.integers(1, 6000), st.integers(1, 3)), max_size=8))
def test_whatever_is_admitted_fits_the_metadata(stride: int, rounds: list[tuple[int, int]]) -> None:
    window, offset = Window(0), 0
    for count, every in rounds:
        batch = []
        while len(batch) < count and window.may_admit(offset + stride):
            offset += stride
            window.admit(offset)
            batch.append(offset)
        for done in batch[::every]:
            window.finish(done)
        assert len(doneset.encode("s" * 64, "t/0", window.base, window.done_runs())) <= 4095
