"""A task that runs for longer than the group lets a member go without polling: no rebalance, one run, one result.

``KANTOKU_LONG_TASK_SECONDS`` sets how long; 600 is the full one.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from accounting import Account
from executors import ExecutorUnderTest

from kantoku_kafka import Kantoku, Task
from kantoku_kafka.kafka import topics

SECONDS = float(os.environ.get("KANTOKU_LONG_TASK_SECONDS", "30"))
MAX_POLL_SECONDS = 60 if SECONDS > 120 else 12


@pytest.mark.timeout(SECONDS + 120)
def test_a_task_longer_than_the_poll_interval_is_no_rebalance(kan: Kantoku, bootstrap: str, tmp_path: Path) -> None:
    topics.create(kan.clients, topics.plan(kan.topics, ["waits", "sleeps"]))
    options = ("--types", "waits,sleeps", "-X", f"max.poll.interval.ms={MAX_POLL_SECONDS * 1000}")
    with ExecutorUnderTest(bootstrap, kan.namespace, *options, log=tmp_path / "log", app="rogue_app:kan") as executor:
        long = kan.spawn_many([Task("waits", b"%f" % SECONDS), Task("sleeps", b"%f" % SECONDS)])
        results = kan.gather(long, timeout_seconds=SECONDS + 60)
        log = executor.log()
        assert log.count("assigned ") <= 2, "once for the inputs, once for the timers"
        assert "revoked" not in log and "lost" not in log, log
        executor.kill(signal.SIGTERM)
        assert executor.wait(40) == 0
    assert [result.ok for result in results] == [True, True]
    account = Account.of(bootstrap, kan.namespace)
    account.check({task.id for task in long})
    received = [event for event in account.events if event.name == "received_task"]
    assert len(received) == 2, "each ran once"
    assert {event.source.epoch for event in received if event.source} <= {r.source.epoch for r in account.results}
