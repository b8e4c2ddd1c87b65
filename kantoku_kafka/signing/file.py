"""A seal that a file describes, so that an app, its children and the command line have the same one."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from kantoku_kafka.errors import UsageError
from kantoku_kafka.signing.keys import Ed25519Key, HmacKey, Key
from kantoku_kafka.signing.seal import Seal

__all__ = ["load_seal"]

_SETTINGS = {"sign_with": str, "required": bool, "lifetime_seconds": int | float, "unsigned_topics": list, "keys": dict}


def load_seal(path: str | os.PathLike[str]) -> Seal:
    """The seal that a TOML file describes; the keys themselves are in other files, or in the environment.

    ::

        sign_with = "spawner-2"          # and the other parameters of Seal
        lifetime_seconds = 86400

        [keys.spawner-2]                 # Ed25519; public_file for those that only check
        private_file = "spawner-2.pem"

        [keys.spawner-1]                 # HMAC
        secret_env = "SPAWNER_1"

    Files stand relative to this one. White space at both ends of a secret does not count.

    Raises:
        UsageError: what cannot be read, or describes no seal.
    """
    path = Path(path)
    try:
        settings = tomllib.loads(_content(path).decode())
    except ValueError as error:
        raise UsageError(f"{path} is no TOML file: {error}.") from error
    for name, value in settings.items():
        if name not in _SETTINGS or not isinstance(value, _SETTINGS[name]):
            raise UsageError(f"{path}: a seal has no such {name!r}; it takes: {', '.join(_SETTINGS)}.")
    keys = [_key(path.parent, name, entries) for name, entries in settings.pop("keys", {}).items()]
    return Seal(keys, **settings)


def _key(folder: Path, name: str, entries: Any) -> Key:
    """One table of the file. Raises UsageError."""
    entry, where = next(iter(entries.items())) if isinstance(entries, dict) and len(entries) == 1 else ("", "")
    half, _, source = entry.rpartition("_")
    if half not in ("secret", "private", "public") or source not in ("file", "env") or not isinstance(where, str):
        raise UsageError(
            f"Key {name!r} says by one entry where it is: secret_file, private_file or public_file, or secret_env, "
            "private_env or public_env."
        )
    if source == "file":
        content = _content(folder / where)
    elif where in os.environ:
        content = os.environ[where].encode()
    else:
        raise UsageError(f"Key {name!r} is to be in the variable {where} of the environment, which is not set.")
    return HmacKey(name, content.strip()) if half == "secret" else Ed25519Key(name, **{half: content})


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{path} cannot be read: {reason}.") from error
