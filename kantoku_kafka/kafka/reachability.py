"""What stands between us and a broker: its name, TCP, TLS, SASL. librdkafka tries again in silence, whichever it is.

Only a diagnosis: it sends no credentials, and nobody works with the connections that it makes.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass

from kantoku_kafka.errors import AccessDenied, BrokerUnavailable, KantokuError, UsageError
from kantoku_kafka.kafka import handshake, tls

__all__ = ["LOOK_SECONDS", "Finding", "check_settings", "look", "nobody_at", "obstacle"]

LOOK_SECONDS = 3.0
_LOOK_AGAIN_SECONDS = 0.01
_REFUSAL_SECONDS = 0.5  # in TLS 1.3 the server judges our certificate when we are through with the handshake
_NO_MECHANISM = "NONE"  # a broker answers with those that it has
_TXN_OFFSET_COMMIT, _FENCED_SINCE, _CONSUMER_HEARTBEAT = 28, 3, 68  # requests of Kafka's protocol, and a version
_EXPIRED, _HOSTNAME, _ADDRESS = 10, 62, 64  # X509_V_ERR_... of OpenSSL


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what it was, what came of it, and the error if it failed."""

    check: str
    detail: str
    error: KantokuError | None = None


def check_settings(config: Mapping[str, object]) -> None:
    """Raise UsageError if a file that librdkafka's settings name cannot be used, or SASL is without a mechanism."""
    is_sasl = any(endpoint.mechanism for endpoint in _endpoints(config))
    if is_sasl and not {"sasl.mechanism", "sasl.mechanisms"} & config.keys():
        raise UsageError(
            "security.protocol asks for SASL, and sasl.mechanism is not set: set it to PLAIN, SCRAM-SHA-256, "
            "SCRAM-SHA-512 or OAUTHBEARER, and what that needs, such as sasl.username and sasl.password."
        )


def obstacle(config: Mapping[str, object]) -> KantokuError | None:
    """The first thing in the way to the bootstrap servers; None if nothing was found. Takes 3 s at most."""
    return look(config)[-1].error


def look(config: Mapping[str, object], seconds: float = LOOK_SECONDS) -> list[Finding]:
    """DNS, TCP, TLS if we speak it, SASL (or just Kafka's protocol), in this order, up to the one that fails.

    All bootstrap servers are looked at, at once; what is told is how far the best of them lets us get.

    Parameters:
        config: librdkafka's settings, as a client is given them.
        seconds: how long at most; default 3.
    """
    try:
        walks = [_Walk(endpoint, seconds) for endpoint in _endpoints(config)]
    except UsageError as error:
        return [Finding("settings", str(error), error)]
    for walk in walks:
        walk.start()
    return max((walk.result() for walk in walks), key=lambda found: (found[-1].error is None, len(found)))


def nobody_at(addresses: Iterable[str], seconds: float) -> bool:
    """Whether it is certain that none of these (``HOST:PORT``) is known here and takes TCP connections.

    Parameters:
        seconds: how long to find out at most; what has no answer by then may be there.
    """
    walks = [
        _Walk(_Endpoint(address, mechanism=None, context=None, certificate=None), seconds) for address in addresses
    ]
    for walk in walks:
        walk.start()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        underway = any(walk.is_alive() for walk in walks)
        if any(walk.arrived for walk in walks):
            return False
        if not underway:
            return True
        time.sleep(_LOOK_AGAIN_SECONDS)
    return False


