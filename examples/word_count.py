"""Fan-out: one task spawns a child for each part of its work, and whoever asked gathers what they found.

The children are published in the transaction of their parent's result: all of them or none, and never twice, though
executors may die. A task never waits for another one, which could fill the pool with waiting tasks.

    kantoku-kafka topics create word_count:kan --yes
    kantoku-kafka run-executor word_count:kan
    python word_count.py README.md CHANGELOG.md
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

from kantoku_kafka import Context, Kantoku, Task

kan = Kantoku("words")
_LINES_PER_CHILD = 200


@kan.task("split")
def split(data: bytes, ctx: Context) -> bytes:
    """A text in; a child for every 200 lines; their ids out."""
    lines = data.splitlines(keepends=True)
    parts = [b"".join(lines[at : at + _LINES_PER_CHILD]) for at in range(0, len(lines), _LINES_PER_CHILD)]
    return json.dumps([ctx.spawn(Task("count", part)) for part in parts]).encode()


@kan.task("count")
def count(data: bytes) -> bytes:
    """A text in, how often each word occurs out."""
    return json.dumps(Counter(data.decode().lower().split())).encode()


def count_words(kantoku: Kantoku, text: bytes) -> Counter[str]:
    """Spawn the parent, then gather its children."""
    children = json.loads(kantoku.spawn(Task("split", text)).result(timeout_seconds=60).data)
    total: Counter[str] = Counter()
    for result in kantoku.gather(children, timeout_seconds=60):
        total.update(json.loads(result.data))
    return total


if __name__ == "__main__":
    for path in sys.argv[1:]:
        print(path, count_words(kan, Path(path).read_bytes()).most_common(5))
    kan.close()
