"""Requests and answers that the network loses: a checkpoint never waits for ever, whatever the client does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from accounting import read_all
from proxied import transaction_of_an_only_member

from kantoku_kafka import Kantoku
from kantoku_kafka.job import Offset
from kantoku_kafka.kafka import topics
from kantoku_kafka.kafka.channel import arguments
from kantoku_kafka.kafka.transaction import ExactlyOnceTransaction
from kantoku_kafka.one_thread import OneThread
from kantoku_kafka.protocols import CheckpointRefused
from tests.chaos.cluster import Cluster
from tests.chaos.proxy import ADD_PARTITIONS, END_TXN, PRODUCE, TXN_OFFSET_COMMIT

TIMEOUT_SECONDS = 3.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(1, proxied=True, folder=tmp_path) as cluster:
        yield cluster


def test_a_checkpoint_ends_whatever_request_or_answer_was_lost(cluster: Cluster) -> None:
    kan = Kantoku("lost", bootstrap_servers=cluster.bootstrap)
    topics.create(kan.clients, topics.plan(kan.topics, ["work"], partitions=1))
    source, results = kan.topics.of_type("work"), kan.topics.results
    with transaction_of_an_only_member(kan, source, TIMEOUT_SECONDS) as transaction:
        losses = [(do, api) for api in (TXN_OFFSET_COMMIT, ADD_PARTITIONS, PRODUCE, END_TXN) for do in ("drop", "mute")]
        for number, (do, api) in enumerate(losses):
            cluster.command(do=do, api=api)
            done = OneThread("checkpoint").submit(
                _insist, transaction, arguments(results, b"%d" % number, b""), number, source
            )
            done.result(10 * TIMEOUT_SECONDS)
    assert [record.key() for record in read_all(cluster.bootstrap, results)] == [b"%d" % n for n in range(len(losses))]
    lost = [line["api"] for line in cluster.proxy_log() if line["what"] == "drop"]
    assert set(lost) >= {TXN_OFFSET_COMMIT, END_TXN}
    kan.close()


def _insist(transaction: ExactlyOnceTransaction, record: Any, number: int, source: str) -> None:
    """As the publisher does."""
    while True:
        try:
            transaction.begin()
            transaction.send([record])
            transaction.commit([Offset(source, 0, number + 1, f"checkpoint {number}")])
            return
        except CheckpointRefused:
            transaction.abort()
