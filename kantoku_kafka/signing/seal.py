"""What an app does about signatures: what it spawns is signed, what its executors run has been."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from kantoku_kafka.engine.judge import FIRED
from kantoku_kafka.engine.recurrence import Recurrence
from kantoku_kafka.engine.rules import check_seconds
from kantoku_kafka.errors import SignatureError, UsageError
from kantoku_kafka.ids import occurrence_id, task_id_time_ms
from kantoku_kafka.model import SIGNATURE, Headers, Schedule, TaskEnvelope, now_us
from kantoku_kafka.names import is_topic
from kantoku_kafka.signing.form import Kind, Signature, claim_of, header_of, read_header, signed_bytes
from kantoku_kafka.signing.keys import Key

__all__ = ["SCHEDULE_LABEL", "Seal", "seal_for", "template_id"]

SCHEDULE_LABEL = "schedule"
"""Label of the tasks of a schedule: its name."""
_TIMES = "schedule"
"""Option of the tasks of a signed schedule: when they are due."""
_OF_TIMES = ("cron", "every_us", "time_zone", "start_at_us", "end_at_us")
_CLOCKS_DIFFER_US = 300_000_000


class Seal:
    """Signs what an app spawns, and lets its executors run nothing else: ``Kantoku("shop", seal=Seal([key]))``.

    What is not signed, or not as it was signed, goes to the dead letters; the type of the error says why: ``unsigned``,
    ``forged``, ``unknown_key``, ``signature_expired``, ``too_early``. Immutable; any thread.

    Parameters:
        keys: all whose signatures are good, those that are on their way in or out among them.
        sign_with: the id of the key that signs; default the only one that can, if there is one.
        required: False: what bears no signature runs all the same, until all spawners sign; default True.
        lifetime_seconds: how long a signature is good, from the spawn, from the time that a task is delayed to, or from
            each time of a schedule. It has to cover the waiting and all retries. Default for ever.
        unsigned_topics: inputs that others write, whose records are trusted as they are; it takes a key that signs, for
            a task of them that waits or is tried again.

    Raises:
        UsageError: for no keys, two of one id, or a key to sign with that cannot.
    """

    def __init__(
        self,
        keys: Iterable[Key],
        *,
        sign_with: str | None = None,
        required: bool = True,
        lifetime_seconds: float | None = None,
        unsigned_topics: Iterable[str] = (),
    ) -> None:
        self._keys = _by_id(keys)
        self._signer = _signer(self._keys, sign_with)
        self._required = required
        self._lifetime_us: int | None = None
        if lifetime_seconds is not None:
            self._lifetime_us = round(check_seconds("lifetime_seconds", lifetime_seconds, positive=True) * 1_000_000)
        trusted = [unsigned_topics] if isinstance(unsigned_topics, str) else list(unsigned_topics)
        for topic in trusted:
            if not isinstance(topic, str) or not is_topic(topic):
                raise UsageError(f"unsigned_topics: {topic!r} cannot be a topic.")
        self.unsigned_topics = frozenset(trusted)
        if self.unsigned_topics and self._signer is None:
            raise UsageError("unsigned_topics take a key that signs: tasks of them are signed when they have to wait.")

    def __repr__(self) -> str:
        return f"Seal({list(self._keys.values())!r}, sign_with={self._signer and self._signer.id!r})"

    # --- to sign

    @property
    def can_sign(self) -> bool:
        """Whether there is a key to sign with."""
        return self._signer is not None

    def sign(self, namespace: str, task: TaskEnvelope, key: bytes | None, headers: Headers) -> Headers:
        """The headers of a task's record, the signature among them.

        Raises:
            UsageError: no key can sign, and what is not signed would not run.
        """
        end_us = None
        if self._lifetime_us is not None:
            end_us = max(now_us(), task.not_before_us or 0) + self._lifetime_us
        return self._sign(Kind.TASK, end_us, namespace, task, key, headers)

    def sign_schedule(self, namespace: str, schedule: Schedule, template: TaskEnvelope) -> tuple[TaskEnvelope, Headers]:
        """The template of a schedule with its times in it, and the headers of its tasks. Raises as :meth:`sign`."""
        times = json.dumps({name: getattr(schedule, name) for name in _OF_TIMES}).encode()
        template = template._replace(options={**template.options, _TIMES: times})
        headers = self._sign(Kind.SCHEDULE, self._lifetime_us, namespace, template, schedule.key, schedule.headers)
        return template, headers

    def _sign(
        self, kind: Kind, end_us: int | None, namespace: str, task: TaskEnvelope, key: bytes | None, headers: Headers
    ) -> Headers:
        if self._signer is None:
            if self._required:
                raise UsageError(
                    f"Task {task.type!r} has to be signed, and this app only has keys that check: "
                    "spawn it where one is that signs, or give its Seal (KANTOKU_SEAL) one."
                )
            return headers
        claim = claim_of(kind, self._signer.id, end_us)
        raw = self._signer.sign(signed_bytes(claim, namespace, task, key, headers))
        return (*(item for item in headers if item[0] != SIGNATURE), header_of(claim, raw))

    # --- to check

    def check(
        self, namespace: str, task: TaskEnvelope, key: bytes | None, headers: Headers, at_us: int | None = None
    ) -> None:
        """Whether the record of a task is as it was signed.

        Parameters:
            headers: all of the record's.
            at_us: None: whether its time has come, or is over, does not matter.

        Raises:
            SignatureError: it is not.
        """
        signature = self._signature(headers)
        if signature is None:
            return
        if signature.kind is Kind.TASK:
            self._verify(signature, namespace, task, key, headers)
            begin_us = task.not_before_us if FIRED in dict(headers) else None  # else it will wait here
            end_us = signature.end_us
        else:
            name = task.labels.get(SCHEDULE_LABEL, "")
            lifetime_us = None if task.expires_at_us is None else task.expires_at_us - task.created_at_us
            template = task._replace(id=template_id(name), created_at_us=0, expires_at_us=lifetime_us)
            self._verify(signature, namespace, template, None if key == task.id.encode() else key, headers)
            begin_us = _due_us(namespace, name, task)
            end_us = None if signature.end_us is None else begin_us + signature.end_us
        if at_us is None:
            return
        if end_us is not None and end_us < at_us:
            raise SignatureError(
                f"The signature of task {task.id} is good no longer: it did not run within the lifetime_seconds of the "
                "Seal that signed it. Spawn it again.",
                reason=SignatureError.EXPIRED,
            )
        if begin_us is not None and begin_us > at_us + _CLOCKS_DIFFER_US:
            raise SignatureError(
                f"Task {task.id} is not due yet, and no timer of ours has put it here.", reason="too_early"
            )

    def check_trusted(self, task_type: str, topics: Iterable[str]) -> None:
        """Whether a task type may take what others write to these topics. Raises UsageError."""
        for topic in topics:
            if self._required and topic not in self.unsigned_topics:
                raise UsageError(
                    f"Task {task_type!r} takes records of topic {topic}, which nobody signs: if you trust all of them, "
                    f"say so by Seal(..., unsigned_topics=[{topic!r}])."
                )

    def check_template(self, namespace: str, schedule: Schedule, template: TaskEnvelope) -> None:
        """Whether the task of a schedule is as it was signed for this one. Raises SignatureError."""
        signature = self._signature(schedule.headers)
        if signature is None:
            return
        if signature.kind is not Kind.SCHEDULE or template.id != template_id(schedule.name):
            raise SignatureError(f"What schedule {schedule.name!r} spawns was signed as something else.")
        self._verify(signature, namespace, template, schedule.key, schedule.headers)

    def _signature(self, headers: Headers) -> Signature | None:
        """That of a record; None: it has none, and needs none."""
        found = [value for name, value in headers if name == SIGNATURE]
        if not found and not self._required:
            return None
        if not found:
            raise SignatureError("The task bears no signature: give its spawner a Seal that signs.", reason="unsigned")
        signature = read_header(found[0] or b"") if len(found) == 1 else None
        if signature is None:
            raise SignatureError(f"The header {SIGNATURE} of the task holds no signature of a known form.")
        return signature

    def _verify(
        self, signature: Signature, namespace: str, task: TaskEnvelope, key: bytes | None, headers: Headers
    ) -> None:
        known = self._keys.get(signature.key_id)
        if known is None:
            raise SignatureError(
                f"Task {task.id!r} is signed by key {signature.key_id!r}: give this Seal that key, if it is yours.",
                reason="unknown_key",
            )
        message = signed_bytes(signature.claim, namespace, task, key, headers)
        if not known.verify(message, signature.raw):
            raise SignatureError(
                f"The signature by key {signature.key_id!r} is not that of this task in namespace {namespace}: "
                "something was changed, or the key is another one."
            )


def template_id(schedule: str) -> str:
    """The id of the task that a schedule holds."""
    return f"schedule/{schedule}"


def seal_for(seal: Seal | None, headers: Headers) -> Seal | None:
    """The seal by which a task with these headers is spawned anew; None: without one.

    Raises:
        UsageError: the task is signed, and the new one would not be.
    """
    if seal is None and any(name == SIGNATURE for name, _ in headers):
        raise UsageError("What is signed takes a seal to be spawned anew: name its file by KANTOKU_SEAL.")
    return seal


def _due_us(namespace: str, name: str, task: TaskEnvelope) -> int:
    """For which time of its schedule a task was spawned. Its template is known to be as it was signed."""
    try:
        times = json.loads(task.options[_TIMES])
        begin_us = times["start_at_us"] or 0
        schedule = Schedule(name, begin_us, "", b"", **{field: times[field] for field in _OF_TIMES})
        due_us = Recurrence(schedule).next_after((task_id_time_ms(task.id) or 0) * 1_000 - 1)
    except (KeyError, TypeError, ValueError, OverflowError, UsageError) as error:
        raise SignatureError(f"Task {task.id} is of a schedule without times that can be read.") from error
    if due_us is None or occurrence_id(namespace, name, due_us) != task.id:
        raise SignatureError(f"Task {task.id} is none of the times of schedule {name!r}.")
    return due_us


def _by_id(keys: Iterable[Key]) -> Mapping[str, Key]:
    found: dict[str, Key] = {}
    for key in keys:
        if found.setdefault(key.id, key) is not key:
            raise UsageError(f"Two keys of the Seal have the id {key.id!r}: a signature names one of them.")
    if not found:
        raise UsageError("A Seal has at least one key: Seal([HmacKey('2026-01', secret)]).")
    return found


def _signer(keys: Mapping[str, Key], sign_with: str | None) -> Key | None:
    able = [key for key in keys.values() if key.can_sign]
    if sign_with is None:
        if len(able) > 1:
            raise UsageError(f"sign_with says which key signs: one of {', '.join(key.id for key in able)}.")
        return able[0] if able else None
    if sign_with not in keys or not keys[sign_with].can_sign:
        raise UsageError(f"sign_with: there is no key {sign_with!r} that can sign among those of the Seal.")
    return keys[sign_with]
