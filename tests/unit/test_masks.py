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
        ("me:pw@127.0.0.1:9/token", "***@127.0.0.1:9/token"),
        ("me:p w@idp/token?a b", "***@idp/token?***"),
        ("me:p://w@idp/token", "***@idp/token"),
        ("https://u:p w@idp", "https://***@idp"),
        ("idp:80/token", "idp:80/token"),
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


PIECES = st.text(st.characters(codec="utf-8", exclude_categories=("Z", "C"), exclude_characters=",=&*"), min_size=4)


@given(
    st.sampled_from(SECRET_KEYS),
    st.lists(PIECES, min_size=1),
    st.text("=, \n", min_size=1, max_size=2),
    st.lists(st.text(max_size=3), min_size=1),
)
def test_no_text_keeps_a_piece_of_a_secret(key: str, pieces: list[str], between: str, around: list[str]) -> None:
    """librdkafka quotes the one extension, or what it could not read of a text."""
    quoting = "".join(f"{around[at % len(around)]}{piece}" for at, piece in enumerate(pieces))
    shown = hide(quoting, {key: between.join(pieces), "client.id": "x"})
    assert not [piece for piece in pieces if piece in shown]


@given(st.text(st.characters(codec="ascii", exclude_characters="@?#*/,=&:", categories=("L", "N", "P")), min_size=4))
def test_no_text_keeps_the_password_of_a_url(password: str) -> None:
    for scheme in ("https://", ""):
        url = f"{scheme}me:{password}@127.0.0.1:9/token"
        for quoted in (url, f"me:{password}", password):
            assert password not in hide(f"no token from '{quoted}'", {"sasl.oauthbearer.token.endpoint.url": url})


def test_a_short_secret_is_masked_only_where_it_stands_by_itself() -> None:
    """Within words the mask would betray it."""
    text = "Configuration property \"sasl.password\" has p, 'p' and p1"
    assert hide(text, {"sasl.password": "p"}) == text.replace("p, 'p'", "***, '***'")


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


def test_an_error_that_quotes_a_part_of_a_setting_tells_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    config = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "OAUTHBEARER",
        "enable.sasl.oauthbearer.unsecure.jwt": "true",
        "sasl.oauthbearer.config": "principal=me hunter2-part=1",
    }
    admin = Kantoku("n", bootstrap_servers="127.0.0.1:9", config=config).clients.admin()
    deadline = time.monotonic() + 30
    while "Failed to acquire SASL OAUTHBEARER token" not in caplog.text and time.monotonic() < deadline:
        admin.poll(0.05)
    assert "beginning at: ***=1" in caplog.text and "hunter2" not in caplog.text


def test_no_object_shows_a_secret() -> None:
    given = command_line(["sasl.password=hunter2"], bootstrap_servers=None, namespace=None)
    for shown in (
        given,
        Options(settings=["sasl.password=hunter2"]),
        Kantoku("n", config={"sasl.password": "hunter2"}),
    ):
        assert "hunter2" not in repr(shown)
