"""One idempotency key from many processes, on a real Kafka, with executors killed meanwhile: one result."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from accounting import Account
from executors import HERE, ExecutorUnderTest

from kantoku_kafka import Kantoku, Task, idempotency_key
from kantoku_kafka.ids import idempotent_id
from kantoku_kafka.kafka import topics

SPAWNER = """
import sys, time
from kantoku_kafka import Kantoku, Task, idempotency_key
kan = Kantoku.from_config(sys.argv[2], bootstrap_servers=sys.argv[1])
for n in range(250):
    kan.spawn(Task("noted", b"x").with_(idempotency_key("the one")))
    kan.spawn(Task("noted", b"x"))
    time.sleep(0.01)
"""


@pytest.mark.parametrize("options", [(), ("--slot", "s0")], ids=["classic", "static"])
def test_a_key_spawned_a_thousand_times_by_four_processes_has_one_result(
    kan: Kantoku, bootstrap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    notes = tmp_path / "notes"
    monkeypatch.setenv("NOTES", str(notes))
    topics.create(kan.clients, topics.plan(kan.topics, ["noted"]))
    the_one = idempotent_id(kan.namespace, "noted", "the one")
    common = (bootstrap, kan.namespace, "--types", "noted", *options)
    with ExecutorUnderTest(*common, log=tmp_path / "log", app="retry_app:kan", cwd=HERE) as executor:
        spawners = [subprocess.Popen([sys.executable, "-c", SPAWNER, bootstrap, kan.namespace]) for _ in range(4)]
        assert kan.wait(the_one, timeout_seconds=60).ok
        for _ in range(2):
            time.sleep(1.5)
            executor.kill()
            executor.start()
        assert [spawner.wait(60) for spawner in spawners] == [0] * 4
        last = kan.spawn_many([Task("noted", b"x")] * 50)
        kan.gather(last, timeout_seconds=60)
        executor.kill()
        executor.start()
        kan.spawn(Task("noted", b"x").with_(idempotency_key("the one")))
        kan.gather(kan.spawn_many([Task("noted", b"x")] * 50), timeout_seconds=60)
    account = Account.of(bootstrap, kan.namespace)
    results = Counter(result.task_id for result in account.results)
    assert results[the_one] == 1 and set(results.values()) == {1}
    assert len(results) == 1 + 1_000 + 100
    assert Counter(notes.read_text().split())[the_one] <= 3, "at most once for each executor that was killed"
    assert any(e.task_id == the_one and e.name == "duplicate" for e in account.events)
    assert not account.impossible()
