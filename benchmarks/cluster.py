"""What the harness does on the broker: topics, preloaded tasks, and watching a group's committed offsets."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from benchmarks.raw.codec import encode_task, task_ids

PARTITIONS = 4
LEADERS_SECONDS = 30
TYPES = ("echo", "echo-thread", "echo-asyncio")
# The topics of a namespace and their policies, as the design's contract has them.
POLICIES = {
    **{f"tasks.{name}": "delete" for name in TYPES},
    "results": "compact,delete",
    "events": "compact",
    "dlq": "delete",
    "control": "compact,delete",
    "timers": "compact",
    "schedules": "compact",
}
Record = tuple[str, bytes]


def tasks_of(task_type: str, count: int, payload_bytes: int) -> list[Record]:
    """(key, value) of `count` encoded tasks: made once, produced into every run's own topic."""
    data = os.urandom(payload_bytes)
    ids = task_ids()
    return [
        (task_id, encode_task(task_id, task_type, data, now_us))
        for _, (task_id, now_us) in zip(range(count), ids, strict=False)
    ]


class Cluster:
    """One broker or more, seen by the harness. Not for threads.

    Committed offsets and watermarks are asked for through consumers that never join: the same requests of an
    `AdminClient` (librdkafka 2.16.0) end the process with SIGSEGV while a new broker's coordinator loads.
    """

    def __init__(self, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers
        # Silent: what fails raises, and the embedded broker may end before this does.
        self._config: dict[str, str | int | float | bool] = {
            "bootstrap.servers": bootstrap_servers,
            "log_level": 0,
        }
        self._admin = AdminClient(self._config)

    @contextmanager
    def namespace(self, name: str) -> Iterator[str]:
        """All topics of a namespace, new and empty; deleted in the end."""
        topics = [
            NewTopic(f"{name}.{suffix}", PARTITIONS, config={"cleanup.policy": policy})
            for suffix, policy in POLICIES.items()
        ]
        for created in self._admin.create_topics(topics).values():
            created.result(timeout=30)
        try:
            self._await_leaders([topic.topic for topic in topics])
            yield name
        finally:
            for deleted in self._admin.delete_topics([topic.topic for topic in topics]).values():
                deleted.result(timeout=30)

    @contextmanager
    def group(self, name: str, topic: str) -> Iterator[Callable[[], int]]:
        """Tells how many tasks of the topic the group has committed, when called. Deletes the group after.

        Every partition of the topic begins at offset 0.
        """
        # read_uncommitted: what is pending in an open transaction is not waited for, and not seen either.
        watcher = Consumer({**self._config, "group.id": name, "isolation.level": "read_uncommitted"})
        partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]

        def committed() -> int:
            try:
                return sum(max(0, answer.offset) for answer in watcher.committed(partitions, timeout=10))
            except KafkaException:  # a new broker's coordinator is still loading
                return 0

        try:
            yield committed
        finally:
            watcher.close()
            self._forget_group(name)

    def preload(self, topic: str, records: list[Record]) -> None:
        """All records, acknowledged, before anybody is started."""
        producer = Producer(
            {
                "bootstrap.servers": self.bootstrap_servers,
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "linger.ms": 20,
                "queue.buffering.max.messages": 500_000,
            }
        )
        for number, (key, value) in enumerate(records):
            while True:
                try:
                    producer.produce(topic, value, key)
                    break
                except BufferError:
                    producer.poll(0.01)
            if not number % 1000:
                producer.poll(0)
        if producer.flush(60):
            raise RuntimeError(f"could not preload {topic}")

    def records_in(self, *topics: str) -> int:
        """High watermarks of all partitions, summed (transaction markers count)."""
        # A new client each time: one that knew the cluster before the topic goes on not knowing it.
        with closing(Consumer({**self._config, "group.id": "benchmarks"})) as reader:
            return sum(
                reader.get_watermark_offsets(TopicPartition(topic, number), timeout=10)[1]
                for topic in topics
                for number in range(PARTITIONS)
            )

    def _await_leaders(self, topics: Sequence[str]) -> None:
        """Topics that were created just now may answer with NOT_LEADER for some milliseconds."""
        deadline = time.monotonic() + LEADERS_SECONDS
        while True:
            try:
                self.records_in(*topics)
                return
            except KafkaException:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def _forget_group(self, group: str) -> None:
        """The group's last member may need a moment to be gone; a group that stays is harmless."""
        for _ in range(20):
            try:
                self._admin.delete_consumer_groups([group])[group].result(timeout=10)
            except KafkaException as error:
                if error.args[0].code() == KafkaError.NON_EMPTY_GROUP:
                    time.sleep(0.1)
                    continue
            return
