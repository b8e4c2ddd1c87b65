"""A registry that gives wrong answers, none, or not to us: what its clients say of it."""

from __future__ import annotations

import base64
import logging
import socket
import socketserver
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from registries import Gateway

from kantoku_kafka import BadPayload, Retryable
from kantoku_kafka.avro.framing import marked
from kantoku_kafka.errors import AccessDenied, KantokuError, RegistryUnavailable, TopicMismatch, UsageError
from kantoku_kafka.registry import Registry, RegistryAvro
from kantoku_kafka.registry.envelopes import RegistryCodec

STRING = b'{"schema": "\\"string\\""}'
DATA = marked(7) + b"\x04hi"


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    """With no registry behind it: it answers what it is told to."""
    made = Gateway("http://127.0.0.1:1")
    yield made
    made.close()


@pytest.fixture
def registry(gateway: Gateway) -> Iterator[Registry]:
    made = Registry(gateway.url.replace("http://", "http://shop:s3cret%40@"), timeout_seconds=2)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>Sign in</html>"),
        (200, b""),
        (200, b"[]"),
        (200, b"null"),
        (200, b"{}"),
        (200, b'{"schema": 5}'),
        (200, b"\xff"),
        (302, b""),
        (404, b"<html>Not found</html>"),
        (404, b'{"error_code": 404, "message": "HTTP 404 Not Found"}'),
        (429, b"{}"),
        (500, b'{"error_code": 50001}'),
        (503, b""),
    ],
)
def test_a_wrong_answer_is_none_and_the_task_is_tried_again(
    gateway: Gateway, registry: Registry, status: int, body: bytes
) -> None:
    payload = RegistryAvro(registry, "names-value")
    gateway.instead = status, body
    with pytest.raises(RegistryUnavailable, match="gave no answer about schema 7"):
        registry.schema(7)
    with pytest.raises(Retryable, match="gave no answer"):
        payload.load(DATA)
    with pytest.raises(Retryable, match="gave no answer"):
        payload.dump("hi")
    gateway.instead = 200, STRING
    assert payload.load(DATA) == "hi"
    asked = len(gateway.asked)
    assert payload.load(DATA) == "hi" and len(gateway.asked) == asked


def test_a_schema_that_is_not_there_yet_is_asked_for_again(gateway: Gateway, registry: Registry) -> None:
    payload = RegistryAvro(registry, "names-value")
    gateway.instead = 404, b'{"error_code": 40403, "message": "Schema not found"}'
    with pytest.raises(Retryable, match="does not have schema 7"):
        payload.load(DATA)
    gateway.instead = 200, STRING
    assert payload.load(DATA) == "hi"


def test_settings_that_cannot_be_are_not_the_fault_of_what_is_read() -> None:
    registry = Registry("https://127.0.0.1:1", config={"ssl.ca.location": "/nowhere.pem"})
    with pytest.raises(Retryable, match="refuses a file of its settings"):
        RegistryAvro(registry, "names-value").load(DATA)
    with pytest.raises(Retryable, match="refuses a file of its settings"):
        RegistryAvro(registry, "names-value").dump("hi")
    with pytest.raises(UsageError, match="refuses a file of its settings"):
        RegistryCodec(registry).decode_task(DATA)


@pytest.mark.parametrize("data", [b"", b"\0\0", b"{}", b"\xc3\x01" + bytes(8), DATA + b"x", DATA[:-1], marked(7)])
def test_data_that_are_none_are_bad(gateway: Gateway, registry: Registry, data: bytes) -> None:
    gateway.instead = 200, STRING
    with pytest.raises(KantokuError, match=r"do not name their schema|are not of their schema|bytes follow the data"):
        RegistryAvro(registry, "names-value").load(data)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"schema": "{\\"type\\": \\"array\\", \\"items\\": \\"null\\"}"}', "8 values a byte"),
        (b'{"schema": "message X {}", "schemaType": "PROTOBUF"}', "one of PROTOBUF"),
        (b'{"schema": "{"}', "no Avro schema"),
    ],
)
def test_a_schema_that_is_not_safe_to_read_by_makes_data_bad(
    gateway: Gateway, registry: Registry, body: bytes, said: str
) -> None:
    gateway.instead = 200, body
    with pytest.raises(BadPayload, match=said):
        RegistryAvro(registry, "names-value").load(DATA)


def test_the_subject_is_named_whose_newest_schema_is_none_for_us(gateway: Gateway, registry: Registry) -> None:
    gateway.instead = 200, b'{"id": 1, "version": 1, "schema": "message X {}", "schemaType": "PROTOBUF"}'
    with pytest.raises(UsageError, match=r"under subject names-value is none for us: .* PROTOBUF, not of Avro"):
        RegistryAvro(registry, "names-value").open(to_write=False)


