"""The text in the commit metadata: what goes in comes out, and nothing else ever does."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kantoku_kafka.engine import doneset
from kantoku_kafka.engine.doneset import MAX_BITMAP_SPAN, MAX_RUNS, MAX_WRITER_BYTES, DoneSet, Run

LONGEST_SLOT = "s" * MAX_WRITER_BYTES
MAX_CHARACTERS = 4095
FAR = 2**28 - 1
PLACE = "tasks/0"

slots = st.text(st.characters(exclude_categories=["Cs"]), max_size=16)
offsets = st.integers(0, 2**50)


@st.composite
def commits(draw: st.DrawFn) -> tuple[int, list[Run]]:
    """An offset, and ascending runs beyond it that do not touch."""
    offset = at = draw(offsets)
    runs = []
    for gap, length in draw(st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), max_size=60)):
        runs.append((at + gap, at + gap + length))
        at += gap + length
    return offset, runs


def framed(kind: int, body: bytes, offset: int, version: int = 1) -> str:
    """A text with a valid checksum around any body."""
    rest = b"\0\0\0\5\1s" + bytes((kind,)) + body
    crc = zlib.crc32(rest, zlib.crc32(f"{PLACE}@{offset}".encode()))
    return base64.b85encode(bytes((version,)) + crc.to_bytes(4, "big") + rest).decode()


@given(slots, commits())
def test_any_runs_come_back_as_they_were(slot: str, commit: tuple[int, list[Run]]) -> None:
    offset, runs = commit
    text = doneset.encode(slot, PLACE, offset, runs)
    assert len(text) <= MAX_CHARACTERS
    assert doneset.decode(text, PLACE, offset) == DoneSet(slot, runs if runs else ())


@given(slots, commits(), st.integers(1, 2**40))
def test_metadata_say_nothing_at_another_place_or_offset(slot: str, commit: tuple[int, list[Run]], away: int) -> None:
    offset, runs = commit
    text = doneset.encode(slot, PLACE, offset, runs)
    assert doneset.decode(text, PLACE, offset + away) is None
    assert doneset.decode(text, "tasks/1", offset) is None


@given(slots, commits(), st.integers(0, 2**40))
def test_two_checkpoints_never_look_alike(slot: str, commit: tuple[int, list[Run]], number: int) -> None:
    offset, runs = commit
    first, second = (doneset.encode(slot, PLACE, offset, runs, n) for n in (number, number + 1))
    assert first != second
    assert doneset.decode(first, PLACE, offset) == doneset.decode(second, PLACE, offset)


@given(commits(), st.data())
def test_a_damaged_text_never_says_something_else(commit: tuple[int, list[Run]], data: st.DataObject) -> None:
    """Base 85 has several spellings of its last byte: what is not noticed means the same."""
    offset, runs = commit
    text = doneset.encode("slot", PLACE, offset, runs)
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(min_codepoint=33, max_codepoint=126).filter(text[at].__ne__))
    longer = text + data.draw(st.text("0123456789abc", min_size=1, max_size=9))
    unharmed = DoneSet("slot", runs if runs else ())
    assert doneset.decode(text[:at] + other + text[at + 1 :], PLACE, offset) in (None, unharmed)
    assert doneset.decode(longer, PLACE, offset) in (None, unharmed)
    if at < len(text) - 5:
        assert doneset.decode(text[:at] + other + text[at + 1 :], PLACE, offset) is None
    assert doneset.decode(text[:at], PLACE, offset) is None


@given(st.text(max_size=4096), offsets)
def test_foreign_text_is_nobodys_done_set(text: str, offset: int) -> None:
    assert doneset.decode(text, PLACE, offset) is None


@given(st.integers(0, 255), st.binary(max_size=60), offsets)
def test_any_body_under_a_valid_checksum_raises_nothing(kind: int, body: bytes, offset: int) -> None:
    done = doneset.decode(framed(kind, body, offset), PLACE, offset)
    assert done is None or done.writer == "s"


def test_another_version_or_kind_is_not_ours() -> None:
    assert doneset.decode(framed(0, b"", 7), PLACE, 7) == DoneSet("s", ())
    assert doneset.decode(framed(0, b"", 7, version=2), PLACE, 7) is None
    assert doneset.decode(framed(9, b"", 7), PLACE, 7) is None
    assert doneset.decode(framed(0, b"more", 7), PLACE, 7) is None
    assert doneset.decode(framed(1, b"\5", 7), PLACE, 7) is None, "half a run"
    assert doneset.decode(framed(1, b"\5\6", 7), PLACE, 7) == DoneSet("s", [(12, 18)])
    assert doneset.decode(framed(1, b"\5\6\x80", 7), PLACE, 7) is None, "half a number"


@pytest.mark.parametrize(
    "runs",
    [
        [(i, i + 1) for i in range(1, MAX_BITMAP_SPAN, 2)],
        [(MAX_BITMAP_SPAN - 1, MAX_BITMAP_SPAN)],
        [(1, MAX_BITMAP_SPAN)],
        [((2 * i + 1) * FAR, (2 * i + 2) * FAR) for i in range(MAX_RUNS)],
    ],
    ids=["every other", "the last one", "all but one", "many long runs"],
)
def test_the_promised_limits_fit(runs: Sequence[Run]) -> None:
    text = doneset.encode(LONGEST_SLOT, PLACE, 0, runs)
    assert len(text) <= MAX_CHARACTERS
    assert doneset.decode(text, PLACE, 0) == DoneSet(LONGEST_SLOT, list(runs))


def test_what_does_not_fit_is_refused_not_cut() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        doneset.encode("s" * (MAX_WRITER_BYTES + 1), PLACE, 0, ())
    with pytest.raises(ValueError, match="does not fit"):
        doneset.encode("s", PLACE, 0, [(i * 2**40, i * 2**40 + 2**34) for i in range(1, MAX_RUNS + 1)])


def test_the_shorter_form_is_taken() -> None:
    dense = doneset.encode("", PLACE, 0, [(i, i + 1) for i in range(1, 2000, 2)])
    sparse = doneset.encode("", PLACE, 0, [(1, 10**6)])
    assert len(dense) < 400
    assert len(sparse) < 25
