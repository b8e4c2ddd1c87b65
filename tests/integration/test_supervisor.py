"""Several processes as one command, whatever they do; processes that stand for executors, without Kafka."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from executors import until

SCRIPT = str(Path(__file__).with_name("supervised.py"))


class Command:
    """A supervisor, and what it and its processes have written."""

    def __init__(self, folder: Path, word: str, count: int, *, burst: bool, program: Sequence[str]) -> None:
        self.word, self._out = folder / "word", folder / "out"
        self.word.write_text(word)
        arguments = [SCRIPT, str(count), "burst" if burst else "", *program, str(self.word)]
        with self._out.open("w") as out:
            self.process = subprocess.Popen([sys.executable, *arguments], stdout=out, stderr=out)

    def said(self, *words: str) -> None:
        """Wait until each of these was written."""
        until(lambda: all(word in self._out.read_text() for word in words), 20, f"{words} in {self._out}")

    def count(self, word: str) -> int:
        return self._out.read_text().count(word)

    def end(self) -> int:
        """By SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


Start = Callable[..., Command]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Command] = []

    def run(
        word: str, count: int = 2, *, burst: bool = False, program: Sequence[str] = (sys.executable, SCRIPT)
    ) -> Command:
        started.append(Command(tmp_path, word, count, burst=burst, program=program))
        return started[-1]

    yield run
    for command in started:
        command.process.kill()
        command.process.wait()


def test_one_that_fails_leaves_the_others_alone(start: Start) -> None:
    command = start("fail")
    until(lambda: command.count("fail 0") > 2, 20, "it is started again")
    assert command.count("fail 1") == 1
    assert command.end() == 0


def test_a_program_that_cannot_be_started_is_tried_again(start: Start) -> None:
    command = start("work", program=["/nonexistent/program"])
    until(lambda: command.count("could not be started") > 4, 20, "it goes on trying")
    assert command.end() == 0


def test_a_burst_is_over_when_all_are_done(start: Start) -> None:
    command = start("end", 3, burst=True)
    assert command.process.wait(20) == 0
    assert [command.count(f"end {n}") for n in range(3)] == [1, 1, 1]


def test_who_ends_well_without_a_burst_is_started_again(start: Start) -> None:
    command = start("end", 1)
    until(lambda: command.count("end 0") > 2, 20, "again")
    assert command.end() == 0


def test_a_question_where_the_threads_are_is_passed_on(start: Start) -> None:
    command = start("work")
    command.said("work 0", "work 1")
    command.process.send_signal(signal.SIGUSR1)
    command.said("told 0", "told 1")
    assert command.end() == 0


def test_a_reload_that_hangs_is_followed_by_one_that_does_not(start: Start) -> None:
    command = start("work")
    command.said("work 0", "work 1")
    command.word.write_text("hang")
    command.process.send_signal(signal.SIGHUP)
    command.said("hang 0")
    assert command.count("hang 1") == 0, "the other one waits for it"
    command.word.write_text("anew")
    command.process.send_signal(signal.SIGHUP)
    command.said("anew 0", "anew 1")
    assert command.end() == 0
