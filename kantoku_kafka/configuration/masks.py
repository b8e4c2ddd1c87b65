"""What of a setting may be shown: to people, in logs, in errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from kantoku_kafka.configuration.known import LIBRDKAFKA_KEYS
from kantoku_kafka.configuration.references import is_reference

__all__ = ["HIDDEN", "REGISTRY_PREFIX", "hide", "is_secret", "masked"]

HIDDEN = "***"
REGISTRY_PREFIX = "schema.registry."
_KNOWN = LIBRDKAFKA_KEYS | {"url", "basic.auth.credentials.source"}
_SECRET = re.compile(
    r"password|passphrase|secret|jaas|pem$|user\.info|kinit\.cmd|oauthbearer\.(config|extensions)$|token(?!\.endpoint\.url$)"
)
# What stands before the user of a URL, the user, what stands before the query, the query.
_URL = re.compile(r"(://)(\S*@)?([^\s?#]*[?#]?)(\S*)")
_ONE_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)?(.*@)?([^?#]*[?#]?)(.*)", re.DOTALL)
_BETWEEN_PIECES = re.compile(r"[,=&\s]")
_SHORTEST_PIECE = 4


def is_secret(key: str) -> bool:
    """Whether a setting of this name is a secret. One that nobody knows may be: a misspelt password."""
    name = key.lower().removeprefix(REGISTRY_PREFIX)
    return name not in _KNOWN or _SECRET.search(name) is not None


def masked(key: str, value: object) -> str:
    """A value as it may be shown: a secret only if it stands elsewhere; of a URL neither user nor query."""
    text = str(value)
    if is_reference(text):
        return text
    if is_secret(key):
        return HIDDEN
    return _urls(key).sub(_without_secrets, text)


def hide(text: str, config: Mapping[str, object]) -> str:
    """A text of others, such as an error of librdkafka, without the values that may not be shown, nor pieces of them.

    Of pieces only those from 4 characters on; a shorter value only where it is no part of a word: the mask within
    one would betray it.
    """
    pieces = {piece for key, value in config.items() for piece in _pieces(key, str(value)) if piece}
    for piece in sorted(pieces, key=lambda piece: (-len(piece), piece)):
        if len(piece) < _SHORTEST_PIECE:
            text = re.sub(rf"(?<!\w){re.escape(piece)}(?!\w)", HIDDEN, text)
        else:
            text = text.replace(piece, HIDDEN)
    return text


def _pieces(key: str, value: str) -> Iterator[str]:
    """Of a value what may not be shown: whole, and what an error may quote of it."""
    if is_reference(value):
        return
    hidden = [value]
    if not is_secret(key):
        found = [(match[2] or "", match[4]) for match in _urls(key).finditer(value)]
        hidden = [part for user, query in found for part in (user[:-1], user[:-1].partition(":")[2], query)]
    for part in hidden:
        yield part
        yield from (piece for piece in _BETWEEN_PIECES.split(part) if len(piece) >= _SHORTEST_PIECE)


def _urls(key: str) -> re.Pattern[str]:
    """Where URLs are in a value: one that is nothing else has no scheme if it was forgotten."""
    return _ONE_URL if key.lower().endswith("url") else _URL


def _without_secrets(match: re.Match[str]) -> str:
    scheme, user, place, query = match.groups(default="")
    return f"{scheme}{HIDDEN + '@' if user else ''}{place}{HIDDEN if query else ''}"
