"""A secured cluster for tests: certificates, a token endpoint, and a real broker with a listener for every manner."""

from __future__ import annotations

import base64
import json
import os
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qs

from confluent_kafka.admin import AdminClient, ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

from kantoku_kafka.dev import EmbeddedBroker
from kantoku_kafka.dev.layout import reserved_ports

HOST = "127.0.0.1"
ROLES = ("spawner", "executor", "observer", "scheduler", "admin")
MODES = ("plain", "scram", "mtls", "oauth")
SCRAM = {"SCRAM-SHA-256": ScramMechanism.SCRAM_SHA_256, "SCRAM-SHA-512": ScramMechanism.SCRAM_SHA_512}


def password_of(user: str) -> str:
    """With what breaks naive files and regular expressions."""
    return f'{user}-pa$$ "word\\;=#1'


class Authority:
    """A certificate authority in a directory."""

    def __init__(self, folder: Path, name: str = "test-ca") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._name = _named(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        certificate = self._signed(name, self._key).add_extension(constraints, critical=True)
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(_pem(certificate.sign(self._key, hashes.SHA256())))

    def issue(
        self,
        name: str,
        *,
        subject: str | None = None,
        hosts: tuple[str, ...] = (),
        days: int = 30,
        password: str | None = None,
    ) -> tuple[Path, Path]:
        """The files of a certificate and its key, valid for so many days, or until so many days ago.

        Parameters:
            name: of the files.
            subject: whose it is; default: as the files.
            hosts: DNS names and addresses of a server.
            password: of the key.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        request = self._signed(subject or name, key, days)
        if hosts:
            request = request.add_extension(x509.SubjectAlternativeName([*map(_general_name, hosts)]), critical=False)
        certificate, secret = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        certificate.write_bytes(_pem(request.sign(self._key, hashes.SHA256())))
        encryption = (
            serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
        )
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        secret.write_bytes(key.private_bytes(encoding, form, encryption))
        return certificate, secret

    def _signed(self, name: str, key: ec.EllipticCurvePrivateKey, days: int = 30) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(_named(name))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=100))
            .not_valid_after(now + timedelta(days=days))
        )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


class TokenEndpoint:
    """An OAuth server: tokens for whoever has the right secret, and the keys to check them by.

    Attributes:
        lifetime_seconds: of the tokens given from now on; negative: they have expired already.
        issued: the tokens that were given.
    """

    SECRET = "client-s3cret/of+everybody"

    def __init__(self, certificate: tuple[Path, Path] | None = None) -> None:
        """With a certificate and its key it speaks HTTPS."""
        self.lifetime_seconds = 300.0
        self.issued: list[str] = []
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(200, endpoint._keys())

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                given = self.headers.get("Authorization", "").removeprefix("Basic ")
                client, _, secret = base64.b64decode(given).decode().partition(":")
                if form["grant_type"] != ["client_credentials"] or secret != endpoint.SECRET:
                    self._answer(401, {"error": "invalid_client"})
                else:
                    self._answer(200, {"access_token": endpoint.token(client), "token_type": "Bearer"})

            def _answer(self, status: int, content: Mapping[str, Any]) -> None:
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, name="tokens", daemon=True).start()
        self.url = f"http{'s' if certificate else ''}://{HOST}:{self._server.server_port}"

    def token(self, subject: str) -> str:
        """A JWT of this subject."""
        now = time.time()
        claims = {
            "iss": self.url,
            "sub": subject,
            "aud": "kafka",
            "iat": int(now),
            "exp": int(now + self.lifetime_seconds),
        }
        signed = b".".join(_b64(json.dumps(part).encode()) for part in ({"alg": "RS256", "kid": "1"}, claims))
        token = (signed + b"." + _b64(self._key.sign(signed, padding.PKCS1v15(), hashes.SHA256()))).decode()
        self.issued.append(token)
        return token

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _keys(self) -> Mapping[str, Any]:
        numbers = self._key.public_key().public_numbers()
        n, e = (_b64(value.to_bytes((value.bit_length() + 7) // 8)).decode() for value in (numbers.n, numbers.e))
        return {"keys": [{"kty": "RSA", "kid": "1", "use": "sig", "alg": "RS256", "n": n, "e": e}]}


def _b64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


@dataclass
class SecuredCluster:
    """A broker that lets nobody do what no ACL allows.

    Attributes:
        broker: the embedded broker; its own address is that of the super user, without any security.
        servers: the address for each of ``plain``, ``scram``, ``oauth`` (SASL_SSL), ``mtls`` and ``tls`` (SSL); who
            connects to ``astray`` is sent on to a host that does not exist.
    """

    folder: Path
    broker: EmbeddedBroker = field(init=False)
    tokens: TokenEndpoint = field(default_factory=TokenEndpoint)
    servers: dict[str, str] = field(init=False)

    @property
    def super_user(self) -> dict[str, str]:
        """Settings of who may do anything."""
        return {"bootstrap.servers": self.broker.bootstrap_servers}

    @cached_property
    def authority(self) -> Authority:
        return Authority(self.folder)

    def client(self, mode: str, user: str) -> dict[str, str]:
        """librdkafka's settings for one user in one of :data:`MODES`."""
        common = {"bootstrap.servers": self.servers[mode], "ssl.ca.location": str(self.authority.file)}
        if mode == "mtls":
            certificate, key = self.folder / f"{user}.crt", self.folder / f"{user}.key"
            if not key.exists():
                self.authority.issue(user, password=password_of(user))
            return common | {
                "security.protocol": "SSL",
                "ssl.certificate.location": str(certificate),
                "ssl.key.location": str(key),
                "ssl.key.password": password_of(user),
            }
        common["security.protocol"] = "SASL_SSL"
        if mode == "oauth":
            return common | {
                "sasl.mechanism": "OAUTHBEARER",
                "sasl.oauthbearer.method": "oidc",
                "sasl.oauthbearer.token.endpoint.url": f"{self.tokens.url}/token",
                "sasl.oauthbearer.client.id": user,
                "sasl.oauthbearer.client.secret": self.tokens.SECRET,
            }
        mechanism = "PLAIN" if mode == "plain" else "SCRAM-SHA-512"
        return common | {"sasl.mechanism": mechanism, "sasl.username": user, "sasl.password": password_of(user)}

    def set_password(self, user: str, password: str) -> None:
        """For both SCRAM mechanisms; waits until the broker knows it."""
        admin = AdminClient(self.super_user)
        for mechanism in SCRAM.values():  # one request may not name a user twice
            wanted = UserScramCredentialUpsertion(user, ScramCredentialInfo(mechanism, 4096), password.encode())
            admin.alter_user_scram_credentials([wanted])[user].result(10)


@contextmanager
def secured_cluster(
    folder: Path, users: tuple[str, ...] = ROLES, more: Mapping[str, str] | None = None
) -> Iterator[SecuredCluster]:
    """A cluster in which these users exist, by password, certificate and token, and may do nothing yet.

    Parameters:
        more: settings of the broker.
    """
    cluster = SecuredCluster(folder)
    certificate, key = cluster.authority.issue("broker", hosts=(HOST,))
    (folder / "broker.pem").write_bytes(key.read_bytes() + certificate.read_bytes())
    urls = f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={cluster.tokens.url}/keys"
    with reserved_ports(4) as ports, patch.dict(os.environ, {"JDK_JAVA_OPTIONS": urls}):
        sasl, mtls, tls, astray = (f"{HOST}:{port}" for port in ports)
        cluster.servers = {"plain": sasl, "scram": sasl, "oauth": sasl, "mtls": mtls, "tls": tls, "astray": astray}
        listeners = {
            "SASL": (sasl, "SASL_SSL", sasl),
            "MTLS": (mtls, "SSL", mtls),
            "TLS": (tls, "SSL", tls),
            "ASTRAY": (astray, "PLAINTEXT", "no-such-host.invalid:9092"),
        }

        def settings(_: int, chosen: Mapping[str, str]) -> dict[str, str]:
            return {**_listening(chosen, listeners), **_authenticating(folder, cluster, users), **(more or {})}

        cluster.broker = EmbeddedBroker(short_lived=True, settings=settings)
        with cluster.broker:
            for user in users:
                cluster.set_password(user, password_of(user))
            yield cluster
    cluster.tokens.close()


def _listening(chosen: Mapping[str, str], listeners: Mapping[str, tuple[str, str, str]]) -> dict[str, str]:
    """With listeners besides, each by its address, its protocol, and the address that it is said to have."""
    more = [f"{name}://{address}" for name, (address, _, _) in listeners.items()]
    said = [f"{name}://{address}" for name, (_, _, address) in listeners.items()]
    protocols = [f"{name}:{protocol}" for name, (_, protocol, _) in listeners.items()]
    name = "listener.security.protocol.map"
    return {
        "listeners": ",".join([chosen["listeners"], *more]),
        "advertised.listeners": ",".join([chosen["advertised.listeners"], *said]),
        name: ",".join([chosen[name], *protocols]),
    }


def _authenticating(folder: Path, cluster: SecuredCluster, users: tuple[str, ...]) -> dict[str, str]:
    module = "org.apache.kafka.common.security"
    plain = " ".join(f"user_{user}={json.dumps(password_of(user))}" for user in users)
    listener = "listener.name.sasl"
    return {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(folder / "broker.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(cluster.authority.file),
        "ssl.principal.mapping.rules": "RULE:^CN=(.*?)(,.*)?$/$1/,DEFAULT",
        "listener.name.mtls.ssl.client.auth": "required",
        f"{listener}.sasl.enabled.mechanisms": ",".join(["PLAIN", *SCRAM, "OAUTHBEARER"]),
        f"{listener}.plain.sasl.jaas.config": f"{module}.plain.PlainLoginModule required {plain};",
        **{
            f"{listener}.{name.lower()}.sasl.jaas.config": f"{module}.scram.ScramLoginModule required;"
            for name in SCRAM
        },
        f"{listener}.oauthbearer.sasl.jaas.config": f"{module}.oauthbearer.OAuthBearerLoginModule required;",
        f"{listener}.oauthbearer.sasl.server.callback.handler.class": (
            f"{module}.oauthbearer.OAuthBearerValidatorCallbackHandler"
        ),
        f"{listener}.oauthbearer.sasl.oauthbearer.jwks.endpoint.url": f"{cluster.tokens.url}/keys",
        f"{listener}.oauthbearer.sasl.oauthbearer.expected.audience": "kafka",
        f"{listener}.oauthbearer.sasl.oauthbearer.expected.issuer": cluster.tokens.url,
    }
