"""A seal that a file describes, so that an app, its children and the command line have the same one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from kantoku_kafka.configuration.properties import toml_of
from kantoku_kafka.configuration.references import resolved
from kantoku_kafka.errors import UsageError
from kantoku_kafka.signing.keys import Ed25519Key, HmacKey, Key
from kantoku_kafka.signing.seal import Seal

__all__ = ["load_seal", "seal_of_environment"]

_VARIABLE = "KANTOKU_SEAL"
_SETTINGS = {"sign_with": str, "required": bool, "lifetime_seconds": int | float, "unsigned_topics": list, "keys": dict}
_HALVES = ("secret", "private", "public")


def load_seal(path: str | os.PathLike[str]) -> Seal:
    """The seal that a TOML file describes; the keys stand elsewhere, named as in any file of settings.

    ::

        sign_with = "spawner-2"          # and the other parameters of Seal
        lifetime_seconds = 86400

        [keys.spawner-2]                 # Ed25519; public = ... for those that only check
        private = "${file:/run/secrets/spawner-2.pem}"

        [keys.spawner-1]                 # HMAC
        secret = "${env:SPAWNER_1}"

    Raises:
        UsageError: what cannot be read, or describes no seal.
    """
    return _load(Path(path), "the seal")


def seal_of_environment() -> Seal | None:
    """That of the file which ``KANTOKU_SEAL`` names, if it is set. Raises UsageError."""
    named = os.environ.get(_VARIABLE)
    return _load(Path(named), _VARIABLE) if named else None


def _load(path: Path, what: str) -> Seal:
    settings = toml_of(path, what)
    try:
        for name, value in settings.items():
            if name not in _SETTINGS or not isinstance(value, _SETTINGS[name]):
                raise UsageError(f"a seal has no such {name!r}; it takes: {', '.join(_SETTINGS)}.")
        keys = [_key(name, entries) for name, entries in settings.pop("keys", {}).items()]
        return Seal(keys, **settings)
    except UsageError as error:
        raise UsageError(f"{what}: {path}: {error}") from error


def _key(name: str, entries: Any) -> Key:
    """One table of the file. Raises UsageError."""
    half, value = next(iter(entries.items())) if isinstance(entries, dict) and len(entries) == 1 else ("", "")
    if half not in _HALVES or not isinstance(value, str):
        raise UsageError(f"Key {name!r} of a seal has one entry, secret, private or public: a text.")
    content = resolved(f"keys.{name}.{half}", value).encode()
    return HmacKey(name, content) if half == "secret" else Ed25519Key(name, **{half: content})
