"""An input topic that is deleted while executors read it: they end with words, and nothing else is lost."""

from __future__ import annotations

from pathlib import Path

from administration import delete_topic
from executors import ExecutorUnderTest

from kantoku_kafka import Kantoku, Status, Task
from kantoku_kafka.kafka import topics


def test_a_topic_that_is_deleted_is_named(kan: Kantoku, bootstrap: str, tmp_path: Path) -> None:
    gone = kan.topics.of_type("work")
    arguments = (bootstrap, kan.namespace, "--types", "echo,work")
    with ExecutorUnderTest(*arguments, log=tmp_path / "log") as executor:
        assert kan.spawn(Task("work", b"0")).result(timeout_seconds=60).status is Status.OK
        delete_topic(bootstrap, gone)
        others = kan.spawn_many(Task("echo", b"%d" % n) for n in range(50))
        assert executor.wait(60) == 7
        assert gone in executor.log().splitlines()[-1]
    topics.create(kan.clients, topics.plan(kan.topics, ["echo", "work"]))
    with ExecutorUnderTest(*arguments, log=tmp_path / "log"):
        others.append(kan.spawn(Task("work", b"0")))
        assert {one.result(timeout_seconds=60).status for one in others} == {Status.OK}
