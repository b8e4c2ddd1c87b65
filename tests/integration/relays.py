"""What stands between a client and a server: one that is slow, one that says nothing."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from securing import HOST

_CHUNK_BYTES = 1 << 16


@contextmanager
def slow_relay(target: str, delay_seconds: float) -> Iterator[str]:
    """An address whose answers are those of the target, each later by so long."""
    host, _, port = target.rpartition(":")

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection((host, int(port))) as upstream:
                threading.Thread(target=_copy, args=(self.request, upstream, 0.0), daemon=True).start()
                _copy(upstream, self.request, delay_seconds)

    with socketserver.ThreadingTCPServer((HOST, 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"{HOST}:{server.server_address[1]}"
        server.shutdown()


@contextmanager
def silence() -> Iterator[str]:
    """An address that takes connections, and never answers."""
    with socket.create_server((HOST, 0), backlog=50) as listening:
        yield f"{HOST}:{listening.getsockname()[1]}"


def _copy(source: socket.socket, to: socket.socket, delay_seconds: float) -> None:
    with suppress(OSError):
        while data := source.recv(_CHUNK_BYTES):
            time.sleep(delay_seconds)
            to.sendall(data)
        to.shutdown(socket.SHUT_WR)
