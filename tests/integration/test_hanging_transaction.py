"""A transaction that its coordinator never ends: what operators are told to do then ends it, and nothing is lost."""

from __future__ import annotations

from pathlib import Path

from accounting import read_all
from administration import alter_topic
from confluent_kafka import KafkaError
from confluent_kafka.cimpl import NewTopic
from executors import until
from proxied import transaction_of_an_only_member

from kantoku_kafka import Kantoku
from kantoku_kafka.job import Offset
from kantoku_kafka.kafka import topics
from kantoku_kafka.kafka.channel import arguments
from tests.chaos.cluster import Cluster


def test_a_restart_of_its_coordinator_ends_it(tmp_path: Path) -> None:
    """Kafka's coordinator gives a marker up at an answer that it does not expect, such as one that is too large."""
    with Cluster(3, proxied=False, folder=tmp_path) as cluster:
        kan = Kantoku("hanging", bootstrap_servers=cluster.bootstrap)
        topics.create(kan.clients, topics.plan(kan.topics, ["work"], partitions=1))
        source, results = kan.topics.of_type("work"), kan.topics.results
        with transaction_of_an_only_member(kan, source, 5.0) as transaction:
            transaction.begin()
            transaction.send([arguments(results, b"id", b"value", partition=0)])
            transaction.probe()
            alter_topic(cluster.bootstrap, results, max_message_bytes="1")
            until(lambda: _refuses(kan, results), 30, "its leader has heard of it")
            transaction.commit([Offset(source, 0, 1, "")])
            alter_topic(cluster.bootstrap, results, max_message_bytes="1000000")
            (hanging,) = cluster.end_hanging_transactions()
            assert "PrepareCommit" in hanging and f"{kan.topics.group}.a" in hanging
            keys = [record.key() for record in read_all(cluster.bootstrap, results)]
            assert [key for key in keys if key is not None] == [b"id"]  # the others asked whether it refuses
            transaction.close()
        kan.close()


def test_what_kafka_forgot_ends_with_the_next_checkpoint_of_its_slot(tmp_path: Path) -> None:
    """Kafka 4.3.1 takes a transaction for complete though a partition had no leader to be told (KAFKA-20734)."""
    with Cluster(3, proxied=False, folder=tmp_path) as cluster:
        kan = Kantoku("forgotten", bootstrap_servers=cluster.bootstrap)
        topics.create(kan.clients, topics.plan(kan.topics, ["work"], partitions=1))
        source = kan.topics.of_type("work")
        with transaction_of_an_only_member(kan, source, 30.0) as transaction:
            (coordinator,) = cluster.coordinators(f"{kan.topics.group}.a")
            lonely = coordinator % 3 + 1
            admin = kan.clients.admin()
            admin.create_topics([NewTopic("lonely", 1, replica_assignment=[[lonely]])])["lonely"].result(20)
            transaction.begin()
            transaction.send([arguments("lonely", b"1", b"value")])
            transaction.probe()
            cluster.broker.kill(lonely)
            until(lambda: _leader(kan) < 0, 60, "the partition has no leader")
            transaction.commit([Offset(source, 0, 1, "")])
            cluster.broker.restart(lonely)
            transaction.begin()
            transaction.send([arguments("lonely", b"2", b"value")])
            transaction.commit([Offset(source, 0, 2, "")])
            assert [record.key() for record in read_all(cluster.bootstrap, "lonely")] == [b"1", b"2"]
            transaction.close()
        kan.close()


def _leader(kan: Kantoku) -> int:
    return int(kan.clients.admin().list_topics("lonely", timeout=20).topics["lonely"].partitions[0].leader)


def _refuses(kan: Kantoku, topic: str) -> bool:
    """Whether partition 0 takes no record any more."""
    codes: list[int] = []
    producer = kan.clients.producer(on_delivery=lambda error, _: codes.append(error.code() if error else 0))
    producer.produce(topic, b"value", partition=0)
    assert producer.flush(10) == 0
    return codes == [KafkaError.MSG_SIZE_TOO_LARGE]
