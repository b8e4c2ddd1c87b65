"""An OpenTelemetry collector for tests: takes spans by OTLP over HTTP, as protobuf."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Span(NamedTuple):
    """What the tests ask of a span; ids in hex, ``parent`` empty for a root."""

    name: str
    kind: int
    trace: str
    id: str
    parent: str
    attributes: dict[str, Any]
    error: str
    seconds: float
    process: int


class Collector:
    """``spans``: all that came, from whatever process."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.spans: list[Span] = []

    def named(self, name: str, **attributes: object) -> list[Span]:
        """Those with this name and these attributes (``__`` stands for a dot)."""
        wanted = {key.replace("__", "."): value for key, value in attributes.items()}
        return [s for s in list(self.spans) if s.name == name and wanted.items() <= s.attributes.items()]

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            process = next((a.value.int_value for a in resource.resource.attributes if a.key == "process.pid"), 0)
            for scope in resource.scope_spans:
                self.spans += [_span(span, process) for span in scope.spans]


def _span(span: Any, process: int) -> Span:
    attributes = {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}
    seconds = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
    ids = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
    return Span(span.name, span.kind, *ids, attributes, span.status.message, seconds, process)


@contextmanager
def collecting() -> Iterator[Collector]:
    """One that listens until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.take(gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield collector
        server.shutdown()
