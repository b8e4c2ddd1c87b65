"""Every error this package raises on purpose.

::

    KantokuError                      exit code of the command line
     |- UsageError                    2   wrong option, unknown task type, an app that does not import
     |   `- SlotTaken                 2   another process runs with the same --slot
     |- BrokerUnavailable             3   nothing answers at the bootstrap servers
     |   `- dev.EmbeddedBrokerError   3   the broker for development could not be fetched or started
     |- RegistryUnavailable           3   the schema registry gives no answer, or none that can be read
     |- AccessDenied                  4   authentication or ACL
     |- NotFound                      5   no such result
     |- WaitTimeout                   6   also a TimeoutError
     |- TopicMismatch                 7   a topic is missing or has the wrong policy
     |- EnvelopeError                 7   bytes that are no envelope of ours
     |   `- SignatureError            7   a task that is not signed as it has to be
     `- SpawnError                    1   the broker did not accept a task
         |- QueueFull                     the local queue stayed full until the timeout
         `- TaskTooLarge                  the encoded task exceeds the topic's limit

    TaskError                         raised BY a task function, to steer its result
     |- Retryable                     tried again later; FAILED when the attempts are used up
     |- NonRetryable                  FAILED at once
     `- Reject                        REJECTED
         `- BadPayload                REJECTED, and a dead letter

    Crashed                           never raised: what Retry(on=...) calls a process that died
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AccessDenied",
    "BadPayload",
    "BrokerUnavailable",
    "Crashed",
    "EnvelopeError",
    "KantokuError",
    "NonRetryable",
    "NotFound",
    "QueueFull",
    "RegistryUnavailable",
    "Reject",
    "Retryable",
    "SignatureError",
    "SlotTaken",
    "SpawnError",
    "TaskError",
    "TaskTooLarge",
    "TopicMismatch",
    "UsageError",
    "WaitTimeout",
]


class KantokuError(Exception):
    """Root of all errors of this package; its text is one sentence that says what to do."""

    exit_code: ClassVar[int] = 1


class UsageError(KantokuError):
    """The program or the command line was told something that cannot be right."""

    exit_code = 2


class SlotTaken(UsageError):
    """Another live process uses the same explicit slot; one of the two has to go."""

    @classmethod
    def of(cls, group: str, slot: str) -> SlotTaken:
        """The slot by its name."""
        return cls(f"Another executor of {group} runs with --slot {slot}; give each one its own.")


class BrokerUnavailable(KantokuError):
    """No broker answered in time."""

    exit_code = 3


class RegistryUnavailable(KantokuError):
    """The schema registry gave no answer in time, or none that can be read."""

    exit_code = 3


class AccessDenied(KantokuError):
    """The broker, or the schema registry, refused the credentials, or an ACL forbids the operation."""

    exit_code = 4


class NotFound(KantokuError):
    """What was asked for does not exist (in what the topics still hold)."""

    exit_code = 5


class WaitTimeout(KantokuError, TimeoutError):
    """The result did not arrive in time; the task may still run."""

    exit_code = 6


class TopicMismatch(KantokuError):
    """A topic is missing, or its settings would break a promise."""

    exit_code = 7


class EnvelopeError(KantokuError):
    """Bytes that are not one whole envelope of a known schema. The only error the codec raises on input."""

    exit_code = 7

    @property
    def reason(self) -> str:
        """What its dead letter says in ``kantoku-error-type``."""
        return type(self).__name__


class SignatureError(EnvelopeError):
    """A task that is not signed as it has to be; the reason is one of :attr:`REASONS`."""

    EXPIRED: ClassVar[str] = "signature_expired"
    REASONS: ClassVar[frozenset[str]] = frozenset({"unsigned", "forged", "unknown_key", "too_early", EXPIRED})

    def __init__(self, message: str, *, reason: str = "forged") -> None:
        super().__init__(message)
        self._reason = reason

    @property
    def reason(self) -> str:
        return self._reason


class SpawnError(KantokuError):
    """The broker did not acknowledge the task: it was not accepted."""


class QueueFull(SpawnError):
    """The producer's local queue stayed full until the timeout."""


class TaskTooLarge(SpawnError):
    """The encoded task is larger than the input topic takes."""


class TaskError(Exception):
    """Base of the exceptions by which a task function steers its own result."""

    retryable: ClassVar[bool] = False


class Retryable(TaskError):
    """The task failed for a passing reason: it is tried again by its retry policy, whatever exceptions that names.

    A task type without a policy is given the default one, ``Retry()``, by it.

    Parameters:
        after_seconds: when, instead of when the policy says; the attempt counts all the same.

    Raises:
        UsageError: for a delay that cannot be.
    """

    retryable = True
    after_seconds: float | None = None

    def __init__(self, *args: object, after_seconds: float | None = None) -> None:
        super().__init__(*args)
        if after_seconds is not None and not is_delay(after_seconds):
            raise UsageError(f"Retryable: after_seconds is a number from 0 to a year, not {after_seconds!r}.")
        self.after_seconds = after_seconds


_MOST_DELAY_SECONDS = 366 * 86_400


def is_delay(value: object) -> bool:
    """Whether a number of seconds is one that a retry may wait."""
    return isinstance(value, int | float) and 0 <= value <= _MOST_DELAY_SECONDS


class Crashed(Exception):
    """Never raised: by it a retry policy names attempts whose process died, ``Retry(not_on=Crashed)``."""


class NonRetryable(TaskError):
    """The task failed for good: ``FAILED``, and no retry policy may try again."""


class Reject(TaskError):
    """The task must not run: ``REJECTED``. Raised by a function or by a ``before_execute`` hook."""


class BadPayload(Reject):
    """The data of the task are not what its payload reads: ``REJECTED``, and a dead letter that has them."""
