"""The examples as their first lines say: topics, an executor, the script."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from executors import ExecutorUnderTest
from PIL import Image

from kantoku_kafka.testing.broker import BrokerHandle

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def here(tmp_path: Path, kantoku_broker: BrokerHandle) -> Path:
    """The examples for this broker, in a directory of their own."""
    for path in EXAMPLES.glob("*.py"):
        code = re.sub(
            r'Kantoku\("(\w+)"\)',
            rf'Kantoku("\1", bootstrap_servers="{kantoku_broker.bootstrap_servers}")',
            path.read_text("utf-8"),
        )
        (tmp_path / path.name).write_text(code, "utf-8")
    return tmp_path


def run(here: Path, broker: BrokerHandle, name: str, namespace: str, *arguments: str) -> str:
    app = f"{name}:kan"
    create = [sys.executable, "-m", "kantoku_kafka", "topics", "create", app, "--yes"]
    subprocess.run(create, cwd=here, check=True, capture_output=True)
    with ExecutorUnderTest(broker.bootstrap_servers, namespace, log=here / "log", app=app, cwd=here):
        done = subprocess.run(
            [sys.executable, f"{name}.py", *arguments],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_thumbnails(here: Path, kantoku_broker: BrokerHandle) -> None:
    Image.new("RGB", (640, 320), "red").save(here / "red.jpg")
    (here / "text.jpg").write_text("not a picture")
    said = run(here, kantoku_broker, "thumbnails", "pictures", "red.jpg", "text.jpg")
    with Image.open(here / "red.thumb.png") as small:
        assert small.size == (128, 64)
    assert said == "text.jpg: this is no picture\n"


def test_word_count(here: Path, kantoku_broker: BrokerHandle) -> None:
    (here / "text").write_text("one two two\n" * 1000)
    assert run(here, kantoku_broker, "word_count", "words", "text") == "text [('two', 2000), ('one', 1000)]\n"


def test_orders(here: Path, kantoku_broker: BrokerHandle) -> None:
    place = [sys.executable, "orders.py", "place", "7", "8", "9"]
    subprocess.run(place, cwd=here, check=True, capture_output=True, timeout=60)
    said = run(here, kantoku_broker, "orders", "shipping", "watch", "3").splitlines()
    assert sorted(said) == [f'{n} b\'OK\' b\'{{"order_id": {n}, "parcel": "P-000{n}"}}\'' for n in (7, 8, 9)]


@pytest.fixture
def server() -> Iterator[str]:
    """A service that has something at ``/there``; it keeps the idempotency keys it saw."""

    class Service(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            there = self.path == "/there" and len(self.headers["Idempotency-Key"]) == 36
            self.send_response(200 if there else 404)
            self.end_headers()
            self.wfile.write(b"hello" if there else b"")

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as service:
        thread = threading.Thread(target=service.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{service.server_address[1]}"
        service.shutdown()
        thread.join()


def test_http_calls(here: Path, kantoku_broker: BrokerHandle, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    there, missing, dead = f"{server}/there", f"{server}/missing", "http://127.0.0.1:9/"
    said = run(here, kantoku_broker, "http_calls", "calls", there, missing, dead).splitlines()
    assert f'{there}: {{"status": 200, "bytes": 5}}' in said
    assert f"{missing}: {missing} answers 404" in said
    assert any(line.startswith(f"{dead}: {dead} does not answer") for line in said)
