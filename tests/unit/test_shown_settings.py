"""``config show``: what counts, with its origin; and what of a user's settings does not."""

from __future__ import annotations

import json
import logging
import threading
import time
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

from kantoku_kafka import Kantoku
from kantoku_kafka.cli import main as cli
from kantoku_kafka.configuration import references
from kantoku_kafka.configuration.managed import MANAGED, TUNED
from kantoku_kafka.configuration.references import token_callback
from kantoku_kafka.errors import UsageError
from kantoku_kafka.kafka.user_settings import librdkafka_config


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def show(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, tuple[str, str, str]]:
    with pytest.raises(SystemExit) as ended:
        cli.main(["config", "show", "-o", "json", *arguments])
    shown = capsys.readouterr()
    assert ended.value.code == 0, shown.err
    assert "hunter2" not in shown.out + shown.err
    return {row["setting"]: (row["value"], row["origin"], row["note"]) for row in json.loads(shown.out)}


def test_every_setting_with_its_origin(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    Path("shown_app.py").write_text(
        "from kantoku_kafka import Kantoku\n"
        "kan = Kantoku('shop', bootstrap_servers='app:1', config={'client.rack': 'r', 'sasl.password': 'hunter2'},\n"
        "              topics={'events': 'e'})\n"
    )
    Path("kantoku.toml").write_text('[profiles.default]\ntopics.results = "r"\nkafka.client.id = "toml"\n')
    Path("f").write_text("\nssl.key.password=${env:PW}\nssl.keystore.password=hunter2\nacks=1\n")
    monkeypatch.setenv("KANTOKU_KAFKA_SASL_MECHANISM", "PLAIN")
    assert show(capsys, "shown_app:kan", "-F", "f", "-X", "sasl.pasword=hunter2", "-n", "n") == {
        "bootstrap.servers": ("app:1", "app", ""),
        "namespace": ("n", "-n", ""),
        "topics.events": ("e", "app", ""),
        "topics.results": ("r", "kantoku.toml [profiles.default]", ""),
        "acks": ("1", "f:4", f"ignored: {MANAGED['acks'][1]}"),
        "client.id": ("toml", "kantoku.toml [profiles.default]", ""),
        "client.rack": ("r", "app", ""),
        "sasl.mechanism": ("PLAIN", "KANTOKU_KAFKA_SASL_MECHANISM", ""),
        "sasl.password": ("***", "app", ""),
        "sasl.pasword": ("***", "-X", "'sasl.pasword' is no setting, did you mean 'sasl.password'?"),
        "ssl.key.password": ("${env:PW}", "f:2", ""),
        "ssl.keystore.password": ("***", "f:3", ""),
    }


def test_the_registry(capsys: pytest.CaptureFixture[str]) -> None:
    shown = show(capsys, "-X", "schema.registry.url=https://u:hunter2@r/x")
    assert shown["schema.registry.url"] == ("https://r/x", "-X", "")
    options = ["-X", "schema.registry.url=https://r", "-X", "basic.auth.user.info=u:hunter2"]
    shown = show(capsys, *options, "-X", "schema.registry.ssl.ca.location=/ca.pem")
    assert shown["schema.registry.basic.auth.user.info"][0] == "***"
    assert shown["schema.registry.ssl.ca.location"][0] == "/ca.pem"
    options = ["-X", "sasl.username=u", "-X", "sasl.password=hunter2", "-X", "schema.registry.url=https://r"]
    shown = show(capsys, *options, "-X", "basic.auth.credentials.source=SASL_INHERIT")
    assert shown["schema.registry.basic.auth.user.info"] == ("***", "-X", "")


def test_without_anything(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KANTOKU_BOOTSTRAP_SERVERS", raising=False)
    assert show(capsys) == {
        "bootstrap.servers": ("localhost:9092", "default", ""),
        "namespace": ("kantoku", "default", ""),
    }


def test_what_would_break_a_promise_does_not_count(caplog: pytest.LogCaptureFixture) -> None:
    config = dict.fromkeys(MANAGED, "1") | {"request.required.acks": "0", "enable.auto.commit": "False"}
    kan = Kantoku("n", bootstrap_servers="127.0.0.1:9", config=config)
    with caplog.at_level(logging.WARNING):
        clients = kan.clients
    (line,) = [record.getMessage() for record in caplog.records]
    assert "acks" in line and "group.id" in line
    assert "enable.auto.commit" not in line, "it says what we do anyway"
    assert librdkafka_config(clients.connection) == {"bootstrap.servers": "127.0.0.1:9"}
    kinds = (Producer, Consumer, AdminClient)
    made = (clients.producer(**{"transactional.id": "t"}), clients.consumer(**{"group.id": "g"}), clients.admin())
    for client, kind in zip(made, kinds, strict=True):
        assert isinstance(client, kind)


def test_a_secret_is_looked_up_for_each_client_anew() -> None:
    Path("pw").write_text("old\n")
    connection = Kantoku("n", config={"sasl.password": "${file:pw}"}).connection
    assert librdkafka_config(connection)["sasl.password"] == "old"
    Path("pw").write_text("new\n")
    assert librdkafka_config(connection)["sasl.password"] == "new"
    assert connection.config["sasl.password"] == "${file:pw}"


def test_what_is_managed_is_not_tuned() -> None:
    assert not MANAGED.keys() & TUNED


BASE = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "OAUTHBEARER"}


def test_a_callback_gets_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("tokens_of_test.py").write_text(
        "import time\ncalls = []\n"
        "def token(config):\n    calls.append(config)\n    return 'hunter2', time.time() + 60\n"
    )
    config = {**BASE, "oauth_cb": "tokens_of_test:token", "sasl.oauthbearer.config": "scope=a"}
    kan = Kantoku("n", bootstrap_servers="127.0.0.1:9", config=config)
    clients = kan.clients
    made = [clients.producer(), clients.consumer(**{"group.id": "g"}), clients.admin()]
    import tokens_of_test

    assert tokens_of_test.calls == 3 * ["scope=a"], made


@pytest.mark.parametrize("error", [ConnectionError, SystemExit])
def test_what_a_callback_raises_is_told_by_its_type(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def token(config: str | None) -> tuple[str, float]:
        raise error("https://user:hunter2@idp")

    assert token_callback(token)(None) is None
    assert error.__name__ in caplog.text and "hunter2" not in caplog.text


def test_a_callback_that_does_not_answer(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever polls would wait as long, and be given up by its group."""
    monkeypatch.setattr(references, "_LONGEST_CALL_SECONDS", 0.01)
    over = threading.Event()
    assert token_callback(lambda config: over.wait(60))(None) is None
    over.set()
    assert "has not answered within 0.01 s" in caplog.text


@pytest.mark.parametrize(
    "answer",
    [None, "hunter2", ("hunter2",), ("hunter2", "soon"), (b"hunter2", 1e10), ("hunter2", 3600), ("hunter2", 1.8e12)],
)
def test_what_is_no_token_is_told(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert token_callback(lambda config: answer)(None) is None
    assert "no token" in caplog.text and "hunter2" not in caplog.text


SOON = time.time() + 3600


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (("hunter2\u00fc", SOON), "a token that is not printable ASCII"),
        (("", SOON), "a token that is not printable ASCII"),
        (("hunter2", 10**400), "past or far off"),
        (("hunter2", SOON, 7), "a principal that is no printable text"),
        (("hunter2", SOON, "a\0"), "a principal that is no printable text"),
        (("hunter2", SOON, "a", None), "extensions that are no mapping"),
        (("hunter2", SOON, "a", [("a", "hunter2")]), "extensions that are no mapping"),
        (("hunter2", SOON, "a", {"a": "hunter2\u00fc"}), "extensions that are no mapping"),
        (("hunter2", SOON, "a", {"a": 1}), "extensions that are no mapping"),
        (("hunter2", SOON, "a", {7: "hunter2"}), "extensions that are no mapping"),
        (("hunter2", SOON, "a", {"a1": "hunter2"}), "extensions that are no mapping"),
        (("hunter2", SOON, "a", {"auth": "hunter2"}), "extensions that are no mapping"),
        (("hunter2", SOON, "a", {}, 7), "a tuple, not (token, expiry)"),
    ],
)
def test_what_librdkafka_would_refuse_without_a_word_is_told(
    answer: Any, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert token_callback(lambda config: answer)(None) is None
    assert "no token" in caplog.text and told in caplog.text and "hunter2" not in caplog.text


def test_a_callback_may_be_anything_that_is_called() -> None:
    assert token_callback(partial(lambda answer, config: answer, None))(None) is None


def test_tokens_with_principal_and_extensions_pass() -> None:
    answer = ("t", time.time() + 60, "princip\u00e4l", {"a": "b c", "logicalCluster": ""})
    config = {**BASE, "oauth_cb": lambda config: (*answer[:3], MappingProxyType(answer[3]))}
    assert token_callback(config["oauth_cb"])(None) == answer
    assert Kantoku("n", bootstrap_servers="127.0.0.1:9", config=config).clients.producer()  # type: ignore[arg-type]


def test_a_callback_that_is_no_function() -> None:
    with pytest.raises(UsageError, match="json:__name__ is a str"):
        token_callback("json:__name__")
