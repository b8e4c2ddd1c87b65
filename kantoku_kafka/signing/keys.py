"""The keys that sign and check. Secrets are masked in every repr."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from kantoku_kafka.errors import UsageError
from kantoku_kafka.signing.form import is_key_id

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["Ed25519Key", "HmacKey", "Key"]

_LEAST_SECRET_BYTES = 32
_RAW_BYTES = 32


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
        private: PEM (PKCS #8, not encrypted), as ``openssl genpkey -algorithm ed25519`` writes it, or the raw 32 bytes.
        public: PEM, as ``openssl pkey -pubout`` writes it, or the raw 32 bytes. One of the two is given.

    Raises:
        UsageError: for what is no such key, or if the extra is not installed.
    """

    __slots__ = ("_private", "_public", "id")

    def __init__(self, id: str, *, private: bytes | None = None, public: bytes | None = None) -> None:  # noqa: A002
        self.id = _check_id(id)
        self._private: Ed25519PrivateKey | None = None
        if private is not None and public is None:
            self._private = _read_private(id, private)
            self._public = self._private.public_key()
        elif public is not None and private is None:
            self._public = _read_public(id, public)
        else:
            raise UsageError(f"Key {id!r} takes either its private or its public half: the public one follows from it.")

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


def _read_private(key_id: str, data: bytes) -> Ed25519PrivateKey:
    with _no_key(key_id, "private"):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        if len(data) == _RAW_BYTES:
            return Ed25519PrivateKey.from_private_bytes(data)
        found = load_pem_private_key(data, password=None)
        if isinstance(found, Ed25519PrivateKey):
            return found
        raise ValueError(type(found).__name__)


def _read_public(key_id: str, data: bytes) -> Ed25519PublicKey:
    with _no_key(key_id, "public"):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        if len(data) == _RAW_BYTES:
            return Ed25519PublicKey.from_public_bytes(data)
        found = load_pem_public_key(data)
        if isinstance(found, Ed25519PublicKey):
            return found
        raise ValueError(type(found).__name__)


@contextmanager
def _no_key(key_id: str, half: str) -> Iterator[None]:
    """Whatever the library finds wrong with it is said without the key itself."""
    try:
        yield
    except ImportError as error:
        raise UsageError("Ed25519 keys need an extra: pip install 'kantoku-kafka[signing]'.") from error
    except (ValueError, TypeError):
        raise UsageError(
            f"The {half} half of key {key_id!r} is no Ed25519 key: PEM that is not encrypted, or the raw 32 bytes."
        ) from None
