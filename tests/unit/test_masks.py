"""No secret is shown, under whatever name it was given."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from traceback import TracebackException

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kantoku_kafka import Kantoku
from kantoku_kafka.cli.common import Options
from kantoku_kafka.configuration.known import LIBRDKAFKA_KEYS
from kantoku_kafka.configuration.masks import hide, masked
from kantoku_kafka.configuration.sources import command_line
from kantoku_kafka.errors import UsageError
from kantoku_kafka.settings import Connection
from kantoku_kafka.throttle import Throttle

SECRET_KEYS = (
    "sasl.password",
    "ssl.key.password",
    "ssl.keystore.password",
    "ssl.key.pem",
    "ssl.ca.pem",
    "ssl.certificate.pem",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.client.credentials.client.secret",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.extensions",
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "sasl.oauthbearer.assertion.private.key.pem",
    "sasl.kerberos.kinit.cmd",
)


@pytest.mark.parametrize("key", [*SECRET_KEYS, "sasl.pasword", "sasl.jaas.config", "basic.auth.user.info", "x"])
def test_values_that_are_not_shown(key: str) -> None:
    for name in (key, key.upper()):
        assert masked(name, "hunter2") == "***"
    assert masked(key, "${env:PW}") == "${env:PW}"
    assert masked(key, "${file:/a}x") == masked(key, "${vault:x}") == "***"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("https://idp/token", "https://idp/token"),
        ("https://user:pw@idp/token", "https://***@idp/token"),
        ("https://u:p@w/x@idp/token", "https://***@idp/token"),
        ("https://idp/token?secret=a&b=c", "https://idp/token?***"),
        ("https://idp/token#a", "https://idp/token#***"),
    ],
)
def test_urls(value: str, shown: str) -> None:
    assert masked("sasl.oauthbearer.token.endpoint.url", value) == shown


@given(st.sampled_from(sorted(LIBRDKAFKA_KEYS)), st.from_regex(r"[a-z0-9:/]{8,20}", fullmatch=True))
def test_a_password_in_a_url_is_never_shown(key: str, password: str) -> None:
    assert password not in masked(key, f"https://user:{password}@host/")


@given(st.sampled_from(SECRET_KEYS), st.text(st.characters(codec="utf-8"), min_size=6), st.text())
def test_no_text_keeps_a_secret(key: str, secret: str, around: str) -> None:
    if secret not in f"{around}***{around}{around}":
        assert secret not in hide(f"{around}{secret}{around}", {key: secret, "client.id": "x"})


def clients_refusal(config: dict[str, str]) -> str:
    kan = Kantoku("n", bootstrap_servers="127.0.0.1:9", config=config)
    with pytest.raises(UsageError) as raised:
        kan.clients.admin()
    assert "hunter2" not in "\n".join(TracebackException.from_exception(raised.value, lookup_lines=False).format())
    return str(raised.value)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"sasl.pasword": "hunter2"}, ["sasl.pasword", "did you mean 'sasl.password'", "app"]),
        ({"security.protocol": "nonsense"}, ["security.protocol", "nonsense", "config show"]),
        ({"sasl.oauthbearer.method": "https://u:hunter2@h"}, ["sasl.oauthbearer.method"]),
        ({"ssl.key.pem": "hunter2", "security.protocol": "ssl"}, ["ssl.key.pem"]),
        ({"ssl.ca.location": "/no/such", "security.protocol": "ssl", "ssl.key.pem": "hunter2"}, ["/no/such"]),
        ({"ssl.ca.location": "/no/such", "security.protocol": "ssl", "debug": "https://u:hunter2@h"}, ["/no/such"]),
        ({"log_level": "99"}, ["outside allowed range 0..7. config show"]),
        ({"security.protocol": "SASL_SSL", "sasl.password": "hunter2"}, ["sasl.mechanism is not set", "SCRAM-SHA-512"]),
        ({"security.protocol": "ssl", "ssl.keystore.location": "/no/such"}, ["ssl.keystore.location", "No such file"]),
        ({"security.protocol": "ssl", "ssl.keystore.location": __file__}, ["is no PKCS#12 store", "keytool"]),
        (
            {"security.protocol": "ssl", "ssl.keystore.location": "store.p12", "ssl.keystore.password": "hunter2"},
            ["store.p12", "Is ssl.keystore.password that of the store?"],
        ),
        ({"security.protocol": "ssl", "ssl.certificate.location": "/no/such"}, ["ssl.key.location is missing"]),
        ({"security.protocol": "ssl", "ssl.key.location": "/no/such"}, ["ssl.certificate.location is missing"]),
        ({"security.protocol": "SASL_SSL", "sasl.mechanism": "OAUTHBEARER"}, ["oauth_cb", "oidc"]),
        ({"client.id": "a\0hunter2"}, ["client.id", "NUL"]),
        ({"sasl.password": "${env:KANTOKU_NOT_SET}"}, ["sasl.password", "KANTOKU_NOT_SET"]),
        ({"sasl.password": "${file:/no/such}"}, ["sasl.password", "/no/such"]),
        ({"sasl.password": "${vault:hunter2}"}, ["sasl.password", "vault"]),
        ({"bootstrap.servers": "${env:HUNTER}"}, ["${env:HUNTER}", "HOST:PORT"]),
        ({"oauth_cb": "no_such_module:f"}, ["no_such_module"]),
        ({"oauth_cb": "json:loads2"}, ["oauth_cb", "json:loads2"]),
    ],
)
def test_a_refusal_names_the_setting_and_no_secret(
    config: dict[str, str], words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HUNTER", "hunter2")
    monkeypatch.chdir(tmp_path)
    Path("store.p12").write_bytes(b"\x30\x80")
    text = clients_refusal(config)
    assert "hunter2" not in text
    for word in words:
        assert word in text


def test_an_address_that_is_none_shows_no_password() -> None:
    with pytest.raises(UsageError) as raised:
        Connection(bootstrap_servers="http://u:hunter2@h")
    assert "hunter2" not in str(raised.value)


def test_librdkafka_tells_no_secret_when_asked_to_tell_all(caplog: pytest.LogCaptureFixture) -> None:
    """It dumps its configuration then, and hides some of the secrets in it."""
    caplog.set_level(logging.DEBUG)
    secrets = {key: f"hunter2-{key}" for key in SECRET_KEYS if not key.endswith("pem")}
    config = {**secrets, "sasl.oauthbearer.token.endpoint.url": "https://u:hunter2@h/t?hunter2", "debug": "all"}
    clients = Kantoku("n", bootstrap_servers="127.0.0.1:9", config=config).clients
    clients._log._throttle = Throttle(0.0, time.monotonic)
    admin, deadline = clients.admin(), time.monotonic() + 30
    while "token.endpoint.url" not in caplog.text and time.monotonic() < deadline:
        admin.poll(0.05)  # it tells then
    assert "sasl.oauthbearer.token.endpoint.url = https://***@h/t?***" in caplog.text
    assert "hunter2" not in caplog.text


def test_no_object_shows_a_secret() -> None:
    given = command_line(["sasl.password=hunter2"], bootstrap_servers=None, namespace=None)
    for shown in (
        given,
        Options(settings=["sasl.password=hunter2"]),
        Kantoku("n", config={"sasl.password": "hunter2"}),
    ):
        assert "hunter2" not in repr(shown)
