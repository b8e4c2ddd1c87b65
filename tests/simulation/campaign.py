"""Many schedules, one seed each, in several processes; those that fail are made smaller."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from types import TracebackType
from typing import Self

from tests.chaos import mutants
from tests.simulation.choices import Choices, shrink
from tests.simulation.schedule import Verdict, simulate

__all__ = ["Campaign"]

_CHUNK = 100
_SHRINK_SECONDS = 30.0


class Campaign:
    """Processes that simulate. A context manager.

    Parameters:
        mutant: a defect to build into the engine; none if it is empty.
    """

    def __init__(self, processes: int, mutant: str = "") -> None:
        self._pool = get_context("spawn").Pool(processes, mutants.install, (mutant,))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.terminate()

    def failing(self, seeds: range) -> Iterator[tuple[int, list[int]]]:
        """For each piece of the seeds: how many were tried, and the first that failed, which ends it."""
        chunks = [seeds[at : at + _CHUNK] for at in range(0, len(seeds), _CHUNK)]
        return self._pool.imap_unordered(_fail, chunks)

    def smaller(self, seed: int) -> Verdict:
        """The shortest schedule found that breaks the same promise as this one."""
        return self._pool.apply(_smaller, (seed,))


def _fail(seeds: Sequence[int]) -> tuple[int, list[int]]:
    """Up to the first that fails."""
    for done, seed in enumerate(seeds, 1):
        if not simulate(Choices(seed)).ok:
            return done, [seed]
    return len(seeds), []


def _smaller(seed: int) -> Verdict:
    first = simulate(Choices(seed))
    kind = _kind(first.problems[0])
    deadline = time.monotonic() + _SHRINK_SECONDS

    def fails(given: Sequence[int]) -> bool:
        if time.monotonic() > deadline:
            return False
        return any(_kind(problem) == kind for problem in simulate(Choices(given=given)).problems)

    return simulate(Choices(given=shrink(first.choices, fails)))


def _kind(problem: str) -> str:
    return problem.split(":")[0]
