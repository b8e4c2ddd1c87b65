"""Files that librdkafka's TLS settings name: whatever is in them ends in a sentence, or works."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kantoku_kafka.errors import UsageError
from kantoku_kafka.kafka.tls import context_of

PEM = st.sampled_from(
    [b"-----BEGIN CERTIFICATE-----\n", b"-----END CERTIFICATE-----\n", b"-----BEGIN PRIVATE KEY-----\n"]
)
CONTENT = st.lists(PEM | st.binary(max_size=40) | st.just(b"MAAA\n"), max_size=5).map(b"".join)


@settings(max_examples=30)  # the system's authorities are loaded each time
@given(CONTENT, CONTENT, st.text(max_size=20))
def test_any_content_ends_in_a_sentence_or_works(authority: bytes, identity: bytes, password: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ca, own = Path(folder, "ca.pem"), Path(folder, "own.pem")
        ca.write_bytes(authority)
        own.write_bytes(identity)
        for config in (
            {"ssl.ca.location": str(ca)},
            {"ssl.certificate.location": str(own), "ssl.key.location": str(own), "ssl.key.password": password},
        ):
            with pytest.raises(UsageError) as caught:
                context_of(config)
            assert "location" in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_for_an_authority(text: str) -> None:
    with pytest.raises(UsageError, match=r"ssl\.ca\.pem"):
        context_of({"ssl.ca.pem": text})


def test_a_path_that_cannot_be() -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        context_of({"ssl.ca.location": "a\0b"})


@pytest.mark.parametrize("name", ["ssl.certificate.location", "ssl.key.location"])
def test_a_folder_is_no_certificate_and_no_key(tmp_path: Path, name: str) -> None:
    (tmp_path / "own.pem").write_bytes(b"")
    config = dict.fromkeys(("ssl.certificate.location", "ssl.key.location"), str(tmp_path / "own.pem"))
    with pytest.raises(UsageError, match=name):
        context_of({**config, name: str(tmp_path)})


def test_a_password_that_is_asked_for_is_never_awaited_at_a_terminal(tmp_path: Path) -> None:
    """OpenSSL would ask."""
    locked = tmp_path / "key.pem"
    head = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00000000000000000000000000000000\n\nAAAAAAAAAAAAAAAAAAAAAA=="
    locked.write_text(f"-----BEGIN RSA PRIVATE KEY-----\n{head}\n-----END RSA PRIVATE KEY-----\n")
    with pytest.raises(UsageError):
        context_of({"ssl.certificate.location": str(locked), "ssl.key.location": str(locked)})
