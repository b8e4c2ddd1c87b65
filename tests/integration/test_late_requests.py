"""A request that the network delivers late, when its transaction is long over, changes nothing (KAFKA-17754)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from accounting import read_all
from confluent_kafka import KafkaError
from executors import until
from proxied import transaction_of_an_only_member

from kantoku_kafka import Kantoku, Task
from kantoku_kafka.job import Offset
from kantoku_kafka.kafka import topics
from kantoku_kafka.kafka.channel import arguments
from tests.chaos.cluster import Cluster
from tests.chaos.proxy import END_TXN

_RELEASE_SECONDS = 1.5
_FENCED = f"{KafkaError.INVALID_PRODUCER_EPOCH:04x}"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(1, proxied=True, folder=tmp_path) as cluster:
        yield cluster


def test_a_late_end_does_not_end_the_next_transaction(cluster: Cluster) -> None:
    kan = Kantoku("late", bootstrap_servers=cluster.bootstrap)
    topics.create(kan.clients, topics.plan(kan.topics, ["work"], partitions=1))
    source, results = kan.topics.of_type("work"), kan.topics.results
    with transaction_of_an_only_member(kan, source, 15.0) as transaction:
        wanted = []
        for number, cut_seconds in enumerate((0.0, 0.02, 0.1, 0.5)):
            cluster.command(do="hold", api=END_TXN, cut_seconds=cut_seconds, release_seconds=_RELEASE_SECONDS)
            time.sleep(0.1)
            transaction.begin()
            transaction.send([arguments(results, b"%d" % number, b"committed")])
            transaction.commit([Offset(source, 0, number, "")])
            wanted.append((b"%d" % number, b"committed"))

            transaction.begin()
            transaction.send([arguments(results, b"%d" % number, b"aborted")])
            transaction.probe()
            until(lambda n=number: _answered(cluster) == n + 1, 10, "the late request")
            transaction.abort()
    assert [(record.key(), record.value()) for record in read_all(cluster.bootstrap, results)] == wanted
    assert _answers(cluster) == {_FENCED}
    kan.close()


def test_nor_that_of_a_spawner(cluster: Cluster) -> None:
    kan = Kantoku("late", bootstrap_servers=cluster.bootstrap)
    topics.create(kan.clients, topics.plan(kan.topics, ["work"], partitions=1))
    wanted = []
    for number, cut_seconds in enumerate((0.0, 0.02, 0.1, 0.5)):
        cluster.command(do="hold", api=END_TXN, cut_seconds=cut_seconds, release_seconds=_RELEASE_SECONDS)
        time.sleep(0.1)
        with kan.transaction():
            kan.spawn(Task("work", b"committed %d" % number))
        wanted.append(b"committed %d" % number)
        with pytest.raises(ZeroDivisionError), kan.transaction():
            kan.spawn(Task("work", b"aborted %d" % number))
            until(lambda n=number: _answered(cluster) == n + 1, 10, "the late request")
            raise ZeroDivisionError
    assert [
        kan.codec.decode_task(r.value()).data for r in read_all(cluster.bootstrap, kan.topics.of_type("work"))
    ] == wanted
    kan.close()


def _answers(cluster: Cluster) -> set[str]:
    """The error codes with which the broker answered late requests."""
    return {line["answer"][8:12] for line in cluster.proxy_log() if line["what"] == "answered"}


def _answered(cluster: Cluster) -> int:
    return sum(line["what"] == "answered" for line in cluster.proxy_log())
