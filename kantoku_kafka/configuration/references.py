"""References to secrets: ``${env:NAME}``, ``${file:/path}``, ``${file:/path:key}``, and the callback for tokens."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kantoku_kafka.configuration import properties
from kantoku_kafka.errors import UsageError
from kantoku_kafka.importing import imported
from kantoku_kafka.one_thread import OneThread

__all__ = ["has_reference", "is_reference", "resolved", "token_callback"]

_log = logging.getLogger(__name__)
_REFERENCE = re.compile(r"\$\{([A-Za-z][A-Za-z0-9_-]*):([^}]*)\}")
_ALL_ELSEWHERE = re.compile(r"(\$\{(env|file):[^}]*\})+")
_PRINTABLE = re.compile(r"[\x20-\x7e]+")
_LONGEST_CALL_SECONDS = 8.0  # confluent-kafka waits 10 s for the first token
_LATEST_EXPIRY_SECONDS = 10 * 366 * 86_400


def has_reference(value: object) -> bool:
    """Whether a part of the value stands elsewhere."""
    return isinstance(value, str) and _REFERENCE.search(value) is not None


def is_reference(value: object) -> bool:
    """Whether all of the value stands elsewhere, in a place that is known."""
    return isinstance(value, str) and _ALL_ELSEWHERE.fullmatch(value) is not None


def resolved(key: str, value: Any) -> Any:
    """The value with what its references stand for.

    ``${env:NAME}`` is a variable of the environment, ``${file:/path}`` the text of a file but for one line end behind
    it, ``${file:/path:key}`` the value of a key in a file of properties.

    Raises:
        UsageError: one of them cannot be had, or the value is no text.
    """
    if not isinstance(value, str):
        return value
    found = _REFERENCE.sub(lambda match: _looked_up(key, match[1], match[2]), value)
    if "\0" in found:
        raise UsageError(f"{key}: its value has a NUL character, where librdkafka would end it.")
    try:
        found.encode()
    except UnicodeEncodeError:  # a variable of the environment may be any bytes
        raise UsageError(f"{key}: its value is not UTF-8.") from None
    return found


def _looked_up(key: str, provider: str, name: str) -> str:
    if provider == "env":
        value = os.environ.get(name)
        if value is None:
            raise UsageError(f"{key} refers to the environment variable {name}, which is not set.")
        return value
    if provider != "file":
        raise UsageError(
            f"{key} refers to {provider!r}: only ${{env:NAME}}, ${{file:/path}} and ${{file:/path:key}} are known."
        )
    path, colon, entry = name.rpartition(":")
    text = properties.text_of(Path(path if colon else name), f"{key} refers to a file")
    if not colon:
        return text.removesuffix("\n").removesuffix("\r")
    entries = {found.key: found.value for found in properties.java_entries(text, path)}
    if entry not in entries:
        raise UsageError(f"{key} refers to {entry!r} in {path}, where it is not.")
    return entries[entry]


def token_callback(source: str | Callable[..., Any]) -> Callable[[str | None], Any]:
    """confluent-kafka's ``oauth_cb``: the function, or ``module:function``, that gets tokens for SASL/OAUTHBEARER.

    It is called with ``sasl.oauthbearer.config`` and answers ``(token, expiry)``, the expiry in seconds since 1970;
    a principal and a mapping of extensions may follow. It is called in a thread of its own, and has failed after 8 s.
    What it raises is told by its type: the text may quote secrets.

    Raises:
        UsageError: there is no such function.
    """
    name = source if isinstance(source, str) else getattr(source, "__qualname__", type(source).__name__)
    function = imported(source, "shop.tokens:token") if isinstance(source, str) else source
    if not callable(function):
        raise UsageError(f"oauth_cb: {name} is a {type(function).__name__}, where a function is wanted.")

    def answer(config: str | None) -> Any:
        thread = OneThread("kantoku-token")  # one for each call: one that hangs must not hold up the next
        future = thread.submit(function, config)
        thread.close()
        try:
            error = future.exception(_LONGEST_CALL_SECONDS)
        except TimeoutError:
            return _no_token(name, f"has not answered within {_LONGEST_CALL_SECONDS:g} s")
        if error is not None:  # confluent-kafka would print it, or lose it in a SystemError
            return _no_token(name, f"raised {type(error).__name__}")
        found = future.result()
        wrong = _wrong_in(found)
        if wrong is not None:
            return _no_token(name, f"answered {wrong}")
        return (*found[:3], dict(found[3])) if len(found) > 3 else found

    return answer


def _wrong_in(answer: Any) -> str | None:
    """What confluent-kafka and librdkafka would refuse, and not a line would tell of it."""
    if not (
        isinstance(answer, tuple)
        and 2 <= len(answer) <= 4
        and isinstance(answer[0], str)
        and isinstance(answer[1], int | float)
    ):
        return f"a {type(answer).__name__}, not (token, expiry), behind which a principal and extensions may follow"
    now = time.time()
    if not now < answer[1] < now + _LATEST_EXPIRY_SECONDS:
        return "an expiry that is past or far off: it takes seconds since 1970"
    if not _PRINTABLE.fullmatch(answer[0]):
        return "a token that is not printable ASCII"
    if len(answer) > 2 and not (isinstance(answer[2], str) and answer[2].isprintable()):
        return "a principal that is no printable text"
    if len(answer) > 3 and not (isinstance(answer[3], Mapping) and all(map(_is_extension, answer[3].items()))):
        return "extensions that are no mapping of names in ASCII letters (not 'auth') to texts in printable ASCII"
    return None


def _is_extension(item: tuple[Any, Any]) -> bool:
    name, value = item
    named = isinstance(name, str) and name.isascii() and name.isalpha() and name != "auth"
    return named and isinstance(value, str) and (value == "" or _PRINTABLE.fullmatch(value) is not None)


def _no_token(name: str, why: str) -> None:
    """confluent-kafka takes this as a failure, and librdkafka asks again in 10 s."""
    _log.error("no token for Kafka: oauth_cb %s %s", name, why, extra={"action": "oauth"})
