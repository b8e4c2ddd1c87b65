"""What of a setting may be shown: to people, in logs, in errors."""

from __future__ import annotations

import re
from collections.abc import Mapping

from kantoku_kafka.configuration.known import LIBRDKAFKA_KEYS
from kantoku_kafka.configuration.references import is_reference

__all__ = ["HIDDEN", "REGISTRY_PREFIX", "hide", "is_secret", "masked"]

HIDDEN = "***"
REGISTRY_PREFIX = "schema.registry."
_SECRET = re.compile(
    r"password|passphrase|secret|jaas|pem$|user\.info|kinit\.cmd|oauthbearer\.(config|extensions)$|token(?!\.endpoint\.url$)"
)
_USER_INFO = re.compile(r"(?<=://)\S*@")
_QUERY = re.compile(r"(://[^\s?#]*[?#])\S+")


def is_secret(key: str) -> bool:
    """Whether a setting of this name is a secret. One that nobody knows may be: a misspelt password."""
    name = key.lower().removeprefix(REGISTRY_PREFIX)
    return (name not in LIBRDKAFKA_KEYS and name != "url") or _SECRET.search(name) is not None


def masked(key: str, value: object) -> str:
    """A value as it may be shown: a secret only if it stands elsewhere; of a URL neither user nor query."""
    text = str(value)
    if is_reference(text):
        return text
    if is_secret(key):
        return HIDDEN
    return _QUERY.sub(rf"\1{HIDDEN}", _USER_INFO.sub(f"{HIDDEN}@", text))


def hide(text: str, config: Mapping[str, object]) -> str:
    """A text of others, such as an error of librdkafka, without the values that may not be shown."""
    for key, value in sorted(config.items(), key=lambda item: -len(str(item[1]))):
        shown = masked(key, value)
        if str(value) and shown != str(value):
            text = text.replace(str(value), shown)
    return text
