"""Records that no broker will ever take: whose they are, and what is left of those jobs. No I/O: the broker is asked by
a function, which says whether it would take all that these jobs leave behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import copy

from kantoku_kafka.engine.reply import drop_reply
from kantoku_kafka.job import Job, Message, Move
from kantoku_kafka.model import ErrorInfo, Status

__all__ = ["culprits_among", "withdraw"]

Accepts = Callable[[list[Job]], bool]

_TOO_LARGE = ErrorInfo(
    "result_too_large",
    "The result, or a record the task produced, is more than its topic takes; nothing was kept.",
)
_TRUNCATED = ("kantoku-truncated", b"true")


def culprits_among(jobs: list[Job], accepts: Accepts) -> list[Job]:
    """Those of the jobs that are not accepted by themselves, found by bisection."""
    if accepts(jobs):
        return []
    if len(jobs) == 1:
        return jobs
    half = len(jobs) // 2
    return culprits_among(jobs[:half], accepts) + culprits_among(jobs[half:], accepts)


def withdraw(job: Job, accepts: Accepts) -> None:
    """Shorten what a culprit leaves behind, further each time.

    Of a failure nothing is shortened that would be accepted without its reply, or without its dead letter.
    """
    unreplied, unburied = copy(job), copy(job)
    unreplied.reply = unburied.letter = None
    if job.has_failed and job.reply is not None and accepts([unreplied]):
        drop_reply(job)
    elif job.has_failed and job.letter is not None and accepts([unburied]):
        job.letter = _shortened(job.letter)
    else:
        _shorten(job)


def _shorten(job: Job) -> None:
    """The result fails for itself, the task goes nowhere else, the dead letter loses its value, then its key and
    headers. A success that cannot be replied is a failure, which is."""
    move = job.move
    if move is not None and move.messages:
        job.move = Move((), marks=move.marks) if move.marks else None
        job.fail(job.outcome or Status.FAILED, _undeliverable({message.topic for message in move.messages}))
    elif job.status is not None:
        refused = {message.topic for message in job.effects or ()}
        if job.reply is not None and not job.has_failed:
            refused.add(job.reply.topic)
        else:
            job.raw_headers = None
        job.fail(Status.FAILED, _undeliverable(refused) if refused else _TOO_LARGE)
    if job.letter is not None:
        job.letter = _shortened(job.letter)


def _shortened(letter: Message) -> Message:
    if letter.value:
        return letter._replace(value=b"", headers=(*letter.headers, _TRUNCATED))
    own = tuple((name, value) for name, value in letter.headers if name.startswith("kantoku-"))
    return letter._replace(key=None, headers=own)


def _undeliverable(topics: Iterable[str]) -> ErrorInfo:
    named = ", ".join(sorted(topics))
    return ErrorInfo(
        "undeliverable",
        f"What the task leaves behind cannot be written to {named}: a topic is missing, forbidden or takes less.",
    )
