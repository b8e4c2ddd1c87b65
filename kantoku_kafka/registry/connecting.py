"""From the settings of a schema registry to confluent-kafka's client of it."""

from __future__ import annotations

import math
import ssl
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from kantoku_kafka.configuration.masks import hide
from kantoku_kafka.configuration.references import resolved
from kantoku_kafka.errors import UsageError

__all__ = ["LONGEST_SECONDS", "USER_INFO", "connected", "without_user_info"]

LONGEST_SECONDS = 8.0  # whatever it is that is asked, and of whomever
USER_INFO = "basic.auth.user.info"
_NUMBERS = frozenset(
    {"cache.capacity", "cache.latest.ttl.sec", "max.retries", "retries.max.wait.ms", "retries.wait.ms", "timeout"}
)
_WAITS: Mapping[str, Any] = {"retries.wait.ms": 100, "retries.max.wait.ms": 1_000}


def without_user_info(url: str) -> tuple[str, str]:
    """URLs as they may be shown, and ``user:password`` of the first that has one. Raises UsageError."""
    shown, found = [], ""
    for one in url.split(","):
        try:
            parts = urlsplit(one.strip())
            address = parts.hostname and parts.netloc.rpartition("@")[2]
            _ = parts.port
        except ValueError:
            parts, address = urlsplit(""), None
        if parts.scheme not in ("http", "https") or not address:
            raise UsageError("That is no URL of a schema registry: give http[s]://HOST[:PORT][/PATH].")
        found = found or unquote(parts.netloc.rpartition("@")[0])
        shown.append(parts._replace(netloc=address).geturl())
    return ",".join(shown), found


def connected(url: str, settings: Mapping[str, Any], timeout_seconds: float) -> Any:
    """confluent-kafka's client of the registry at ``url``. Asks nothing yet. Raises UsageError."""
    try:
        from confluent_kafka.schema_registry import SchemaRegistryClient
    except ImportError:
        raise UsageError("A schema registry needs an extra: pip install 'kantoku-kafka[registry]'.") from None
    count = len(url.split(","))
    own = {"url": url, "timeout": timeout_seconds, "max.retries": 0 if count > 1 else 2, **_WAITS}
    given = {key: resolved(key, value) for key, value in settings.items()}
    config = {**own, **{key: _number(key, value) if key in _NUMBERS else value for key, value in given.items()}}
    config["timeout"] = min(config["timeout"], LONGEST_SECONDS / count)  # or the last one would never be asked
    _check_key(given)
    proxy = config.pop("proxy", None)
    made = _made(SchemaRegistryClient, config)
    if proxy is None:
        return made
    made.close()
    try:
        return SchemaRegistryClient({**config, "proxy": proxy})
    except Exception as error:  # noqa: BLE001 - what it raises quotes passwords
        how = type(error).__name__
    raise UsageError(
        f"proxy of the schema registry is no URL of one that can be used ({how}): give "
        "http[s]://[USER:PASSWORD@]HOST[:PORT]."
    )


def _made(client: Callable[[dict[str, Any]], Any], config: dict[str, Any]) -> Any:
    try:
        return client(config)
    except OSError as error:  # also of ssl: a file that is missing, or is none of its kind
        raise UsageError(
            f"The registry's client refuses a file of its settings, see those of ssl: {error.strerror or error}."
        ) from error
    except (ValueError, TypeError) as error:
        texts = {key: value for key, value in config.items() if isinstance(value, str)}
        said, how = hide(str(error), texts), type(error).__name__
    except Exception as error:  # noqa: BLE001 - what it raises of a proxy quotes passwords
        said, how = "", type(error).__name__
    if not said or "://" in said:
        raise UsageError(
            f"The registry's client refuses its settings, or the proxy that is in HTTP_PROXY, HTTPS_PROXY or ALL_PROXY "
            f"({how})."
        )
    raise UsageError(f"The registry's client refuses its settings: {said}.")


def _check_key(settings: Mapping[str, Any]) -> None:
    """OpenSSL would ask on the terminal for a password that is missing. All else the client says itself."""
    certificate = settings.get("ssl.certificate.location")
    key, password = settings.get("ssl.key.location"), settings.get("ssl.key.password") or ""
    asked = []

    def answer() -> str:
        asked.append(True)
        return str(password)

    if certificate is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, answer)
    except (OSError, ValueError, TypeError) as error:
        if asked:
            wrong = "is not that of" if password else "is missing: it is that of"
            raise UsageError(f"ssl.key.password of the schema registry {wrong} {key or certificate}.") from error


def _number(key: str, value: Any) -> float:
    """What a file, a variable or an option says as a text. Raises UsageError."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise UsageError(f"{key} of the schema registry is a number, 0 or more, not {value!r}.")
    return number
