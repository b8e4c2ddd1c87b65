"""Reads results during a run, as a user's consumer would: what was committed, from the beginning, in order."""

from __future__ import annotations

import threading
from collections import defaultdict
from types import TracebackType
from typing import Self

from confluent_kafka import Consumer, TopicPartition

from kantoku_kafka.avro.codec import AvroCodec

__all__ = ["Reader"]


class Reader:
    """A consumer in a thread. ``seen`` and ``ids`` may be read from any thread.

    Attributes:
        seen: by partition, offset and task id in the order in which they came.
        ids: tasks that have a result.
    """

    def __init__(self, bootstrap: str, topic: str, partitions: int) -> None:
        self.seen: defaultdict[int, list[tuple[int, str]]] = defaultdict(list)
        self.ids: set[str] = set()
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "chaos-reader",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "isolation.level": "read_committed",
            }
        )
        self._consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._consumer.close()

    def _run(self) -> None:
        codec = AvroCodec()
        while not self._stop.is_set():
            for record in self._consumer.consume(1000, 0.1):
                if record.error() is None:
                    task_id = codec.decode_result(record.value() or b"").task_id
                    self.seen[record.partition() or 0].append((record.offset() or 0, task_id))
                    self.ids.add(task_id)
