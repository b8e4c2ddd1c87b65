"""The settings that the user gave, as librdkafka takes them."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from kantoku_kafka.configuration.managed import is_managed
from kantoku_kafka.configuration.references import resolved, token_callback
from kantoku_kafka.errors import UsageError
from kantoku_kafka.settings import Connection, check_addresses

__all__ = ["OAUTHBEARER", "TOKEN_URL", "librdkafka_config"]

OAUTHBEARER, TOKEN_URL = "OAUTHBEARER", "sasl.oauthbearer.token.endpoint.url"


def librdkafka_config(connection: Connection) -> dict[str, Any]:
    """The settings that the user gave, as librdkafka takes them: with what their references stand for.

    With the system's authorities where HTTPS is spoken: librdkafka's default is a file that only Red Hat has.

    Raises:
        UsageError: a reference cannot be looked up, or the result cannot be.
    """
    given = {"bootstrap.servers": connection.bootstrap_servers, **connection.config}
    config = {key: resolved(key, value) for key, value in given.items() if not is_managed(key)}
    check_addresses(str(config["bootstrap.servers"]), shown=str(given["bootstrap.servers"]))
    if "oauth_cb" in config:
        config["oauth_cb"] = token_callback(config["oauth_cb"])
    elif _is_tokenless({key: str(value).lower() for key, value in config.items()}):
        raise UsageError(
            "sasl.mechanism=OAUTHBEARER, and nothing says where tokens come from: set sasl.oauthbearer.method=oidc and "
            "sasl.oauthbearer.token.endpoint.url, .client.id, .client.secret, or oauth_cb=MODULE:FUNCTION."
        )
    return _https_authorities(config) | config


def _is_tokenless(config: Mapping[str, str]) -> bool:
    return (
        config.get("security.protocol", "").startswith("sasl")
        and config.get("sasl.mechanism", config.get("sasl.mechanisms")) == OAUTHBEARER.lower()
        and config.get("sasl.oauthbearer.method") != "oidc"
        and config.get("enable.sasl.oauthbearer.unsecure.jwt") != "true"
    )


def _https_authorities(config: Mapping[str, object]) -> dict[str, str]:
    if not str(config.get(TOKEN_URL, "")).startswith("https:") or {"https.ca.location", "https.ca.pem"} & config.keys():
        return {}
    paths = ssl.get_default_verify_paths()
    place = paths.cafile or paths.capath
    return {"https.ca.location": place} if place else {}
