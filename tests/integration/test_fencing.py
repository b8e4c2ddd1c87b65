"""Who fences whom, and what a producer is told that was fenced amid its work, on a real Kafka."""

from __future__ import annotations

import ctypes
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from accounting import read_all
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from executors import ExecutorUnderTest, until

from kantoku_kafka import Kantoku, Task
from kantoku_kafka.engine import doneset
from kantoku_kafka.job import Offset, place_name
from kantoku_kafka.kafka import topics
from kantoku_kafka.kafka.committed import CommittedOffsets
from kantoku_kafka.kafka.membership import Membership
from tests.chaos.cluster import Cluster

ATTEMPTS = 5  # the order of the fatal error and the reports is up to librdkafka's threads
RECORDS = 200


@pytest.mark.parametrize("forgets", [False, True])
def test_a_fence_amid_a_flush_is_told_as_what_it_is(app: Kantoku, forgets: bool) -> None:
    codes: list[int] = []
    forget = ctypes.pythonapi.PyErr_Clear

    def report(error: KafkaError, _: Any) -> None:
        if forgets:  # as a callback does that handles an exception of its own, in place of the one that C has set
            forget()
        codes.append(error.code())

    def connected(number: int) -> Any:
        settings = {"transactional.id": f"{app.topics.group}.{number}", "delivery.report.only.error": True}
        producer = app.clients.producer(**settings, on_delivery=report)
        producer.init_transactions(10)
        return producer

    for number in range(ATTEMPTS):
        fenced = connected(number)
        fenced.begin_transaction()
        connected(number)
        for n in range(RECORDS):
            fenced.produce(app.topics.results, b"v", b"%d" % n)
        with pytest.raises(KafkaException) as raised:
            fenced.flush(10)
        assert raised.value.args[0].fatal()
        assert raised.value.args[0].code() == (KafkaError._FATAL if forgets else KafkaError._FENCED)
        with pytest.raises(KafkaException) as raised:
            fenced.abort_transaction(10)
        assert raised.value.args[0].code() == KafkaError._FENCED
    assert set(codes) <= {KafkaError._PURGE_QUEUE, KafkaError._FENCED, KafkaError._FATAL}


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_executors_that_brokers_know_by_different_names_know_each_other(
    kan: Kantoku, bootstrap: str, tmp_path: Path, protocol: str
) -> None:
    """A client.id for each pod is usual: none takes the others for dead, and ends their transactions."""
    running = []
    with ExitStack() as stack:
        for number in range(3):
            options = ("-X", f"client.id=pod-{number}", "--group-protocol", protocol, "--types", "echo")
            running.append(
                stack.enter_context(ExecutorUnderTest(bootstrap, kan.namespace, *options, log=tmp_path / f"{number}"))
            )
            kan.gather(kan.spawn_many([Task("echo", b"x")] * 200), timeout_seconds=60)
    logs = [executor.log() for executor in running]
    assert not any("ending what slot" in log or "fenced" in log for log in logs), logs


def test_a_process_that_replaces_its_producer_finds_out_who_has_committed_in_its_name(tmp_path: Path) -> None:
    """Slow commits replace the producer before each checkpoint: that must not hide that another one took the slot."""
    with Cluster(1, proxied=True, folder=tmp_path) as cluster, ExitStack() as stack:
        kan = Kantoku("fenced", bootstrap_servers=cluster.bootstrap)
        topics.create(kan.clients, topics.plan(kan.topics, ["work"], partitions=4))
        cluster.command(do="delay", client="slow", delay_seconds=0.12, seconds=120)
        running = []
        for name, ready in (("slow", "assigned fenced.tasks"), ("fast", "inherited fenced.tasks")):
            options = ("-X", f"client.id={name}", "--group-protocol", "consumer", "--slot", "same", "--types", "work")
            running.append(
                stack.enter_context(ExecutorUnderTest(cluster.bootstrap, kan.namespace, *options, log=tmp_path / name))
            )
            until(lambda: ready in running[-1].log(), 60, ready)  # noqa: B023 (it ends within the turn)
            spawned = kan.spawn_many([Task("work", b"x")] * 100)
            kan.gather(spawned, timeout_seconds=60)
        deadline = time.monotonic() + 60
        while all(executor.returncode is None for executor in running) and time.monotonic() < deadline:
            spawned += kan.spawn_many([Task("work", b"x")] * 20)
            time.sleep(0.05)
        kan.gather(spawned, timeout_seconds=60)
        results = [record.key() for record in read_all(cluster.bootstrap, kan.topics.results)]
        assert [n for n in Counter(results).values() if n > 1] == [], [executor.log() for executor in running]
        assert sorted(e.returncode or 0 for e in running) == [0, 2], [executor.log() for executor in running]
        kan.close()


def test_what_was_inherited_and_goes_to_another_slot_is_no_twin_s(app: Kantoku) -> None:
    """An executor ended with "runs with --slot" when a second dead process of its slot was still in the group."""
    topic = app.topics.of_type("work")
    observer = app.clients.consumer(**{"group.id": app.topics.group})

    def commit(slot: str, partition: int, offset: int) -> Offset:
        metadata = doneset.encode(Membership(slot, "m", 1).text, place_name(topic, partition), offset, [])
        observer.commit(offsets=[TopicPartition(topic, partition, offset, metadata=metadata)], asynchronous=False)
        return Offset(topic, partition, offset, metadata)

    held = [commit("ours", partition, 5) for partition in (0, 1)]
    committed = CommittedOffsets(app.clients, app.topics.group, "ours", 10.0)
    committed.watch(held)
    assert not committed.by_a_twin()
    commit("theirs", 0, 6)
    assert not committed.by_a_twin()
    committed.note([commit("ours", 1, 6)])
    assert not committed.by_a_twin()
    commit("ours", 1, 7)
    assert committed.by_a_twin()
    observer.close()
