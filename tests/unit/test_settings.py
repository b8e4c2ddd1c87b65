"""Settings: what cannot be right is refused in a sentence, and no secret is ever shown."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kantoku_kafka import Kantoku
from kantoku_kafka.errors import UsageError
from kantoku_kafka.settings import MAX_SLOT_BYTES, Connection, EventDetail, ExecutorSettings, Guarantee, PoolKind

SECRETS = (
    "sasl.password",
    "SASL.PASSWORD",
    "ssl.key.password",
    "ssl.keystore.password",
    "ssl.key.pem",
    "sasl.oauthbearer.client.secret",
    "sasl.jaas.config",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.assertion.private.key.passphrase",
)
MAY_BE_ZERO = (
    "drain_seconds",
    "revoke_drain_seconds",
    "heartbeat_seconds",
    "max_tasks",
    "max_tasks_per_child",
    "max_memory_per_child_bytes",
)
NUMBERS = [
    field.name
    for field in dataclasses.fields(ExecutorSettings)
    if type(field.default) in (int, float) and field.name not in MAY_BE_ZERO
]


@pytest.mark.parametrize("name", SECRETS)
def test_secrets_are_masked_wherever_a_connection_is_shown(name: str) -> None:
    config = {name: "hunter2", "sasl.username": "ann"}
    for shown in (
        repr(Connection(bootstrap_servers="h:1", config=config)),
        f"{Connection(bootstrap_servers='h:1', config=config)}",
        repr(Kantoku("shop", bootstrap_servers="h:1", config=config)),
    ):
        assert "hunter2" not in shown
        assert "ann" in shown
        assert name in shown, "which setting there is may be seen"


@pytest.mark.parametrize(
    "servers",
    ["localhost:9092", "a:1,b:65535", "[::1]:9092", "SASL_SSL://kafka.example:9093", " a_b:1 , plaintext://c-d:2"],
)
def test_addresses(servers: str) -> None:
    assert Connection(bootstrap_servers=servers).bootstrap_servers == servers


@pytest.mark.parametrize(
    "servers",
    [
        *["", "localhost", "localhost:", ":9092", "a:1,", "a:b", "a:0", "a:65536", "http://a", "a:-1", "a:\u0661"],
        *["a:1 b:1", "a:1;b:1", "::1:9092", "fe80::1", "[a:1", "[]:1", "kafka://a:1", "u:p@a:1", '"a:1"', "a:1/"],
    ],
)
def test_what_is_no_address_is_named(servers: str) -> None:
    with pytest.raises(UsageError, match="HOST:PORT"):
        Connection(bootstrap_servers=servers)


@given(st.text(max_size=30))
def test_any_address_is_taken_or_refused_by_the_one_error(servers: str) -> None:
    try:
        Connection(bootstrap_servers=servers)
    except UsageError as error:
        assert error.exit_code == 2


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [0, -1])
def test_numbers_must_be_positive(name: str, value: int) -> None:
    with pytest.raises(UsageError, match=name.replace("_", " ")):
        ExecutorSettings(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", MAY_BE_ZERO)
def test_some_may_be_zero_but_not_less(name: str) -> None:
    assert getattr(ExecutorSettings(**{name: 0.0}), name) == 0  # type: ignore[arg-type]
    for value in (-0.1, math.nan, math.inf):
        with pytest.raises(UsageError, match="0 or more"):
            ExecutorSettings(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("slot", ["", "s" * (MAX_SLOT_BYTES + 1), "ü", "a/b", "\udcff"])
def test_a_slot_must_fit_the_commit_metadata(slot: str) -> None:
    with pytest.raises(UsageError, match=str(MAX_SLOT_BYTES)):
        ExecutorSettings(slot=slot)
    assert ExecutorSettings(slot="s" * MAX_SLOT_BYTES).slot


def test_choices_may_be_texts() -> None:
    settings = ExecutorSettings(events="terminal", guarantee="at-least-once", pool="inline")  # type: ignore[arg-type]
    assert (settings.events, settings.guarantee, settings.pool) == (
        EventDetail.TERMINAL,
        Guarantee.AT_LEAST_ONCE,
        PoolKind.INLINE,
    )
    with pytest.raises(UsageError, match="terminal"):
        ExecutorSettings(events="some")  # type: ignore[arg-type]


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ExecutorSettings().concurrency = 3  # type: ignore[misc]


def test_the_timeout_of_a_connection_is_positive() -> None:
    with pytest.raises(UsageError, match="timeout seconds"):
        Connection(bootstrap_servers="h:1", timeout_seconds=0)
