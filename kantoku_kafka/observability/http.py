"""A small HTTP server in a thread of its own: what it shows is read from others, and no client can hold it up."""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

from kantoku_kafka.errors import UsageError

__all__ = ["Address", "Page", "StatusServer"]

_log = logging.getLogger(__name__)
_ADDRESS = re.compile(r"(?:\[(?P<ipv6>[^\[\]]+)\]|(?P<host>[^\[\]:]*)):(?P<port>[0-9]{1,5})", re.DOTALL)
_LAST_PORT = 65535
_MOST_CONNECTIONS = 16
_CLIENT_SECONDS = 5.0


class Address(NamedTuple):
    """Where to listen. An empty host: on all IPv4 addresses; port 0: any that is free."""

    host: str
    port: int

    @classmethod
    def of(cls, text: str) -> Address:
        """From ``HOST:PORT``, ``[IPV6]:PORT`` or ``:PORT``. Raises UsageError."""
        found = _ADDRESS.fullmatch(text)
        if found is None or int(found["port"]) > _LAST_PORT:
            raise UsageError(f"--http takes HOST:PORT, [IPV6]:PORT or :PORT, not {text!r}.")
        return cls(found["ipv6"] or found["host"] or "", int(found["port"]))

    def plus(self, number: int) -> Address:
        """So many ports further. Raises UsageError."""
        if self.port and self.port + number > _LAST_PORT:
            raise UsageError(f"--http: process {number} would need port {self.port + number}, and there is none.")
        return self._replace(port=self.port and self.port + number)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Page(NamedTuple):
    """An answer."""

    status: int
    content_type: str
    body: bytes


class StatusServer(ThreadingHTTPServer):
    """Answers from the end of the constructor to the end of the ``with`` block.

    Parameters:
        address: where to listen.
        pages: by path, what answers; called in a thread of the request's own, with its header ``Accept``.

    Raises:
        UsageError: the address is not to be had.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: Address, pages: Mapping[str, Callable[[str], Page]]) -> None:
        self.pages = pages
        self._connections: dict[socket.socket, None] = {}  # the oldest first
        self._guard = threading.Lock()
        try:
            family, *_, place = socket.getaddrinfo(address.host or "0.0.0.0", address.port)[0]
            self.address_family = family
            super().__init__((str(place[0]), address.port), _Handler)
        except (OSError, UnicodeError) as error:  # a name that cannot be
            reason = getattr(error, "strerror", None) or str(error)
            raise UsageError(f"--http: {address} cannot be listened on: {reason}. Choose another port.") from error
        os.register_at_fork(after_in_child=self.socket.close)  # what a task forks may outlive us, and must not listen
        self.address = Address(str(self.server_address[0]), self.server_address[1])
        self._thread = threading.Thread(target=self.serve_forever, name="kantoku-http", daemon=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def __enter__(self) -> Self:
        return self

    def server_bind(self) -> None:
        """Without asking the name server what our name is."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]  # as typeshed has it

    def process_request(self, request: Any, client_address: Any) -> None:
        """Of too many connections the oldest one ends: whoever dawdles does not shut others out."""
        with self._guard:
            self._connections[request] = None
            if len(self._connections) > _MOST_CONNECTIONS:
                oldest = next(iter(self._connections))
                del self._connections[oldest]
                _cut(oldest)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._guard:
            self._connections.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, *_: object) -> None:
        """Clients go away: that is nobody's concern."""
        _log.debug("a request has failed", exc_info=True, extra={"action": "http"})


def _cut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:  # it has gone by itself
        return


class _Handler(BaseHTTPRequestHandler):
    """One request a connection: HTTP/1.0."""

    server: StatusServer
    server_version, sys_version = "kantoku-kafka", ""
    timeout = _CLIENT_SECONDS

    def do_GET(self) -> None:
        page = self._page()
        self.send_response(page.status)
        self.send_header("Content-Type", page.content_type)
        self.send_header("Content-Length", str(len(page.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page.body)

    do_HEAD = do_GET  # noqa: N815 - as before

    def _page(self) -> Page:
        pages = self.server.pages
        answer = pages.get(self.path.partition("?")[0])
        if answer is None:
            return Page(404, "text/plain; charset=utf-8", f"There are {', '.join(pages)}.\n".encode())
        return answer(self.headers.get("Accept", ""))

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - so it is there
        _log.debug(format, *arguments, extra={"action": "http"})
