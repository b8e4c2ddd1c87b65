"""Says in the log that tasks fail: one line now and then for each task type and kind of error."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from kantoku_kafka.job import Job
from kantoku_kafka.throttle import Throttle

__all__ = ["FailureLog"]

_log = logging.getLogger(__name__)
_SHOWN_CHARACTERS = 200


class FailureLog:
    """One thread uses it.

    Parameters:
        every_seconds: between two lines of one kind; what was left out is counted. Default 10.
    """

    def __init__(self, every_seconds: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._throttle = Throttle(every_seconds, clock)

    def note(self, job: Job) -> None:
        """A job ended with an error."""
        assert job.error is not None
        left_out = self._throttle.passes((job.type, job.error.type))
        if left_out is None:
            return
        more = f" (and {left_out} more since the last line)" if left_out else ""
        _log.warning(
            "task %s of type %s: %s, %s: %s%s",
            job.task_id,
            job.type,
            job.status,
            job.error.type,
            job.error.message[:_SHOWN_CHARACTERS],
            more,
            extra={"action": "task_failed", "task_id": job.task_id},
        )
