"""A static member that is killed amid a rebalance: what it was to let go of finds another owner."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from executors import ExecutorUnderTest, until

from kantoku_kafka import Kantoku, Status, Task, key
from kantoku_kafka.kafka import topics
from kantoku_kafka.kafka.group import members_of

ROOT = Path(__file__).parents[2]


def test_no_partition_stays_without_an_owner(
    kan: Kantoku, bootstrap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics.create(kan.clients, topics.plan(kan.topics, ["quick"]))
    dying = _executor(bootstrap, kan.namespace, "a", tmp_path, failpoint="revoked:1")
    until(lambda: _owned(kan) == 4, 30, "all partitions are those of a")
    other = _executor(bootstrap, kan.namespace, "b", tmp_path)
    until(lambda: dying.returncode is not None, 30, "a dies while its partitions are revoked")
    back = _executor(bootstrap, kan.namespace, "a", tmp_path)
    with other, back:
        until(lambda: _owned(kan) == 4, 90, "every partition has an owner")
        spawned = kan.spawn_many(Task("quick", b"%d" % n).with_(key(b"%d" % n)) for n in range(40))
        assert {one.result(timeout_seconds=60).status for one in spawned} == {Status.OK}


def _executor(bootstrap: str, namespace: str, slot: str, folder: Path, failpoint: str = "") -> ExecutorUnderTest:
    os.environ["KANTOKU_FAILPOINT"] = failpoint
    try:
        options = (bootstrap, namespace, "--types", "quick", "--slot", slot)
        return ExecutorUnderTest(*options, log=folder / f"{slot}.log", app="tests.chaos.app:kan", cwd=ROOT)
    finally:
        del os.environ["KANTOKU_FAILPOINT"]


def _owned(kan: Kantoku) -> int:
    return sum(len(held) for member in members_of(kan.clients, kan.topics) for held in member.partitions.values())
