"""One group-less reader of the results topic for all waits of a client.

It is assigned only to the partitions that somebody waits on, begins at the time in the task's id, and keeps what
passes by in a bounded cache, so that waits for many tasks, in any order, read the topic once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import NamedTuple

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as KafkaMessage

from kantoku_kafka.errors import EnvelopeError, KantokuError
from kantoku_kafka.ids import is_idempotent, task_id_time_ms
from kantoku_kafka.kafka.clients import Clients
from kantoku_kafka.kafka.codes import NO_MEMBER, NO_TOPIC, PASSING
from kantoku_kafka.kafka.partitioner import partition_of
from kantoku_kafka.kafka.records import headers_of, value_of
from kantoku_kafka.kafka.scan import ends as ends_of
from kantoku_kafka.kafka.topics import partition_count
from kantoku_kafka.model import Result, carried_headers
from kantoku_kafka.names import Topics
from kantoku_kafka.protocols import Codec

__all__ = ["ResultReader"]

_log = logging.getLogger(__name__)
SKEW_MS = 10_000
"""How far the clocks of spawners and executors may differ."""
_BATCH, _POLL_SECONDS = 1000, 0.05
_ON_THE_WAY = -1


class _Passed(NamedTuple):
    """A result that passed by: its partition, when it was written, and by our own clock when it was read."""

    result: Result
    partition: int
    written_ms: int
    read_at: float
    size_bytes: int


class ResultReader:
    """Delivers results to whoever waits. All methods are thread-safe; a thread of its own reads.

    Parameters:
        clients: the connection.
        topics: where the results stand.
        codec: reads them.
        cache_bytes: how much of what passed by is kept for later waits; default 64 MiB.
        remembered_seconds: for so long executors remember idempotency keys; default: nobody here knows.
    """

    def __init__(
        self,
        clients: Clients,
        topics: Topics,
        codec: Codec,
        cache_bytes: int = 64 << 20,
        remembered_seconds: float | None = None,
    ) -> None:
        self._remembered_seconds = remembered_seconds
        self._clients = clients
        self._topics = topics
        self._codec = codec
        self._cache_bytes = cache_bytes
        self._lock = threading.Lock()
        self._waiters: dict[str, list[Future[Result]]] = {}
        self._cache: OrderedDict[str, _Passed] = OrderedDict()
        self._cached_bytes = 0
        self._covered_ms: dict[int, int] = {}
        self._live_since: dict[int, float] = {}
        self._dropped_until: dict[int, float] = {}
        self._reached: dict[int, int] = {}
        self._taken_to: dict[int, int] = {}  # behind the last record taken: a busy partition seldom says it has ended
        self._ends: dict[int, int] = {}  # where the partition ended as its reading was begun
        self._progress = threading.Condition(self._lock)
        self._wanted: dict[int, int] = {}
        self._failure: KantokuError | None = None
        self._patience_until: float | None = None
        self._stopping = threading.Event()
        self._partitions = partition_count(clients, topics.results)
        self._thread = threading.Thread(target=self._serve, name="kantoku-results", daemon=True)
        self._thread.start()

    @property
    def failed(self) -> bool:
        """It cannot go on; every wait raises why. A new reader may do better."""
        return self._failure is not None

    def expect(self, task_id: str, spawned_at: float | None = None) -> Future[Result]:
        """A future of the task's result.

        Parameters:
            spawned_at: the monotonic time before which it was not spawned, if this process knows.
        """
        future: Future[Result] = Future()
        partition = partition_of(task_id.encode(), self._partitions)
        since_ms = max(0, self._made_ms(task_id, spawned_at) - SKEW_MS)
        with self._lock:
            if self._failure is not None:
                raise self._failure
            cached = self._cache.get(task_id)
            if cached is not None:
                future.set_result(cached.result)
                return future
            self._waiters.setdefault(task_id, []).append(future)
            # Another spawn of an idempotency key may have had its result long ago, and this one gets none.
            if not is_idempotent(task_id) and self._will_pass(partition, spawned_at):
                return future
            covered_ms = self._covered_ms.get(partition)
            if covered_ms is None or since_ms < covered_ms:
                self._covered_ms[partition] = since_ms
                self._wanted[partition] = min(since_ms, self._wanted.get(partition, since_ms))
                self._progress.notify_all()
        return future

    def _made_ms(self, task_id: str, spawned_at: float | None) -> int:
        """Before then a task has no result: another spawn of its key is remembered for so long at most."""
        if spawned_at is None or self._remembered_seconds is None or not is_idempotent(task_id):
            return task_id_time_ms(task_id) or 0
        return round((time.time() - (time.monotonic() - spawned_at) - self._remembered_seconds) * 1_000)

    def _will_pass(self, partition: int, spawned_at: float | None) -> bool:
        """Whether the result is still to come: the reader was at the end before the task was spawned, and of what it
        has read since nothing has been dropped."""
        if spawned_at is None or self._live_since.get(partition, spawned_at) >= spawned_at:
            return False
        return self._dropped_until.get(partition, 0.0) < spawned_at

    def catch_up(self, task_ids: Iterable[str], enough: Callable[[], bool] = lambda: False) -> bool:
        """Block until all that stands in the partitions of these (expected) tasks by now has been read.

        Gives up when for the connection's timeout nothing more could be: what an open transaction holds back is not
        there yet. Answers whether all was read, or it was enough.

        Parameters:
            enough: asked now and then: true ends it before.

        Raises:
            KantokuError: the reader has failed.
        """
        partitions = {partition_of(task_id.encode(), self._partitions) for task_id in task_ids}
        ends = {p: end for p, end in ends_of(self._clients, self._topics.results).items() if p in partitions}

        def is_over() -> bool:
            read = self._wanted.keys().isdisjoint(ends) and all(self._read_to(p) >= end for p, end in ends.items())
            return read or self._failure is not None or enough()

        with self._progress:
            moved = True
            while moved and not is_over():
                taken = {p: self._read_to(p) for p in ends}

                def has_moved(before: Mapping[int, int] = taken) -> bool:
                    return is_over() or any(self._read_to(p) != at for p, at in before.items())

                moved = self._progress.wait_for(has_moved, self._clients.connection.timeout_seconds)
            if self._failure is not None:
                raise self._failure
            return is_over()

    def _read_to(self, partition: int) -> int:
        return max(self._reached.get(partition, _ON_THE_WAY), self._taken_to.get(partition, _ON_THE_WAY))

    def forget(self, task_id: str, future: Future[Result]) -> None:
        """Nobody waits for this future any more."""
        with self._lock:
            waiting = self._waiters.get(task_id, [])
            if future in waiting:
                waiting.remove(future)
            if not waiting:
                self._waiters.pop(task_id, None)

    def close(self) -> None:
        """End the thread, and every wait with KantokuError. Idempotent."""
        self._stopping.set()
        self._thread.join(10)

    # --- the reader's own thread

    def _serve(self) -> None:
        """Read until closed. However it ends, nobody waits on."""
        doing = f"reading {self._topics.results}"
        try:
            self._read()
            self._fail(KantokuError("The client was closed while somebody waited for a result."))
        except KantokuError as error:
            self._fail(error)
        except KafkaException as error:
            self._fail(self._clients.error(error.args[0], doing))
        except Exception as error:  # noqa: BLE001 - a codec of the user's own, or a bug: who waits has to know
            _log.exception("the reader of results failed", extra={"action": "reader_failed"})
            self._fail(KantokuError(f"The reader of results failed: {type(error).__name__}: {error}"))

    def _read(self) -> None:
        consumer = self._clients.consumer(
            **{
                "group.id": f"{self._topics.namespace}.readers",
                "queued.max.messages.kbytes": 16 << 10,
                "enable.partition.eof": True,
                # A partition that is waited on from now on is not fetched before the fetch of the others has returned.
                "fetch.wait.max.ms": 100,
            }
        )
        begun = False
        try:
            while not self._stopping.is_set():
                due = self._due(0.0 if begun else _POLL_SECONDS)
                begun = (self._begin(consumer, due) if due else False) or begun
                for message in consumer.consume(1, _POLL_SECONDS) if begun else ():
                    self._take(message)
                    for more in consumer.consume(_BATCH, 0):
                        self._take(more)
                    with self._progress:
                        self._progress.notify_all()
        finally:
            consumer.close()

    def _due(self, wait_seconds: float) -> dict[int, int]:
        """Partitions to begin now, by the time from when on. One that is being read goes to its end first.

        Else waits for old results, coming faster than it can be read, would send it back again and again.
        """
        with self._progress:
            if not self._wanted and wait_seconds:
                self._progress.wait(wait_seconds)
            due = {p: since_ms for p, since_ms in self._wanted.items() if not self._is_on_the_way(p)}
            for partition in due:
                del self._wanted[partition]
                self._reached[partition] = self._taken_to[partition] = _ON_THE_WAY
        return due

    def _is_on_the_way(self, partition: int) -> bool:
        """To the end that it had as it was begun; one that is written to all the time never says that it ends."""
        if self._reached.get(partition) != _ON_THE_WAY:
            return False
        end = self._ends.get(partition)
        return end is None or self._taken_to[partition] < end

    def _begin(self, consumer: Consumer, wanted: Mapping[int, int]) -> bool:
        """Begin, or begin again further back, where new waits need it. False: not yet, the cluster has to settle."""
        # The ends come first: what is written between the two answers stands behind them. No record that late yet
        # means to begin at the end, where a result that is not written yet will stand.
        try:
            ends = self._offsets_for(consumer, dict.fromkeys(wanted, OFFSET_END))
            starts = self._offsets_for(consumer, wanted)
        except KafkaException as error:
            now = time.monotonic()
            self._patience_until = self._patience_until or now + self._clients.connection.timeout_seconds
            if error.args[0].code() not in PASSING | NO_TOPIC or now > self._patience_until:
                raise
            with self._progress:
                for partition, since_ms in wanted.items():
                    self._wanted[partition] = min(since_ms, self._wanted.get(partition, since_ms))
                    del self._reached[partition]
            self._stopping.wait(_POLL_SECONDS)
            return False
        self._patience_until = None
        self._ends |= ends
        positions = [
            TopicPartition(self._topics.results, p, start if start >= 0 else ends[p]) for p, start in starts.items()
        ]
        held = {p.partition for p in consumer.assignment()}
        again = [p for p in positions if p.partition in held]
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
                    self._live_since.setdefault(message.partition() or 0, time.monotonic())
            elif error.code() not in PASSING | NO_MEMBER:
                raise self._clients.error(error, f"reading {self._topics.results}")
            return
        if message.value() is not None:
            self._deliver(message, value_of(message))
        self._taken_to[message.partition() or 0] = (message.offset() or 0) + 1

    def _deliver(self, message: KafkaMessage, value: bytes) -> None:
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
        result = result._replace(headers=carried_headers(headers_of(message)))
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
        passed = _Passed(result, message.partition() or 0, message.timestamp()[1], time.monotonic(), size)
        self._cache[result.task_id] = passed
        self._cached_bytes += size
        while self._cached_bytes > self._cache_bytes:
            _, dropped = self._cache.popitem(last=False)
            self._cached_bytes -= dropped.size_bytes
            # Who waits for something this old must have it read again.
            partition = dropped.partition
            self._covered_ms[partition] = max(self._covered_ms.get(partition, 0), dropped.written_ms + 1)
            self._dropped_until[partition] = dropped.read_at

    def _fail(self, error: KantokuError) -> None:
        with self._lock:
            self._failure = error
            waiting = [future for futures in self._waiters.values() for future in futures]
            self._waiters.clear()
            self._progress.notify_all()
        for future in waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)
