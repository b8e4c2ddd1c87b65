"""Where every decision of a schedule comes from, so that it can be repeated, and made smaller."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

__all__ = ["Choices", "shrink"]


class Choices:
    """Decisions drawn from a seed, or read from those of an earlier schedule; 0 is always the harmless one.

    Parameters:
        seed: of what is drawn.
        given: decisions to take instead; behind their end all are 0.

    Attributes:
        made: all decisions so far.
    """

    def __init__(self, seed: int = 0, given: Sequence[int] | None = None) -> None:
        self._draw = random.Random(seed).random
        self._given = given
        self.made: list[int] = []

    def below(self, bound: int) -> int:
        """A number from 0 to bound - 1."""
        if self._given is None:
            chosen = int(self._draw() * bound)
        else:
            at = len(self.made)
            chosen = self._given[at] % bound if at < len(self._given) else 0
        self.made.append(chosen)
        return chosen

    def happens(self, percent: int) -> bool:
        """True in so many of a hundred cases."""
        return self.below(100) >= 100 - percent


def shrink(failing: Sequence[int], fails: Callable[[Sequence[int]], bool], attempts: int = 400) -> list[int]:
    """Fewer and smaller decisions that still fail: leaves out ever shorter pieces, then puts zeros in their place."""
    best = _without_zeros_behind(failing)
    size = max(1, len(best) // 2)
    while size and attempts > 0:
        at = 0
        while at < len(best) and attempts > 0:
            piece = best[at : at + size]
            for instead in ([], [0] * len(piece)):
                candidate = _without_zeros_behind([*best[:at], *instead, *best[at + size :]])
                if candidate == best:
                    continue
                attempts -= 1
                if fails(candidate):
                    best = candidate
                    break
            else:
                at += size
        size //= 2
    return best


def _without_zeros_behind(decisions: Sequence[int]) -> list[int]:
    kept = list(decisions)
    while kept and kept[-1] == 0:
        kept.pop()
    return kept
