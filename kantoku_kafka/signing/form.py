"""What is signed of a task, and how its signature stands in the record. Pure.

The header ``kantoku-signature`` is ASCII: ``{claim}.{signature}``, the signature in base64url without padding. The
claim is ``1.{kind}.{key id}.{end}``: the version of this form; ``task`` or ``schedule``; which key; until when, in
microseconds since the epoch, or of a schedule for how long after each of its times; ``-`` stands for ever.

Signed are the claim and the fields of :func:`signed_bytes`, each behind its length (4 bytes, big-endian; all ones:
there is none), so that no two tasks have the same bytes. Numbers are decimal, texts UTF-8.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from enum import StrEnum
from itertools import chain
from typing import NamedTuple

from kantoku_kafka.ids import task_id_time_ms
from kantoku_kafka.model import OF_TRACING, SIGNATURE, Headers, TaskEnvelope, carried_headers

__all__ = ["Kind", "Signature", "claim_of", "good_until_us", "header_of", "is_key_id", "read_header", "signed_bytes"]

_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HEADER = re.compile(rb"(1\.(task|schedule)\.([A-Za-z0-9_-]{1,64})\.(-|[0-9]{1,18}))\.([A-Za-z0-9_-]{43,86})")
_ABSENT = b"\xff\xff\xff\xff"
_PLAIN = TaskEnvelope("", "", b"", 0)[5:]


class Kind(StrEnum):
    """What was signed: one task, or the template of a schedule, for each task that it spawns."""

    TASK = "task"
    SCHEDULE = "schedule"


class Signature(NamedTuple):
    """The header, taken apart."""

    claim: bytes
    kind: Kind
    key_id: str
    end_us: int | None
    raw: bytes


def is_key_id(text: str) -> bool:
    """Whether a key may be called so."""
    return _KEY_ID.fullmatch(text) is not None


def claim_of(kind: Kind, key_id: str, end_us: int | None) -> bytes:
    """What a signature says of itself."""
    return f"1.{kind}.{key_id}.{'-' if end_us is None else end_us}".encode()


def header_of(claim: bytes, raw: bytes) -> tuple[str, bytes]:
    """The header."""
    return SIGNATURE, claim + b"." + base64.urlsafe_b64encode(raw).rstrip(b"=")


def read_header(value: bytes) -> Signature | None:
    """What :func:`header_of` made; None if it is nothing of the kind."""
    found = _HEADER.fullmatch(value)
    if found is None or len(found[5]) % 4 == 1:
        return None
    raw = base64.urlsafe_b64decode(found[5] + b"=" * (-len(found[5]) % 4))
    end_us = None if found[4] == b"-" else int(found[4])
    return Signature(found[1], Kind(found[2].decode()), found[3].decode(), end_us, raw)


def good_until_us(task_id: str, headers: Iterable[tuple[str, bytes | None]]) -> int | None:
    """When the signature of a task ends by its own words, nobody having checked them; None: never."""
    value = next((value for name, value in headers if name == SIGNATURE), None)
    signature = read_header(value or b"")
    if signature is None or signature.end_us is None or signature.kind is Kind.TASK:
        return signature and signature.end_us
    return (task_id_time_ms(task_id) or 0) * 1_000 + signature.end_us


def signed_bytes(claim: bytes, namespace: str, task: TaskEnvelope, key: bytes | None, headers: Headers) -> bytes:
    """The bytes that are signed: all that says what is executed, when and how.

    Not ``attempt``, which executors raise, nor the headers that change on the way: the system's own, those that name
    schemas of the record's bytes, those of tracing.
    """
    mine = [item for item in carried_headers(headers) if item[0] not in OF_TRACING]
    who = (claim, _text(namespace), _text(task.id), _text(task.type), task.data, b"%d" % task.created_at_us, key)
    return _joined(who) + (_PLAIN_REST if task[5:] == _PLAIN and not mine else _rest(task, mine))


def _rest(task: TaskEnvelope, headers: Iterable[tuple[str, bytes | None]]) -> bytes:
    numbers = (task.max_attempts, task.timeout_ms, task.not_before_us, task.expires_at_us)
    texts = (task.parent_id, task.context_id, task.restarted_from, task.idempotency_key)
    return _joined(
        (
            *(None if number is None else b"%d" % number for number in numbers),
            *(None if text is None else _text(text) for text in texts),
            *_pairs((name, _text(value)) for name, value in sorted(task.labels.items())),
            *_pairs(sorted(task.options.items())),
            *_pairs(headers),
        )
    )


def _pairs(items: Iterable[tuple[str, bytes | None]]) -> Iterable[bytes | None]:
    """How many, and each name and value."""
    fields = list(chain.from_iterable((_text(name), value) for name, value in items))
    return b"%d" % (len(fields) // 2), *fields


def _joined(fields: Iterable[bytes | None]) -> bytes:
    parts = []
    for field in fields:
        if field is None:
            parts.append(_ABSENT)
        else:
            parts += (len(field).to_bytes(4, "big"), field)
    return b"".join(parts)


def _text(text: str) -> bytes:
    """Also what UTF-8 cannot carry, for a record may hold anything."""
    return text.encode("utf-8", "surrogatepass")


_PLAIN_REST = _rest(TaskEnvelope("", "", b"", 0), ())
