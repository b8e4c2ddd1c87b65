"""One group-less reader of the results topic for all waits of a client.

It is assigned only to the partitions that somebody waits on, begins at the time in the task's id, and keeps what
passes by in a bounded cache, so that waits for many tasks, in any order, read the topic once.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, cast

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as KafkaMessage
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]  # re-exported without __all__

from kantoku_kafka.errors import EnvelopeError, KantokuError
from kantoku_kafka.kafka.config import UNREACHABLE, Clients
from kantoku_kafka.kafka.partitioner import partition_of
from kantoku_kafka.kafka.topics import partition_count
from kantoku_kafka.model import Headers, Result, Topics, carried_headers, task_id_time_ms
from kantoku_kafka.protocols import Codec

__all__ = ["ResultReader"]

_log = logging.getLogger(__name__)
SKEW_MS = 10_000
"""How far the clocks of spawners and executors may differ."""
_BATCH, _POLL_SECONDS = 1000, 0.05
_ELECTING = frozenset({KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE})


class ResultReader:
    """Delivers results to whoever waits. All methods are thread-safe; a thread of its own reads.

    Parameters:
        clients: the connection.
        topics: where the results stand.
        codec: reads them.
        cache_bytes: how much of what passed by is kept for later waits; default 64 MiB.
    """

    def __init__(self, clients: Clients, topics: Topics, codec: Codec, cache_bytes: int = 64 << 20) -> None:
        self._clients = clients
        self._topics = topics
        self._codec = codec
        self._cache_bytes = cache_bytes
        self._lock = threading.Lock()
        self._waiters: dict[str, list[Future[Result]]] = {}
        self._cache: OrderedDict[str, tuple[Result, int, int, int]] = OrderedDict()
        self._cached_bytes = 0
        self._covered_ms: dict[int, int] = {}
        self._reached: dict[int, int] = {}
        self._progress = threading.Condition(self._lock)
        self._requests: SimpleQueue[tuple[int, int]] = SimpleQueue()
        self._failure: KantokuError | None = None
        self._stopping = threading.Event()
        self._partitions = partition_count(clients, topics.results)
        self._thread = threading.Thread(target=self._serve, name="kantoku-results", daemon=True)
        self._thread.start()

    @property
    def failed(self) -> bool:
        """It cannot go on; every wait raises why. A new reader may do better."""
        return self._failure is not None

    def expect(self, task_id: str) -> Future[Result]:
        """A future of the task's result."""
        future: Future[Result] = Future()
        partition = partition_of(task_id.encode(), self._partitions)
        since_ms = max(0, (task_id_time_ms(task_id) or 0) - SKEW_MS)
        with self._lock:
            if self._failure is not None:
                raise self._failure
            cached = self._cache.get(task_id)
            if cached is not None:
                future.set_result(cached[0])
                return future
            self._waiters.setdefault(task_id, []).append(future)
            covered_ms = self._covered_ms.get(partition)
            if covered_ms is None or since_ms < covered_ms:
                self._covered_ms[partition] = since_ms
                self._requests.put((partition, since_ms))
        return future

    def catch_up(self, task_ids: Iterable[str]) -> None:
        """Block until all that stands in the partitions of these (expected) tasks by now has been read.

        Gives up after the connection's timeout: an open transaction may hold the end back.
        """
        timeout_seconds = self._clients.connection.timeout_seconds
        partitions = {partition_of(task_id.encode(), self._partitions) for task_id in task_ids}
        admin = self._clients.admin()
        latest: Any = OffsetSpec.latest
        wanted = {TopicPartition(self._topics.results, p): latest() for p in partitions}
        try:
            ends = {
                position.partition: future.result(timeout_seconds).offset
                for position, future in admin.list_offsets(wanted).items()
            }
        except KafkaException as error:
            raise self._clients.error(error.args[0], f"reading {self._topics.results}") from error
        with self._progress:
            self._progress.wait_for(
                lambda: self._failure or all(self._reached.get(p, -1) >= end for p, end in ends.items()),
                timeout_seconds,
            )
            if self._failure is not None:
                raise self._failure

    def forget(self, task_id: str, future: Future[Result]) -> None:
        """Nobody waits for this future any more."""
        with self._lock:
            waiting = self._waiters.get(task_id, [])
            if future in waiting:
                waiting.remove(future)
            if not waiting:
                self._waiters.pop(task_id, None)

    def close(self) -> None:
        """End the thread. Idempotent."""
        self._stopping.set()
        self._thread.join(10)

    # --- the reader's own thread

    def _serve(self) -> None:
        consumer = self._clients.consumer(
            **{
                "group.id": f"{self._topics.namespace}.readers",
                "queued.max.messages.kbytes": 16 << 10,
                "enable.partition.eof": True,
            }
        )
        wanted: dict[int, int] = {}
        begun = False
        try:
            while not self._stopping.is_set():
                self._ask(wanted, 0.0 if begun else _POLL_SECONDS)
                if wanted and self._begin(consumer, wanted):
                    wanted, begun = {}, True
                for message in consumer.consume(1, _POLL_SECONDS) if begun else ():
                    self._take(message)
                    for more in consumer.consume(_BATCH, 0):
                        self._take(more)
        except KafkaException as error:
            self._fail(self._clients.error(error.args[0], f"reading {self._topics.results}"))
        except KantokuError as error:
            self._fail(error)
        finally:
            consumer.close()

    def _ask(self, wanted: dict[int, int], wait_seconds: float) -> None:
        """Add to ``wanted`` from when on which partitions are waited on."""
        with suppress(Empty):
            while True:
                partition, since_ms = self._requests.get(timeout=wait_seconds)
                wanted[partition] = min(since_ms, wanted.get(partition, since_ms))
                wait_seconds = 0.0

    def _begin(self, consumer: Consumer, wanted: Mapping[int, int]) -> bool:
        """Begin, or begin again further back, where new waits need it. False: not yet, a leader is being elected."""
        # The ends come first: what is written between the two answers stands behind them. No record that late yet
        # means to begin at the end, where a result that is not written yet will stand.
        try:
            ends = self._offsets_for(consumer, dict.fromkeys(wanted, OFFSET_END))
            starts = self._offsets_for(consumer, wanted)
        except KafkaException as error:
            if error.args[0].code() not in _ELECTING:
                raise
            self._stopping.wait(_POLL_SECONDS)
            return False
        positions = [
            TopicPartition(self._topics.results, p, start if start >= 0 else ends[p]) for p, start in starts.items()
        ]
        held = {p.partition for p in consumer.assignment()}
        again = [p for p in positions if p.partition in held]
        with self._lock:
            for position in positions:
                self._reached[position.partition] = -1
        if again:
            consumer.incremental_unassign(again)
        consumer.incremental_assign(positions)
        return True

    def _offsets_for(self, consumer: Consumer, times_ms: Mapping[int, int]) -> dict[int, int]:
        """By partition: the first offset of that time or later, negative if there is none; of OFFSET_END the end."""
        topic, timeout_seconds = self._topics.results, self._clients.connection.timeout_seconds
        found = consumer.offsets_for_times(
            [TopicPartition(topic, p, ms) for p, ms in times_ms.items()], timeout_seconds
        )
        for position in found:
            if position.error is not None:
                raise KafkaException(position.error)
        return {position.partition: position.offset for position in found}

    def _take(self, message: KafkaMessage) -> None:
        error = message.error()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                with self._progress:
                    self._reached[message.partition() or 0] = message.offset() or 0
                    self._progress.notify_all()
            elif error.code() not in UNREACHABLE | _ELECTING:
                raise self._clients.error(error, f"reading {self._topics.results}")
            return
        value, headers = message.value(), cast("Headers", message.headers())
        if value is None:
            return
        try:
            result = self._codec.decode_result(value)
        except EnvelopeError as bad:
            _log.warning(
                "unreadable result at %s[%s] offset %s: %s",
                message.topic(),
                message.partition(),
                message.offset(),
                bad,
                extra={"action": "unreadable_result"},
            )
            return
        result = result._replace(headers=carried_headers(headers))
        with self._lock:
            self._remember(result, message)
            waiting = self._waiters.pop(result.task_id, ())
        for future in waiting:
            if future.set_running_or_notify_cancel():
                future.set_result(result)

    def _remember(self, result: Result, message: KafkaMessage) -> None:
        size = len(message.value() or b"") + 500
        if result.task_id in self._cache:  # a first result stands
            return
        self._cache[result.task_id] = (result, message.partition() or 0, message.timestamp()[1], size)
        self._cached_bytes += size
        while self._cached_bytes > self._cache_bytes:
            _, (_, partition, at_ms, evicted) = self._cache.popitem(last=False)
            self._cached_bytes -= evicted
            # Who waits for something this old must have it read again.
            self._covered_ms[partition] = max(self._covered_ms.get(partition, 0), at_ms + 1)

    def _fail(self, error: KantokuError) -> None:
        with self._lock:
            self._failure = error
            waiting = [future for futures in self._waiters.values() for future in futures]
            self._waiters.clear()
            self._progress.notify_all()
        for future in waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)