class _Walk(threading.Thread):
    """The steps to one endpoint. A thread that keeps nobody from ending: to look up a name may take for ever."""

    def __init__(self, endpoint: _Endpoint, seconds: float) -> None:
        super().__init__(name="kantoku-look", daemon=True)
        self._endpoint = endpoint
        self._steps = endpoint.steps()
        self._deadline = time.monotonic() + seconds
        self._found: list[Finding] = []

    def run(self) -> None:
        for name, step in self._steps:
            try:
                half = (self._deadline - time.monotonic()) / 2  # where one way failed, a step tries the other
                self._found.append(Finding(name, step(max(0.1, half))))
            except KantokuError as error:
                self._found.append(Finding(name, str(error), error))
                return

    @property
    def arrived(self) -> bool:
        """All steps went well."""
        return len(self._found) == len(self._steps) and self._found[-1].error is None

    def result(self) -> list[Finding]:
        """What was found by the end; a step that takes longer has failed."""
        self.join(max(0.0, self._deadline - time.monotonic()))
        found, steps = self._found[:], self._steps
        if len(found) == len(steps) or (found and found[-1].error):
            return found
        name, _ = steps[len(found)]
        slow = BrokerUnavailable(f"{name} of {self._endpoint.address} takes too long: check network and DNS.")
        error = slow if name in ("DNS", "TCP") else self._endpoint.silence()
        return [*found, Finding(name, str(error), error)]


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """One bootstrap server, and how we speak to it.

    Attributes:
        mechanism: None without SASL; ``context``: None without TLS.
        certificate: whether we show one of our own; None: librdkafka does, but we cannot here.
    """

    address: str
    mechanism: str | None
    context: ssl.SSLContext | None
    certificate: bool | None

    @property
    def host(self) -> str:
        """Without the brackets of an IPv6 address."""
        return self.address.rpartition(":")[0].strip("[]")

    def steps(self) -> list[tuple[str, Callable[[float], str]]]:
        """What is looked at, in order; each is told how many seconds it has."""
        steps = [("DNS", self._resolve), ("TCP", self._connect)]
        if self.context is not None:
            steps.append(("TLS", self._secure))
        if self.certificate is not None:
            steps.append(("SASL" if self.mechanism else "Kafka", self._speak))
        return steps

    def _resolve(self, _: float) -> str:
        try:
            found = socket.getaddrinfo(self.host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise BrokerUnavailable(
                f"The name {self.host} is not known here: check the host in --bootstrap-servers, or DNS."
            ) from error
        return f"{self.host} is {', '.join(sorted({str(address[0]) for *_, address in found}))}"

    def _connect(self, seconds: float) -> str:
        self._socket(seconds).close()
        return f"{self.address} takes connections"

    def _secure(self, seconds: float) -> str:
        try:
            wire = self._encrypted(seconds)
        except ssl.SSLCertVerificationError as error:
            raise AccessDenied(self._distrusted(error)) from error
        except OSError as error:
            if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
                raise self._refusal() from error
            raise self._no_tls(seconds) from error
        with closing(wire):
            if self.certificate is not None:
                self._await_refusal(wire)
            return f"{wire.version()}, by a certificate that we trust"

    def _await_refusal(self, wire: ssl.SSLSocket) -> None:
        wire.settimeout(_REFUSAL_SECONDS)
        try:
            wire.recv(1)
        except TimeoutError:  # it waits for us, and is content
            return
        except OSError as error:
            raise self._refusal() from error
        raise self._refusal()

    def _speak(self, seconds: float) -> str:
        """Kafka's protocol, with SASL just where we use it."""
        try:
            with closing(self._encrypted(seconds) if self.context else self._socket(seconds)) as wire:
                answer = handshake.ask(wire, self.mechanism or _NO_MECHANISM)
        except OSError as error:
            raise self.silence() from error
        if answer is None:
            raise self._stranger() if self.context else self._no_kafka(seconds)
        if not answer.is_sasl and self.mechanism:
            raise UsageError(
                f"{self.address} takes no SASL: set security.protocol={self._protocol(sasl=False)}, or name the port "
                "of the listener that does."
            )
        offered = ", ".join(answer.mechanisms)
        if answer.is_sasl and not self.mechanism:
            raise UsageError(
                f"{self.address} wants SASL: set security.protocol={self._protocol(sasl=True)}, sasl.mechanism (one of "
                f"{offered}) and what that needs, such as sasl.username and sasl.password."
            )
        if self.mechanism and self.mechanism not in answer.mechanisms:
            raise UsageError(f"{self.address} offers SASL by {offered}, not by {self.mechanism}: set sasl.mechanism.")
        taken = self.mechanism or "us without SASL"
        return f"{self.address} is a Kafka broker and takes {taken}; {self._judge_versions(seconds)}"

    def _judge_versions(self, seconds: float) -> str:
        """Which group protocols it takes. Groups of an older one would let anybody commit (KIP-447)."""
        try:
            with closing(self._encrypted(seconds) if self.context else self._socket(seconds)) as wire:
                versions = handshake.versions(wire)
        except (OSError, struct.error) as error:
            raise self.silence() from error
        if versions.get(_TXN_OFFSET_COMMIT, 0) < _FENCED_SINCE:
            raise UsageError(
                f"{self.address} runs a Kafka older than 2.5, which does not keep an executor that was given up from "
                "committing: results could be doubled. Take a newer cluster."
            )
        return "group protocols classic and consumer" if _CONSUMER_HEARTBEAT in versions else "group protocol classic"

    def _socket(self, seconds: float) -> socket.socket:
        try:
            return socket.create_connection((self.host, int(self.address.rpartition(":")[2])), seconds)
        except OSError as error:
            raise BrokerUnavailable(
                f"No broker answers at {self.address} ({error.strerror or 'in time'}): check --bootstrap-servers, that "
                "Kafka runs there and that no firewall is between, or start one with: kantoku-kafka dev broker"
            ) from error

    def _encrypted(self, seconds: float, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        use = context or self.context
        assert use is not None
        return use.wrap_socket(self._socket(seconds), server_hostname=self.host)

    def _protocol(self, *, sasl: bool | None = None, encrypted: bool | None = None) -> str:
        """The value of security.protocol with one part changed."""
        with_sasl = bool(self.mechanism) if sasl is None else sasl
        with_tls = bool(self.context) if encrypted is None else encrypted
        return ("SASL_" if with_sasl else "") + ("SSL" if with_tls else "PLAINTEXT")

    def _distrusted(self, error: ssl.SSLCertVerificationError) -> str:
        why = error.verify_message
        if error.verify_code in (_HOSTNAME, _ADDRESS):
            return (
                f"The certificate of {self.address} is not for {self.host}: connect by a name that it is for, or have "
                "one issued for this name."
            )
        if error.verify_code == _EXPIRED:
            return f"The certificate of {self.address} has expired: whoever runs the broker has to renew it."
        return (
            f"The certificate of {self.address} is not signed by an authority that we trust ({why}): set "
            "ssl.ca.location to the file with the certificate of the one that signs the brokers'."
        )

    def _refusal(self) -> AccessDenied:
        what = "our client certificate" if self.certificate else "us without a client certificate"
        return AccessDenied(
            f"The broker at {self.address} refuses {what}: set ssl.certificate.location and ssl.key.location to one "
            "that is valid now and signed by an authority that the broker trusts."
        )

    def _no_tls(self, seconds: float) -> KantokuError:
        """Our handshake was not answered by another one."""
        try:
            with closing(self._socket(seconds)) as wire:
                answer = handshake.ask(wire, _NO_MECHANISM)
        except TimeoutError:
            return self.silence()
        if answer is None:
            return self._stranger()
        return UsageError(
            f"{self.address} does not speak TLS: set security.protocol={self._protocol(encrypted=False)}, or name the "
            "port of the listener that does."
        )

    def _no_kafka(self, seconds: float) -> KantokuError:
        """Something else than Kafka's protocol was answered to plain text."""
        anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
        with suppress(OSError), closing(self._encrypted(seconds, anybody)):
            return UsageError(
                f"{self.address} speaks TLS: set security.protocol={self._protocol(encrypted=True)} and, for an "
                "authority of your own, ssl.ca.location; or name the port of the listener without TLS."
            )
        return self._stranger()

    def silence(self) -> BrokerUnavailable:
        """What to raise when nothing comes."""
        return BrokerUnavailable(
            f"{self.address} takes connections, but does not answer: is the broker well, and is it one?"
        )

    def _stranger(self) -> BrokerUnavailable:
        return BrokerUnavailable(f"What answers at {self.address} is no Kafka broker: check --bootstrap-servers.")


def _endpoints(config: Mapping[str, object]) -> list[_Endpoint]:
    """Raises UsageError."""
    settings = {name: str(value) for name, value in config.items()}
    return [_endpoint(address.strip(), settings) for address in settings["bootstrap.servers"].split(",")]


def _endpoint(address: str, config: Mapping[str, str]) -> _Endpoint:
    scheme, _, place = address.rpartition("://")
    protocol = (scheme or config.get("security.protocol", "plaintext")).upper()
    encrypted = protocol.endswith("SSL")
    mechanism = config.get("sasl.mechanism", config.get("sasl.mechanisms", "GSSAPI"))
    return _Endpoint(
        place,
        mechanism if protocol.startswith("SASL") else None,
        tls.context_of(config) if encrypted else None,
        None if encrypted and not tls.is_whole(config) else encrypted and tls.has_certificate(config),
    )
