"""What --http serves: the address, the probes' reasons, and a server that no client can hold up. No Kafka."""

from __future__ import annotations

import json
import socket
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kantoku_kafka import Kantoku
from kantoku_kafka.cli.status import shown
from kantoku_kafka.errors import UsageError
from kantoku_kafka.meter import TASKS, Vitals
from kantoku_kafka.observability.health import live, ready, started
from kantoku_kafka.observability.http import Address, Page, StatusServer

WELL = Vitals(turned_at=1_000.0, stopping=False, assigned=3, patience_seconds=300.0)


def test_who_is_well_has_no_reasons() -> None:
    assert started(WELL, 1_010.0) == live(WELL, 1_010.0) == ready(WELL, 1_010.0) == []


def test_who_has_not_connected_lives_and_is_not_ready() -> None:
    new = Vitals(None, False, 0, 300.0)
    assert live(new, 1e9) == []
    assert ready(new, 1e9) == started(new, 1e9) == ["it has not connected yet"]


def test_who_hangs_is_soon_not_ready_and_lives_until_its_group_gives_it_up() -> None:
    assert ready(WELL, 1_031.0) == ["its loop has not gone round for 31 s"]
    assert live(WELL, 1_299.0) == []
    assert live(WELL, 1_301.0) == ["its loop has not gone round for 301 s"]


def test_who_drains_or_has_nothing_lives_and_is_not_ready() -> None:
    draining, idle = WELL._replace(stopping=True), WELL._replace(assigned=0)
    assert live(draining, 1_010.0) == live(idle, 1_010.0) == []
    assert ready(draining, 1_010.0) == ["it drains"]
    assert "no partitions" in ready(idle, 1_010.0)[0]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", Address("127.0.0.1", 80)),
        (":9100", Address("", 9100)),
        ("[::1]:1", Address("::1", 1)),
        ("host.example:65535", Address("host.example", 65535)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert Address.of(text) == address and str(address) == text


@pytest.mark.parametrize(
    "text", ["", "9100", "host", "host:", "host:port", "h:65536", "::1:80", "[::1]", "[a:1", "h:-1"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="--http"):
        Address.of(text)


@given(st.text())
def test_any_text_is_an_address_or_a_usage_error(text: str) -> None:
    try:
        address = Address.of(text)
    except UsageError:
        return
    assert Address.of(str(address)) == address


def test_each_process_has_a_port_of_its_own() -> None:
    assert Address("h", 9100).plus(3) == Address("h", 9103)
    assert Address("h", 0).plus(3) == Address("h", 0)
    with pytest.raises(UsageError, match="65537"):
        Address("h", 65535).plus(2)


# --- the server


@pytest.fixture
def server() -> Iterator[StatusServer]:
    def fails(_: str) -> Page:
        raise ValueError("a page that fails")

    pages = {"/ok": lambda _: Page(200, "text/plain", b"fine"), "/fails": fails}
    with StatusServer(Address("127.0.0.1", 0), pages) as found:
        yield found


def get(server: StatusServer, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{server.address}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def connect(server: StatusServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.address.port), timeout=30)


def test_pages_are_served_and_others_are_named(server: StatusServer) -> None:
    assert get(server, "/ok?x=1") == (200, "fine")
    assert get(server, "/other") == (404, "There are /ok, /fails.\n")


def test_a_page_that_fails_ends_its_own_request(server: StatusServer, capfd: pytest.CaptureFixture[str]) -> None:
    with connect(server) as client:
        client.sendall(b"GET /fails HTTP/1.0\r\n\r\n")
        assert client.recv(100) == b""
    assert get(server, "/ok") == (200, "fine")
    assert capfd.readouterr() == ("", "")


def test_who_dawdles_does_not_shut_others_out(server: StatusServer) -> None:
    before = threading.active_count()
    with ExitStack() as stack:
        idle = [stack.enter_context(connect(server)) for _ in range(60)]
        for client in idle[::2]:
            client.sendall(b"GET /ok HTTP/1.1\r\nX-Slow: ")
        assert get(server, "/ok") == (200, "fine")
        assert idle[0].recv(10) == b"", "the oldest one was ended"
        assert threading.active_count() <= before + 60
    assert get(server, "/ok") == (200, "fine")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\0" * 100,
        b"GET\r\n\r\n",
        b"GET /ok HTTP/9.9\r\n\r\n",
        b"G" * 100_000,
        b"GET /ok HTTP/1.0\r\n" + b"a: b\r\n" * 500,
    ],
)
def test_what_is_no_request_hurts_nobody(server: StatusServer, request_bytes: bytes) -> None:
    with connect(server) as client:
        with suppress(OSError):  # it may have hung up by now
            client.sendall(request_bytes)
            client.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            while client.recv(1 << 16):
                pass
    assert get(server, "/ok") == (200, "fine")


def test_an_address_that_is_taken_ends_in_a_sentence(server: StatusServer) -> None:
    with pytest.raises(UsageError, match=rf"--http: {server.address} cannot be listened on: .*in use"):
        StatusServer(server.address, {})
    with pytest.raises(UsageError, match=r"--http: .* cannot be listened on"):
        StatusServer(Address("a" * 70, 1), {})


# --- what a process shows


def test_without_the_extra_probes_answer_and_metrics_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    kan = Kantoku("shop")
    with shown("127.0.0.1:0", kan, lambda: WELL._replace(turned_at=None), [TASKS], None) as server:
        assert isinstance(server, StatusServer)
        status, text = get(server, "/metrics")
        assert status == 501 and "kantoku-kafka[prometheus]" in text
        assert get(server, "/livez") == (200, '{"status": "ok", "reasons": []}\n')
        status, text = get(server, "/readyz")
        assert status == 503
        assert json.loads(text) == {"status": "failing", "reasons": ["it has not connected yet"]}
        assert get(server, "/startupz")[0] == 503
    assert kan.meters == [], "nothing is measured that nobody can see"


def test_without_an_address_nothing_is_measured() -> None:
    kan = Kantoku("shop")
    with shown(None, kan, lambda: WELL, [TASKS], None):
        assert kan.meters == []
