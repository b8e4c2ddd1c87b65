"""Heartbeats: each executor says on the control topic that it lives, what it serves and what runs.

They are records of a plain producer and not part of a checkpoint: who cannot commit is alive all the same. They
promise nothing; whether an executor takes part is for the group to say.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from kantoku_kafka.avro.control import decode_heartbeat, encode_heartbeat
from kantoku_kafka.errors import AccessDenied, EnvelopeError, TopicMismatch
from kantoku_kafka.kafka.clients import Clients
from kantoku_kafka.kafka.scan import Scan, ends, first_at
from kantoku_kafka.kafka.topics import partition_count
from kantoku_kafka.meter import UNMETERED, Meters
from kantoku_kafka.model import Heartbeat, now_us

__all__ = ["Pulse", "heartbeats"]

_log = logging.getLogger(__name__)
PREFIX = b"heartbeat/"
"""Of the keys of heartbeats; what else stands on the control topic are commands."""
_LOOK_BACK_SECONDS = 300
_MISSED = 3
_FAREWELL_SECONDS = 1.0


class Pulse:
    """Sends heartbeats from a thread of its own until the end of the block, then a tombstone.

    Parameters:
        clients: the connection.
        topic: of the control records.
        take: the heartbeat of this moment; called in the other thread.
        interval_seconds: between two of them; 0: none is sent.
        meters: who is told whether they arrive.
    """

    def __init__(
        self,
        clients: Clients,
        topic: str,
        take: Callable[[], Heartbeat],
        *,
        interval_seconds: float,
        meters: Meters = UNMETERED,
    ) -> None:
        self._clients = clients
        self._topic = topic
        self._take = take
        self._interval_seconds = interval_seconds
        self._meters = meters
        self._losing = False
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kantoku-heartbeat", daemon=True)

    def __enter__(self) -> Self:
        if self._interval_seconds:
            try:
                partition_count(self._clients, self._topic)
            except (TopicMismatch, AccessDenied) as error:
                _log.warning("no heartbeats: %s", error, extra={"action": "no_heartbeats"})
            else:
                self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        if self._thread.ident is not None:
            self._thread.join(2 * _FAREWELL_SECONDS)

    def _run(self) -> None:
        producer = self._clients.producer(
            **{"enable.idempotence": False, "acks": 1, "message.timeout.ms": round(1000 * self._interval_seconds)}
        )
        while True:
            beat = self._take()
            key = PREFIX + beat.executor_id.encode()
            self._send(producer, encode_heartbeat(beat), key)
            if self._end.wait(self._interval_seconds):
                break
            producer.poll(0)
        self._send(producer, None, key)
        producer.flush(_FAREWELL_SECONDS)

    def _send(self, producer: Producer, value: bytes | None, key: bytes) -> None:
        """The topic may be missing for a while, or the queue full: the next one is soon."""
        try:
            producer.produce(self._topic, value, key, on_delivery=self._note)
        except KafkaException as error:
            self._note(error.args[0], None)
        except BufferError:
            self._note(KafkaError(KafkaError._QUEUE_FULL), None)

    def _note(self, error: KafkaError | None, _: Message | None) -> None:
        """Warn when they begin to be lost."""
        self._meters.tell(lambda meter, _: meter.heartbeat(error is None))
        if error is not None and not self._losing:
            _log.warning("heartbeats are lost: %s", error, extra={"action": "heartbeat_lost"})
        self._losing = error is not None


def heartbeats(clients: Clients, topic: str) -> list[Heartbeat]:
    """The last heartbeat of every executor that has not ended and not missed three of them.

    Raises:
        TopicMismatch, AccessDenied, BrokerUnavailable.
    """
    asked_us = now_us()
    since_ms = asked_us // 1000 - 1000 * _LOOK_BACK_SECONDS
    scan = Scan(clients, topic, first_at(clients, topic, since_ms), ends(clients, topic))
    last: dict[bytes, Heartbeat] = {}
    for records in scan.batches():
        for record in records:
            key, value = record.key() or b"", record.value()
            if not key.startswith(PREFIX):
                continue
            last.pop(key, None)
            if value is not None:
                try:
                    last[key] = decode_heartbeat(value)
                except EnvelopeError as error:
                    _log.info("left out: %s", error, extra={"action": "unreadable_heartbeat"})
    return [beat for beat in last.values() if asked_us - beat.at_us <= _MISSED * 1000 * beat.interval_ms]
