"""librdkafka's TLS settings as Python's ``ssl`` takes them, for diagnosis: which file is it that cannot be used?"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path

from kantoku_kafka.errors import UsageError

__all__ = ["context_of", "has_certificate", "is_whole"]

_FROM_JAVA = "From a Java truststore: keytool -exportcert -rfc -keystore FILE -alias NAME -file ca.pem"
_SEQUENCE = b"\x30"  # with which PKCS#12 begins, as all that is DER
# Forms of a client certificate that Python cannot load; what a broker thinks of us is then unknown.
_ELSEWHERE = ("ssl.keystore.location", "ssl.certificate.pem", "ssl.key.pem", "ssl.engine.location")


def context_of(config: Mapping[str, str]) -> ssl.SSLContext:
    """Our side of a TLS connection with these settings.

    Raises:
        UsageError: a file is missing, is not what it should be, or is locked by another password.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if config.get("ssl.endpoint.identification.algorithm", "https") == "none":
        context.check_hostname = False
    if config.get("enable.ssl.certificate.verification", "true").lower() == "false":
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _trust(context, config)
    if "ssl.keystore.location" in config:
        _check_store(Path(config["ssl.keystore.location"]))
    if is_whole(config) and ("ssl.certificate.location" in config or "ssl.key.location" in config):
        _identify(context, config)
    return context


def has_certificate(config: Mapping[str, str]) -> bool:
    """Whether we show a certificate of our own."""
    return any(name in config for name in ("ssl.certificate.location", *_ELSEWHERE))


def is_whole(config: Mapping[str, str]) -> bool:
    """Whether the context shows the same certificate as librdkafka does."""
    return not any(name in config for name in _ELSEWHERE)


def _trust(context: ssl.SSLContext, config: Mapping[str, str]) -> None:
    place, text = config.get("ssl.ca.location"), config.get("ssl.ca.pem")
    if text is None and place in (None, "probe"):
        context.load_default_certs()
        return
    name = "ssl.ca.location" if text is None else "ssl.ca.pem"
    path = None if text is not None or place is None else Path(place)
    if path is not None:
        _check_readable("ssl.ca.location", path)
    try:
        if path is not None and path.is_dir():
            context.load_verify_locations(capath=path)
        else:
            context.load_verify_locations(cafile=path, cadata=text)
    except (ssl.SSLError, ValueError, TypeError) as error:  # TypeError: text beyond ASCII
        raise UsageError(
            f"{name}{f': {path}' if path else ''} holds no certificate in PEM form. {_FROM_JAVA}"
        ) from error


def _check_store(path: Path) -> None:
    _check_readable("ssl.keystore.location", path)
    if path.is_dir() or not path.read_bytes().startswith(_SEQUENCE):
        raise UsageError(
            f"ssl.keystore.location: {path} is no PKCS#12 store. From a Java keystore: keytool -importkeystore "
            "-srckeystore FILE -destkeystore store.p12 -deststoretype PKCS12"
        )


def _identify(context: ssl.SSLContext, config: Mapping[str, str]) -> None:
    for name in ("ssl.certificate.location", "ssl.key.location"):
        if name not in config:
            raise UsageError(
                f"{name} is missing: name the file of the certificate, and that of its key; it may be one."
            )
    certificate, key = Path(config["ssl.certificate.location"]), Path(config["ssl.key.location"])
    _check_readable("ssl.certificate.location", certificate)
    _check_readable("ssl.key.location", key)
    password, asked = config.get("ssl.key.password", ""), []

    def answer() -> str:
        asked.append(True)
        return password

    try:
        context.load_cert_chain(certificate, key, answer)
    except (OSError, ValueError) as error:  # OSError: a folder; the errors of ssl are some, too
        if asked:
            wrong = "is not that of" if password else "is missing: it is that of"
            raise UsageError(f"ssl.key.password {wrong} {key}.") from error
        if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
            raise UsageError(
                f"The key in {key} (ssl.key.location) is not that of the certificate in {certificate}."
            ) from error
        raise UsageError(
            f"{certificate} and {key} (ssl.certificate.location, ssl.key.location) are not a certificate and its key "
            "in PEM form. From a Java keystore: keytool -importkeystore to PKCS12, and set ssl.keystore.location."
        ) from error


def _check_readable(name: str, path: Path) -> None:
    try:
        if not path.is_dir():
            path.open("rb").close()
    except (OSError, ValueError) as error:  # ValueError: no path has a NUL
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{name}: {path} cannot be read: {reason}.") from error
