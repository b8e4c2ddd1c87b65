"""Slots: two processes of a host never share one by chance, and a restart finds its own again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kantoku_kafka.errors import UsageError
from kantoku_kafka.settings import MAX_SLOT_BYTES
from kantoku_kafka.slots import Slot, executor_id

HOLDER = """
import sys
from pathlib import Path
from kantoku_kafka.slots import Slot
slot = Slot.take(None, sys.argv[1], Path(sys.argv[2]))
print(slot.name, flush=True)
sys.stdin.read()
"""


@contextmanager
def another_process(namespace: str, directory: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A process that holds a slot; its name."""
    command = [sys.executable, "-c", HOLDER, namespace, str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process
        finally:
            process.kill()


def number_of(slot: str) -> int:
    return int(slot.rpartition(".")[2])


def test_two_processes_take_different_slots_and_a_killed_ones_is_free_again(tmp_path: Path) -> None:
    with another_process("shop", tmp_path) as (other, process):
        mine = Slot.take(None, "shop", tmp_path)
        mine_too = Slot.take(None, "shop", tmp_path)
        elsewhere = Slot.take(None, "other", tmp_path)
        assert [number_of(name) for name in (other, mine.name, mine_too.name)] == [0, 1, 2]
        assert number_of(elsewhere.name) == 0, "a namespace has slots of its own"
        process.kill()
        process.wait()
        again = Slot.take(None, "shop", tmp_path)
        assert again.name == other, "the restarted process is who it was"
        assert not again.explicit
        for slot in (mine, mine_too, elsewhere, again):
            slot.release()


def test_a_released_slot_is_the_next_ones(tmp_path: Path) -> None:
    first, second = (Slot.take(None, "shop", tmp_path) for _ in range(2))
    assert number_of(second.name) == 1
    first.release()
    first.release()
    third = Slot.take(None, "shop", tmp_path)
    assert third.name == first.name
    second.release()
    third.release()


def test_an_explicit_slot_is_taken_as_it_is_and_locks_nothing(tmp_path: Path) -> None:
    """That two live processes use it is for the broker to say: they may run on two hosts, or on two clusters."""
    slots = [Slot.take("mine", "shop", tmp_path) for _ in range(2)]
    assert [(slot.name, slot.explicit) for slot in slots] == [("mine", True)] * 2
    assert list(tmp_path.iterdir()) == []
    slots[0].release()


def test_elsewhere_is_random_and_keeps_the_lock(tmp_path: Path) -> None:
    slot = Slot.take(None, "shop", tmp_path)
    moved, moved_again = slot.elsewhere(), slot.elsewhere()
    assert len({slot.name, moved.name, moved_again.name}) == 3
    assert moved.lock is slot.lock
    assert not moved.explicit
    slot.release()


def test_a_directory_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--slot NAME"):
        Slot.take(None, "shop", tmp_path / "file" / "below")


def test_names_fit_the_commit_metadata_whatever_the_host_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "h" * 255)
    slot = Slot.take(None, "shop", tmp_path)
    assert len(slot.name.encode()) <= MAX_SLOT_BYTES
    assert len(slot.elsewhere().name.encode()) <= MAX_SLOT_BYTES
    slot.release()


def test_executor_ids_never_repeat() -> None:
    assert len({executor_id() for _ in range(100)}) == 100
