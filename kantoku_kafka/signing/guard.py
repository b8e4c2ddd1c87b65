"""What an executor asks of every task that it has read, if its app has a seal."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kantoku_kafka.model import now_us

if TYPE_CHECKING:
    from kantoku_kafka.job import Job
    from kantoku_kafka.protocols import Codec
    from kantoku_kafka.signing.seal import Seal

__all__ = ["Guard"]


class Guard:
    """The loop thread owns it.

    Parameters:
        seal: of the app.
        namespace: whose tasks are executed.
        codec: of their envelopes.
        clock: the time in microseconds; None: it does not matter.
    """

    def __init__(self, seal: Seal, namespace: str, codec: Codec, clock: Callable[[], int | None]) -> None:
        self._seal = seal
        self._namespace = namespace
        self._codec = codec
        self._clock = clock

    @classmethod
    def of(
        cls, seal: Seal | None, namespace: str, codec: Codec, clock: Callable[[], int | None] = now_us
    ) -> Guard | None:
        """None without a seal."""
        return None if seal is None else cls(seal, namespace, codec, clock)

    def check(self, job: Job) -> None:
        """Whether a task that has come may be executed. Raises SignatureError.

        One of an unsigned topic is signed here, by which it may wait, be tried again and redriven.
        """
        task, headers = job.envelope or self._codec.decode_task(job.value), tuple(job.raw_headers or ())
        if job.partition.topic in self._seal.unsigned_topics:
            job.raw_headers = self._seal.sign(self._namespace, task, job.key, headers)
        else:
            self._seal.check(self._namespace, task, job.key, headers, self._clock())

    def check_past(self, job: Job) -> None:
        """Whether a task that was done before may have been executed. Raises SignatureError."""
        if job.partition.topic not in self._seal.unsigned_topics:
            task, headers = job.envelope or self._codec.decode_task(job.value), tuple(job.raw_headers or ())
            self._seal.check(self._namespace, task, job.key, headers)
