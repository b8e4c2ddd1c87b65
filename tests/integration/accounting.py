"""What the topics say of a run, read with nothing but the Kafka client: the account that tests are judged by."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from access import super_user
from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka import Message as KafkaMessage

from kantoku_kafka.avro.codec import AvroCodec
from kantoku_kafka.model import Event, Result
from kantoku_kafka.names import Topics
from kantoku_kafka.replay.fold import Fold, LoggedEvent


def read_all(bootstrap_servers: str, topic: str, *, wait_for_open: bool = True) -> list[KafkaMessage]:
    """Every committed record of a topic, up to its high watermark as it is now.

    The markers of a commit are written shortly after it returns, and a killed executor's transaction stays open until
    it times out: this waits for both (60 s at most). With ``wait_for_open=False``: what can be seen at this moment.
    """
    config: dict[str, object] = {
        **super_user(bootstrap_servers),
        "group.id": "accounting",
        "enable.auto.commit": False,
    }
    ends = _ends({**config, "isolation.level": "read_uncommitted" if wait_for_open else "read_committed"}, topic)
    config |= {"isolation.level": "read_committed", "auto.offset.reset": "earliest", "enable.partition.eof": True}
    consumer = Consumer({**config, "fetch.wait.max.ms": 10, "fetch.queue.backoff.ms": 5})
    try:
        consumer.assign([TopicPartition(topic, p, 0) for p, end in ends.items() if end > 0])
        open_partitions = {p for p, end in ends.items() if end > 0}
        records: list[KafkaMessage] = []
        deadline = time.monotonic() + 60
        while open_partitions:
            assert time.monotonic() < deadline, f"{topic}: the end of {open_partitions} was not reached"
            for message in consumer.consume(2000, 0.2):
                error = message.error()
                if error is None:
                    records.append(message)
                    continue
                assert error.code() == KafkaError._PARTITION_EOF, error
                if message.offset() >= ends[message.partition()]:
                    open_partitions.discard(message.partition())
        return records
    finally:
        consumer.close()


def _ends(config: Mapping[str, object], topic: str) -> dict[int, int]:
    """The high watermarks, or the last stable offsets if ``config`` is of a reader of committed records."""
    consumer = Consumer(config)
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        return {p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10)[1] for p in partitions}
    finally:
        consumer.close()


@dataclass
class Account:
    """Results and events of a namespace, by task id."""

    results: list[Result] = field(default_factory=list)
    log: list[LoggedEvent] = field(default_factory=list)
    dead: list[KafkaMessage] = field(default_factory=list)

    @classmethod
    def of(cls, bootstrap_servers: str, namespace: str) -> Account:
        topics, codec = Topics(namespace=namespace), AvroCodec()
        return cls(
            [codec.decode_result(m.value()) for m in read_all(bootstrap_servers, topics.results)],
            [
                LoggedEvent(codec.decode_event(m.value()), m.partition(), m.offset())
                for m in read_all(bootstrap_servers, topics.events)
            ],
            read_all(bootstrap_servers, topics.dlq),
        )

    @property
    def events(self) -> list[Event]:
        return [logged.event for logged in self.log]

    def check(self, spawned: set[str]) -> None:
        """Exactly one result per spawned task, none besides, one terminal event for each, no impossible history."""
        counts = Counter(result.task_id for result in self.results)
        assert spawned - counts.keys() == set(), "tasks without a result"
        assert {i: n for i, n in counts.items() if n > 1} == {}, "tasks with more than one result"
        assert counts.keys() - spawned == set(), "results without a task"
        terminal = Counter(event.task_id for event in self.events if event.name == "sent_outputs")
        assert terminal == counts, "terminal events do not match the results"
        assert {e.task_id: e.attributes["status"] for e in self.events if e.name == "sent_outputs"} == {
            r.task_id: r.status.value for r in self.results
        }
        assert self.impossible() == {}, "histories that cannot be"

    def impossible(self) -> dict[str, list[str]]:
        """What is wrong with the history of each task, if anything is."""
        histories: defaultdict[str, list[LoggedEvent]] = defaultdict(list)
        for logged in self.log:
            histories[logged.event.task_id].append(logged)
        states = (Fold().state(history) for history in histories.values())
        return {state.task_id: list(state.problems) for state in states if state.problems}
