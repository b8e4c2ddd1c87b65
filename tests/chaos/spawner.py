"""Spawns the tasks of a run in a process of its own, and notes in a file on disk which were acknowledged.

Each line of the journal is written, and on the disk, before the next tasks are spawned: ``{"ok": [ids]}``,
``{"refused": [ids]}`` for what was certainly not taken. What is in no line may or may not have been.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kantoku_kafka import Kantoku, KantokuError, Task, delay, idempotency_key
from kantoku_kafka.errors import TaskTooLarge
from kantoku_kafka.ids import idempotent_id, new_task_id
from kantoku_kafka.model import TaskEnvelope, now_us

__all__ = ["MIXES", "Journal", "main"]

_BATCH = 50
_TOO_LARGE, _ALMOST_TOO_LARGE = 2 << 20, 1_048_300
_PATIENCE_SECONDS = 300.0
_JUNK_SHARE = 0.03


class Journal:
    """Appends lines that are on the disk when it returns."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, **line: Any) -> None:
        os.write(self._descriptor, json.dumps(line).encode() + b"\n")
        os.fsync(self._descriptor)

    @staticmethod
    def read(path: Path) -> tuple[set[str], set[str]]:
        """The ids that were acknowledged, and those that were refused."""
        acknowledged: set[str] = set()
        refused: set[str] = set()
        for text in path.read_text().splitlines() if path.exists() else ():
            line = json.loads(text)
            acknowledged.update(line.get("ok", ()))
            refused.update(line.get("refused", ()))
        return acknowledged, refused


def _quick(chance: random.Random, number: int) -> Task:
    """Short tasks of every kind; some delayed, some spawned again under the same key."""
    luck = chance.random()
    if luck < 0.08:
        task = Task("flaky", b"%d" % chance.choice((1, 2, 2, 3, 9)))
    elif luck < 0.25:
        task = Task("work", b"%d" % chance.randint(0, 20))
    else:
        task = Task("quick", b"%d" % number)
    if chance.random() < 0.05:
        task = task.with_(delay(seconds=chance.uniform(0.1, 5)))
    if chance.random() < 0.1:
        task = task.with_(idempotency_key(str(number - number % chance.choice((40, 4_000)))))
    return task


def _plain(chance: random.Random, number: int) -> Task:
    """Without keys: partitions that are added would move them."""
    return Task("work", b"%d" % chance.randint(0, 5)) if chance.random() < 0.2 else Task("quick", b"%d" % number)


def _long(chance: random.Random, _: int) -> Task:
    return Task("long", b"%d" % chance.randint(10, 20))


def _poison(chance: random.Random, number: int) -> Task:
    """One of fifty ends its process, or does not end, or has a result that no topic takes; see also :func:`_junk`."""
    luck = chance.random()
    if luck < 0.018:
        return Task("rogue", chance.choice((b"segfault", b"exit", b"hang", b"grandchild")))
    if luck < 0.02:
        return Task("quick", bytes(_ALMOST_TOO_LARGE))
    return Task("rogue", b"fine") if chance.random() < 0.1 else _quick(chance, number)


def _junk(chance: random.Random, task: bytes) -> bytes:
    """What nobody can read: no Avro, an unknown schema, cut off, with something behind, far too long a text, nested."""
    kinds = (
        chance.randbytes(chance.randint(0, 200)),
        task[:2] + chance.randbytes(8) + task[10:],
        task[: chance.randint(0, len(task) - 1)],
        task + b"more",
        task[:10] + b"\xfe\xff\xff\xff\x0f" + task[11:],
        task[:10] + b"\x02" * chance.randint(1_000, 100_000),
    )
    return chance.choice(kinds)


MIXES: dict[str, Callable[[random.Random, int], Task]] = {
    "quick": _quick,
    "plain": _plain,
    "long": _long,
    "poison": _poison,
}


def main() -> None:
    """``BOOTSTRAP NAMESPACE JOURNAL COUNT SECONDS SEED MIX``: so many tasks, evenly over so many seconds."""
    bootstrap, namespace, path, count, seconds, seed, mix = sys.argv[1:]
    chance, make, journal = random.Random(seed), MIXES[mix], Journal(Path(path))
    kan = Kantoku(namespace, bootstrap_servers=bootstrap)
    began, total = time.monotonic(), int(count)
    for first in range(0, total, _BATCH):
        numbers = range(first, min(first + _BATCH, total))
        ahead = began + float(seconds) * first / total - time.monotonic()
        time.sleep(max(0.0, ahead))
        _spawn(kan, journal, [make(chance, number) for number in numbers])
        if mix == "poison":
            _spawn_junk(kan, chance, round(len(numbers) * _JUNK_SHARE))
        if first % (40 * _BATCH) == 0:
            _spawn_too_large(kan, journal, f"large-{first}")
    journal.note(end=True)
    kan.close()


def _spawn(kan: Kantoku, journal: Journal, tasks: list[Task]) -> None:
    """A batch whose outcome is unknown is followed by another one: the run is to have as many as it says."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            journal.note(ok=[spawned.id for spawned in kan.spawn_many(tasks)])
            return
        except KantokuError as error:
            journal.note(unknown=len(tasks), error=str(error))
            time.sleep(0.5)


def _spawn_junk(kan: Kantoku, chance: random.Random, count: int) -> None:
    """Whether it arrives is of no account."""
    producer = kan.clients.producer(**{"message.timeout.ms": 5_000})
    for _ in range(count):
        task = kan.codec.encode_task(TaskEnvelope(new_task_id(), "quick", b"x", now_us()))
        producer.produce(kan.topics.of_type("quick"), _junk(chance, task), chance.randbytes(8))
    producer.flush(5)


def _spawn_too_large(kan: Kantoku, journal: Journal, key: str) -> None:
    try:
        kan.spawn(Task("quick", bytes(_TOO_LARGE)).with_(idempotency_key(key)))
    except TaskTooLarge:
        journal.note(refused=[idempotent_id(kan.namespace, "quick", key)])


if __name__ == "__main__":
    main()