def test_what_the_registry_says_of_a_refusal_stands_in_one_line(gateway: Gateway, registry: Registry) -> None:
    gateway.instead = 422, b'{"error_code": 42201, "message": "Invalid schema:\\n at line 1\\n"}'
    with pytest.raises(TopicMismatch, match=r"refuses subject names-value: Invalid schema: at line 1$"):
        registry.register("names-value", '"string"')


@pytest.mark.parametrize("status", [401, 403])
def test_who_is_not_let_in_is_told_so(gateway: Gateway, registry: Registry, status: int) -> None:
    gateway.instead = status, b'{"error_code": 40301, "message": "User is denied"}'
    with pytest.raises(AccessDenied, match="denies access to schema 7"):
        registry.schema(7)


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (401, b'{"error": "invalid_client"}', AccessDenied, "client.id and bearer.auth.client.secret"),
        (403, b"<html>", AccessDenied, "client.id and bearer.auth.client.secret"),
        (503, b"", RegistryUnavailable, "issuer.endpoint.url"),
        (200, b"{}", RegistryUnavailable, "issuer.endpoint.url"),
        (200, b"<html>Sign in</html>", RegistryUnavailable, "issuer.endpoint.url"),
        (None, b"", RegistryUnavailable, "issuer.endpoint.url"),
    ],
)
def test_who_gets_no_token_is_told_whether_it_was_refused(
    gateway: Gateway, status: int | None, body: bytes, kind: type[KantokuError], said: str
) -> None:
    gateway.instead = (200 if status is None else status), body
    bearer = {
        "credentials.source": "OAUTHBEARER",
        "client.id": "shop",
        "client.secret": "s3cret",
        "scope": "registry",
        "issuer.endpoint.url": "http://127.0.0.1:1/token" if status is None else f"{gateway.url}/token",
        "logical.cluster": "lsrc-1",
    }
    registry = Registry(gateway.url, config={f"bearer.auth.{key}": value for key, value in bearer.items()})
    with pytest.raises(kind, match=f"(?i)gives no token .*see bearer.auth.{said}") as raised:
        registry.schema(7)
    assert "s3cret" not in str(raised.value) and "/schemas" not in "".join(gateway.asked)
    registry.close()


def test_a_registry_that_says_nothing_is_not_waited_for_long() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        registry = Registry(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_seconds=0.2)
        began = time.monotonic()
        with pytest.raises(RegistryUnavailable, match="ReadTimeout"):
            registry.schema(7)
        assert time.monotonic() - began < 30
        registry.close()


