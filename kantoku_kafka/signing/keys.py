"""The keys that sign and check. Secrets are masked in every repr."""

from __future__ import annotations

import hmac
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from kantoku_kafka.errors import UsageError
from kantoku_kafka.signing.form import is_key_id

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["Ed25519Key", "HmacKey", "Key"]

_LEAST_SECRET_BYTES = 32


class Key(Protocol):
    """Immutable; any thread."""

    @property
    def id(self) -> str:
        """By which signatures name it."""
        ...

    @property
    def can_sign(self) -> bool:
        """Whether it makes signatures, too."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Only if it :attr:`can_sign`."""
        ...

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Whether this is a signature of the message by this key."""
        ...


@dataclass(frozen=True, slots=True)
class HmacKey:
    """A secret that spawners and executors share, for HMAC-SHA-256: whoever can check a task can sign one.

    Parameters:
        id: letters, digits, ``_`` and ``-``, at most 64; it stands in every signature.
        secret: at least 32 random bytes, e.g. the content of a file that ``openssl rand -hex 32`` wrote.

    Raises:
        UsageError: for an id that cannot be, or a secret that is too short.
    """

    id: str
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        _check_id(self.id)
        if not isinstance(self.secret, bytes) or len(self.secret) < _LEAST_SECRET_BYTES:
            raise UsageError(
                f"The secret of key {self.id!r} must be at least {_LEAST_SECRET_BYTES} bytes: openssl rand -hex 32"
            )

    @property
    def can_sign(self) -> bool:
        return True

    def sign(self, message: bytes) -> bytes:
        return hmac.digest(self.secret, message, "sha256")

    def verify(self, message: bytes, signature: bytes) -> bool:
        return hmac.compare_digest(self.sign(message), signature)


class Ed25519Key:
    """A key pair, or its public half: who has that one checks tasks and cannot sign any. Needs the extra ``signing``.

    Parameters:
        id: as of :class:`HmacKey`.
        private: PEM that is not encrypted, as ``openssl genpkey -algorithm ed25519`` writes it.
        public: PEM, as ``openssl pkey -pubout`` writes it. One of the two is given.

    Raises:
        UsageError: for what is no such key, or if the extra is not installed.
    """

    __slots__ = ("_private", "_public", "id")

    def __init__(self, id: str, *, private: bytes | None = None, public: bytes | None = None) -> None:  # noqa: A002
        self.id = _check_id(id)
        if (private is None) == (public is None):
            raise UsageError(f"Key {id!r} takes either its private or its public half: the public one follows from it.")
        try:
            from cryptography.exceptions import UnsupportedAlgorithm
            from cryptography.hazmat.primitives import serialization
            from cryptography.hazmat.primitives.asymmetric import ed25519
        except ImportError as error:
            raise UsageError("Ed25519 keys need an extra: pip install 'kantoku-kafka[signing]'.") from error
        found: object = None
        with suppress(UnsupportedAlgorithm, ValueError, TypeError):  # their texts may quote the key
            if private is not None:
                found = serialization.load_pem_private_key(private, password=None)
            elif public is not None:
                found = serialization.load_pem_public_key(public)
        self._private: Ed25519PrivateKey | None = None
        if isinstance(found, ed25519.Ed25519PrivateKey):
            self._private, found = found, found.public_key()
        if not isinstance(found, ed25519.Ed25519PublicKey):
            half = "public" if private is None else "private"
            raise UsageError(f"The {half} half of key {id!r} is no Ed25519 key in PEM that is not encrypted.")
        self._public: Ed25519PublicKey = found

    def __repr__(self) -> str:
        return f"Ed25519Key({self.id!r}, {'private' if self.can_sign else 'public'})"

    @property
    def can_sign(self) -> bool:
        return self._private is not None

    def sign(self, message: bytes) -> bytes:
        assert self._private is not None, "it can sign"
        return self._private.sign(message)

    def verify(self, message: bytes, signature: bytes) -> bool:
        from cryptography.exceptions import InvalidSignature

        try:
            self._public.verify(signature, message)
        except InvalidSignature:
            return False
        return True


def _check_id(key_id: str) -> str:
    if not isinstance(key_id, str) or not is_key_id(key_id):
        raise UsageError(f"{str(key_id)[:80]!r} cannot be the id of a key: letters, digits, '_' and '-', at most 64.")
    return key_id
