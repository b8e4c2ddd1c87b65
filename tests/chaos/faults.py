"""What is broken when: a schedule drawn from a seed before the run, and the hands that carry it out."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.chaos.failpoints import STEPS
from tests.chaos.proxy import ADD_PARTITIONS, END_TXN, FETCH, HEARTBEAT, PRODUCE, TXN_OFFSET_COMMIT
from tests.chaos.stage import Stage

__all__ = ["Fault", "PLANS", "Saboteur"]


_SILENCE_SECONDS = 17.0  # longer than an executor waits for an answer


@dataclass(frozen=True, slots=True)
class Fault:
    """``at_seconds`` after the run has begun, something is done to somebody."""

    at_seconds: float
    kind: str
    details: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


Plan = Callable[[random.Random, float, int], Iterator[Fault]]
"""Draws the faults of a run that lasts so many seconds, with so many executors."""


def broker_kills(chance: random.Random, seconds: float, _: int) -> Iterator[Fault]:
    """kill -9 of one broker of three after the other; it is started again before the next one dies."""
    at = chance.uniform(3, 8)
    while at < seconds:
        node, away = chance.randint(1, 3), chance.uniform(2, 8)
        yield Fault(at, "kill-broker", {"node": node})
        yield Fault(at + away, "restart-broker", {"node": node})
        at += away + chance.uniform(10, 20)


def executor_kills(chance: random.Random, seconds: float, executors: int) -> Iterator[Fault]:
    """kill -9 from outside; and every process is one that dies by itself at some step of a checkpoint."""
    at = chance.uniform(2, 4)
    while at < seconds:
        yield Fault(at, "kill-executor", {"number": chance.randrange(executors)})
        at += chance.uniform(1, 4)


def stopped_executors(chance: random.Random, seconds: float, executors: int) -> Iterator[Fault]:
    """SIGSTOP for longer than the session, then SIGCONT: the zombie must publish nothing."""
    at = chance.uniform(2, 4)
    while at < seconds:
        number, away = chance.randrange(executors), chance.uniform(12, 18)
        yield Fault(at, "signal-executor", {"number": number, "name": signal.SIGSTOP.name})
        yield Fault(at + away, "signal-executor", {"number": number, "name": signal.SIGCONT.name})
        at += away + chance.uniform(1, 4)


def twins(chance: random.Random, seconds: float, executors: int) -> Iterator[Fault]:
    """Another process of a slot is started while the one before it lives: it works, on a slow network or not, or is
    stopped and goes on later. What both do at once is to come out as the work of one."""
    at = chance.uniform(3, 5)
    while at < seconds:
        number, away = {"number": chance.randrange(executors)}, chance.uniform(3, 9)
        slow = {"delay_seconds": chance.choice((0.0, 0.05, 0.1, 0.2)), "seconds": away}
        if chance.random() < 0.3:
            yield Fault(at - chance.uniform(0, 1), "signal-executor", number | {"name": signal.SIGSTOP.name})
            yield Fault(at + away, "signal-executor", number | {"name": signal.SIGCONT.name})
        yield Fault(at, "start-twin", number | slow)
        at += away + chance.uniform(0.5, 2)


def delayed_end(chance: random.Random, seconds: float, _: int) -> Iterator[Fault]:
    """An EndTxn that arrives when its transaction is long over; now and then other requests are lost. And once nobody
    hears how commits ended, until they give up and have to find out."""
    silent_at = chance.uniform(0.1, 0.5) * seconds
    yield Fault(silent_at, "proxy", {"do": "mute", "api": END_TXN, "seconds": _SILENCE_SECONDS})
    at = chance.uniform(1, 3)
    while at < seconds:
        cut = chance.choice((0.02, 0.1, 0.5, 1.5))
        rule: dict[str, Any] = {"do": "hold", "api": END_TXN, "cut_seconds": cut}
        rule["release_seconds"] = cut + chance.choice((0.2, 0.5, 1.0, 3.0))
        if chance.random() < 0.3:
            rule = {"do": chance.choice(("drop", "mute"))}
            rule["api"] = chance.choice((END_TXN, TXN_OFFSET_COMMIT, ADD_PARTITIONS, PRODUCE, FETCH, HEARTBEAT))
        yield Fault(at, "proxy", rule)
        at += chance.uniform(0.5, 2.5)


def bad_network(chance: random.Random, seconds: float, _: int) -> Iterator[Fault]:
    """Connections are slow, dead, deaf in one direction, or cut; of one broker or of all."""
    at = chance.uniform(2, 4)
    while at < seconds:
        rule: dict[str, Any] = {"do": chance.choice(("delay", "freeze", "deafen", "cut"))}
        rule |= {"seconds": chance.uniform(1, 8), "node": chance.choice((None, 1, 2, 3))}
        if rule["do"] == "delay":
            rule["delay_seconds"] = chance.uniform(0.05, 0.5)
        yield Fault(at, "proxy", rule)
        at += rule["seconds"] + chance.uniform(2, 6)


def comings_and_goings(chance: random.Random, seconds: float, executors: int) -> Iterator[Fault]:
    """Every 2 s or so one joins or leaves, in order or not."""
    kinds = ("toggle-executor", "toggle-executor", "kill-executor")
    for at, kind in _each(chance, kinds, chance.uniform(2, 4), seconds, (1, 3)):
        yield Fault(at, kind, {"number": chance.randrange(executors)})


def resets_and_growth(chance: random.Random, seconds: float, _: int) -> Iterator[Fault]:
    """All executors stop, the group is set back to the beginning, they start again; meanwhile the inputs grow."""
    for at, kind in _each(chance, ("reset-group", "grow-inputs"), chance.uniform(4, 8), seconds, (8, 14)):
        yield Fault(at, kind)


def replays(chance: random.Random, seconds: float, _: int) -> Iterator[Fault]:
    """Somebody replays the events while they are written and compacted."""
    at = 3.0
    while at < seconds:
        yield Fault(at, "replay")
        at += chance.uniform(3, 6)


def bad_surroundings(chance: random.Random, seconds: float, executors: int) -> Iterator[Fault]:
    """A disk is full, or a clock is set back; a while later all is well again."""
    for at, kind in _each(chance, ("fill-disk", "set-clock"), chance.uniform(2, 4), seconds, (8, 13)):
        away, number = chance.uniform(4, 8), chance.randrange(executors)
        if kind == "fill-disk":
            yield Fault(at, kind, {"node": 2})
            yield Fault(at + away, "free-disk", {"node": 2})
        else:
            yield Fault(at, kind, {"number": number, "seconds": -chance.uniform(1, 7_200)})
            yield Fault(at + away, kind, {"number": number, "seconds": 0.0})


def _each(
    chance: random.Random, kinds: Sequence[str], at: float, seconds: float, gap_seconds: tuple[float, float]
) -> Iterator[tuple[float, str]]:
    """When and what: each kind once, however little time there is, then any of them until it is over."""
    left = chance.sample(kinds, len(kinds))
    while left or at < seconds:
        yield at, left.pop() if left else chance.choice(kinds)
        at += chance.uniform(*gap_seconds)


def nothing(_: random.Random, __: float, ___: int) -> Iterator[Fault]:
    """What the tasks themselves do is bad enough."""
    return iter(())


PLANS: Mapping[str, Plan] = {
    plan.__name__: plan
    for plan in (
        broker_kills,
        executor_kills,
        stopped_executors,
        twins,
        delayed_end,
        bad_network,
        comings_and_goings,
        resets_and_growth,
        replays,
        bad_surroundings,
        nothing,
    )
}


def failpoints(chance: random.Random) -> Iterator[str]:
    """Where one process after the other is to die: at every step as often as at any other, mostly soon."""
    while True:
        for step in chance.sample(STEPS, len(STEPS)):
            yield f"{step}:{1 if step == 'revoked' else round(12 ** chance.random())}"


class Saboteur(threading.Thread):
    """Carries a schedule out.

    Attributes:
        hits: by kind how many faults found somebody to be done to.
        ended_at: when the last fault was over, monotonic.
        error: what went wrong.
    """

    def __init__(self, stage: Stage, faults: Sequence[Fault]) -> None:
        super().__init__(name="saboteur", daemon=True)
        self._stage = stage
        self._faults = sorted(faults, key=lambda fault: fault.at_seconds)
        self.hits: Counter[str] = Counter()
        self.ended_at: float | None = None
        self.error: Exception | None = None

    def run(self) -> None:
        began = time.monotonic()
        try:
            for fault in self._faults:
                time.sleep(max(0.0, began + fault.at_seconds - time.monotonic()))
                self.hits[fault.kind] += self._stage.apply(fault.kind, **fault.details)
            self._stage.heal()
        except Exception as error:  # noqa: BLE001 - part of the report
            self.error = error
        self.ended_at = time.monotonic()