@pytest.fixture
def dripping() -> Iterator[str]:
    """An address where an answer begins, comes byte by byte, and never ends."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
            with suppress(OSError):
                while not over.wait(0.05):
                    self.request.sendall(b" ")
            ended.set()

    over, ended = threading.Event(), threading.Event()
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        assert ended.wait(30), "who gave up is still connected"
        over.set()
        server.shutdown()


def test_an_answer_that_never_ends_is_not_waited_for(dripping: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kantoku_kafka.registry.client.LONGEST_SECONDS", 1.0)
    registry = Registry(f"http://{dripping}")
    with pytest.raises(RegistryUnavailable, match=r"gave no answer about schema 7 \(within 1 s\)"):
        registry.schema(7)
    registry.close()


def test_behind_one_that_says_nothing_the_next_is_asked_in_time(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kantoku_kafka.registry.connecting.LONGEST_SECONDS", 1.0)
    gateway.instead = 200, STRING
    with socket.create_server(("127.0.0.1", 0)) as silent:
        urls = f"http://127.0.0.1:{silent.getsockname()[1]},{gateway.url}"
        registry = Registry(urls, config={"timeout": "600"})
        assert registry.schema(7).parsed == "string"
        registry.close()


def test_credentials_are_sent_and_shown_nowhere(
    gateway: Gateway, registry: Registry, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    gateway.instead = 503, b""
    with pytest.raises(RegistryUnavailable) as raised:
        registry.schema(7)
    monkeypatch.setenv("KANTOKU_TEST_PASSWORD", "s3cret@")
    other = Registry(gateway.url, config={"basic.auth.user.info": "shop:${env:KANTOKU_TEST_PASSWORD}"})
    with pytest.raises(RegistryUnavailable):
        other.schema(7)
    other.close()
    expected = f"Basic {base64.b64encode(b'shop:s3cret@').decode()}"
    assert set(gateway.authorizations) == {expected}
    shown = caplog.text + str(raised.value) + repr(registry) + repr(other)
    assert gateway.url in shown and "s3cret" not in shown and expected not in shown


def test_the_next_of_several_is_asked(gateway: Gateway) -> None:
    gateway.instead = 200, STRING
    registry = Registry(f"http://127.0.0.1:1,{gateway.url}")
    assert registry.schema(7).parsed == "string"
    registry.close()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"ssl.ca.location": "/nowhere.pem"}, "refuses a file of its settings"),
        ({"ssl.ca.location": __file__}, "refuses a file of its settings"),
        ({"ssl.key.location": "k"}, r"ssl\.certificate\.location required"),
        ({"no.such.setting": "1"}, r"Unrecognized properties: no\.such\.setting"),
        ({"basic.auth.user.info": "s3cret"}, "in the form"),
        ({"timeout": "soon"}, "timeout of the schema registry is a number, 0 or more, not 'soon'"),
        ({"retries.wait.ms": "inf"}, "is a number"),
        ({"max.retries": "-1"}, "is a number"),
        ({"proxy": "shop:s3cret@proxy:3128"}, r"proxy of the schema registry is no URL .* give http"),
        ({"proxy": "http://shop:s3c/ret@proxy:3128"}, r"proxy of the schema registry is no URL"),
        ({"proxy": "http://shop:s3cret@proxy:port"}, r"proxy of the schema registry is no URL"),
        ({"proxy": 5}, r"proxy of the schema registry is no URL"),
        ({"proxy": "http://shop:s3cret@proxy:3128", "no.such": "1"}, r"Unrecognized properties: no\.such"),
        ({"basic.auth.user.info": "${env:KANTOKU_NO_SUCH}"}, "KANTOKU_NO_SUCH, which is not set"),
    ],
)
def test_a_wrong_setting_is_said_when_it_is_used(config: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        Registry("https://127.0.0.1:1", config=config).schema(7)
    assert "s3c" not in "".join(traceback.format_exception(raised.value))


def test_a_wrong_proxy_of_the_environment_is_said_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://shop:s3c/ret@proxy:3128")
    with pytest.raises(UsageError, match=r"refuses its settings, or the proxy .* HTTP_PROXY") as raised:
        Registry("http://127.0.0.1:1").schema(7)
    assert "s3c" not in "".join(traceback.format_exception(raised.value))


def test_a_locked_key_is_refused_and_its_password_not_asked_for(tmp_path: Path) -> None:
    """OpenSSL asks on the terminal that a process has: so it is one with a terminal."""
    file = tmp_path / "locked.pem"
    file.write_bytes(key_and_certificate(b"s3cret"))
    for password, said in ((None, "is missing"), ("", "is missing"), ("wrong", "is not that of"), ("s3cret", "")):
        config = {"ssl.certificate.location": str(file)} | ({} if password is None else {"ssl.key.password": password})
        code = f"""
from kantoku_kafka.errors import KantokuError
from kantoku_kafka.registry import Registry
try:
    Registry("https://127.0.0.1:1", config={config!r}, timeout_seconds=1).schema(7)
except KantokuError as error:
    print(error.exit_code, error)
"""
        command = [sys.executable, "-c", "import pty, sys; pty.spawn(sys.argv[1:])", sys.executable, "-c", code]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=True)
        text = done.stdout
        assert "Enter PEM" not in text
        expected = f"2 ssl.key.password of the schema registry {said}" if said else "3 The schema registry"
        assert text.startswith(expected), text


def test_schemas_that_refer_to_each_other_in_a_circle_make_data_bad(gateway: Gateway, registry: Registry) -> None:
    body = b"""{"subject": "a", "version": 1, "id": 1, "schema": "{\\"type\\": \\"array\\", \\"items\\": \\"A\\"}",
        "references": [{"name": "A", "subject": "a", "version": 1}]}"""
    gateway.instead = 200, body
    with pytest.raises(UsageError, match="no Avro schema"):
        registry.schema(7)


def test_numbers_may_be_texts_as_files_have_them(gateway: Gateway) -> None:
    numbers = {"timeout": "2.5", "max.retries": "1", "retries.wait.ms": "1", "cache.capacity": " 10"}
    registry = Registry(gateway.url, config=numbers)
    gateway.instead = 200, STRING
    assert registry.schema(7).text == '"string"'
    registry.close()


def test_a_certificate_that_nobody_vouches_for_is_denied(tls_server: int) -> None:
    registry = Registry(f"https://127.0.0.1:{tls_server}", timeout_seconds=2)
    with pytest.raises(AccessDenied, match=r"is not trusted: set ssl\.ca\.location"):
        registry.schema(7)
    registry.close()


def key_and_certificate(password: bytes | None = None) -> bytes:
    """PEM of both, for 127.0.0.1, signed by nobody else."""
    import datetime
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    lock = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, lock)
    return private + certificate.public_bytes(pem)


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[int]:
    """HTTPS by a certificate of its own."""
    import ssl
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    both = tmp_path / "both.pem"
    both.write_bytes(key_and_certificate())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # handshakes that clients give up
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()
