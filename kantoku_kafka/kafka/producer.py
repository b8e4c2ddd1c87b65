"""confluent-kafka's producer, with ``flush`` as its documentation has it."""

from __future__ import annotations

from typing import Any

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException

__all__ = ["Producer"]


class Producer(confluent_kafka.Producer):
    """Raises a fatal error as what it is: KafkaException.

    The binding raises it from whatever serves callbacks. ``flush`` goes on to deliver reports with the exception set:
    Python makes a SystemError of it at the first call within such a callback, and a callback that handles an exception
    of its own takes it away, so that ``flush`` fails without one.
    """

    def flush(self, *timeout_seconds: Any) -> int:
        try:
            return super().flush(*timeout_seconds)
        except SystemError as error:
            if isinstance(error.__cause__, KafkaException):
                raise error.__cause__ from None
            lost = KafkaError(KafkaError._FATAL, "the client has failed for good", fatal=True)
            raise KafkaException(lost) from error
