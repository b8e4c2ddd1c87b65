"""Makes one checkpoint at a time durable in a thread of its own, while the loop goes on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future

from kantoku_kafka.backoff import Backoff
from kantoku_kafka.engine.checkpoint import Batch, Checkpoint, Progress
from kantoku_kafka.errors import BrokerUnavailable
from kantoku_kafka.job import Partition
from kantoku_kafka.one_thread import OneThread
from kantoku_kafka.protocols import CheckpointRefused

__all__ = ["Publisher"]

_log = logging.getLogger(__name__)
_RETRY_SECONDS = (0.05, 2.0)
_REFUSALS_TO_WARN = 5
_ANNOUNCE_SECONDS = 0.5
_REQUESTS = 6  # that a checkpoint waits for in turn, at the worst: each of them ends within the timeout


class Publisher:
    """The loop thread owns it; only ``Checkpoint.publish`` runs in the other thread.

    Parameters:
        checkpoint: what has ended.
        wake: called, in any thread, when a checkpoint has been answered.
        timeout_seconds: of one request to Kafka. A checkpoint of which nothing is answered for several times as long is
            given up, and this executor with it: clients have calls that never return (librdkafka #5456).
    """

    def __init__(self, checkpoint: Checkpoint, wake: Callable[[], None], timeout_seconds: float) -> None:
        self._checkpoint = checkpoint
        self._wake = wake
        self._patience_seconds = _REQUESTS * timeout_seconds
        self._thread = OneThread("kantoku-publisher")
        self._under_way: tuple[Future[None], Batch] | None = None
        self._begun_at = 0.0
        self._refusals, self._pauses = 0, Backoff(*_RETRY_SECONDS)
        self._not_before = 0.0
        self._announce_at = 0.0

    @property
    def busy(self) -> bool:
        """A checkpoint is under way, or its outcome has not been looked at."""
        return self._under_way is not None

    @property
    def waiting_for_broker(self) -> bool:
        """A checkpoint is under way and has not been answered."""
        return self._under_way is not None and not self._under_way[0].done()

    @property
    def pause_seconds(self) -> float:
        """How long not to try again after a refusal."""
        return max(0.0, self._not_before - time.monotonic())

    def publish(self, windows: Mapping[Partition, Progress]) -> None:
        """Hand over what has ended, unless a checkpoint is under way. A refused one is kept, with a growing pause.

        Raises what :meth:`conclude` raises.
        """
        if self.waiting_for_broker and self._patience_left_seconds:
            return
        self.conclude()
        now = time.monotonic()
        due = self._checkpoint.due or (self._checkpoint.unannounced and now >= self._announce_at)
        if due and now >= self._not_before:
            batch = self._checkpoint.take(windows)
            self._announce_at = now + _ANNOUNCE_SECONDS
            self._begun_at = now
            future = self._thread.submit(self._checkpoint.publish, batch)
            self._under_way = future, batch
            future.add_done_callback(lambda _: self._wake())

    def conclude(self) -> None:
        """Wait for the checkpoint that is under way, and take note of what became of it.

        Raises:
            KantokuError: this executor cannot go on.
        """
        if self._under_way is None:
            return
        future, batch = self._under_way
        try:
            error = self._outcome(future)
        except TimeoutError:
            raise BrokerUnavailable(
                f"For {self._patience_seconds:g} s nothing has told what became of a checkpoint. This executor ends; "
                "the next one finds out, and nothing is lost. Start it again, if nothing does that by itself."
            ) from None
        self._under_way = None
        if isinstance(error, CheckpointRefused):
            self._put_off(batch, error)
        elif error is not None:
            raise error
        else:
            self._refusals = 0
            self._pauses.reset()

    def publish_rest(self, windows: Mapping[Partition, Progress], within_seconds: float) -> None:
        """Publish what has ended by now, in this call; what is refused until the time is over stays. Raises so too."""
        deadline = time.monotonic() + within_seconds
        self.conclude()
        while self._checkpoint.due and time.monotonic() < deadline:
            time.sleep(self.pause_seconds)
            self.publish(windows)
            self.conclude()

    def close(self) -> None:
        """Wait for the thread; what became of its last checkpoint is nobody's concern any more. Idempotent."""
        self._thread.close(self._patience_left_seconds)
        self._under_way = None

    def _outcome(self, future: Future[None]) -> BaseException | None:
        """Waited for as long as the checkpoint is answered: it may look for many culprits. Raises TimeoutError."""
        while True:
            try:
                return future.exception(self._patience_left_seconds)
            except TimeoutError:
                if not self._patience_left_seconds:
                    raise

    @property
    def _patience_left_seconds(self) -> float:
        answered_at = max(self._begun_at, self._checkpoint.answered_at)
        return max(0.0, answered_at + self._patience_seconds - time.monotonic())

    def _put_off(self, batch: Batch, refusal: CheckpointRefused) -> None:
        self._checkpoint.restore(batch)
        self._not_before = time.monotonic() + self._pauses.next_seconds()
        self._refusals += 1
        level = logging.INFO if self._refusals < _REFUSALS_TO_WARN else logging.WARNING
        _log.log(level, "checkpoint put off: %s", refusal, extra={"action": "checkpoint_refused"})
