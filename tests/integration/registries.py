"""A real schema registry for tests: Apicurio, in memory; before it, a gateway that knows GUIDs and can misbehave."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from kantoku_kafka.dev import EmbeddedBrokerError
from kantoku_kafka.dev.distribution import default_cache_dir, find_java, locked
from kantoku_kafka.dev.processes import GuardedProcess

VERSION = "2.6.13.Final"
API = "/apis/ccompat/v7"
START_SECONDS, FETCH_SECONDS = 120.0, 600.0
_FETCH = """
import sys
from pathlib import Path
from jgo.maven import MavenContext
project = MavenContext(repo_cache=Path(sys.argv[1])).project("io.apicurio", "apicurio-registry-app")
print(project.at_version(sys.argv[2]).artifact("all", "tar.gz").resolve())
"""


def distribution() -> Path:
    """The folder of the program, from the cache or, the first time, from the Maven repository: 142 MB.

    Without it the test is skipped; with ``CI`` set it fails.
    """
    try:
        return _fetched(default_cache_dir())
    except (EmbeddedBrokerError, subprocess.SubprocessError, OSError, tarfile.TarError) as error:
        reason = f"no Apicurio {VERSION} to test with: {error}"
        if os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


def _fetched(cache: Path) -> Path:
    home = cache / f"apicurio-{VERSION}"
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / "apicurio.lock"):
        if not home.is_dir():
            archives, draft = cache / "apicurio-archive", cache / "apicurio-draft"
            for left in (archives, draft):
                shutil.rmtree(left, ignore_errors=True)
            command = [sys.executable, "-c", _FETCH, str(archives), VERSION]
            found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=FETCH_SECONDS)
            with tarfile.open(found.stdout.strip()) as archive:
                archive.extractall(draft, filter="data")
            draft.rename(home)
            shutil.rmtree(archives)
    return home


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Apicurio:
    """The process, on a port that it keeps when it is started again; what stood in it is gone then."""

    def __init__(self, log: Path) -> None:
        self._home, self._log = distribution(), log
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}{API}"
        self._process: GuardedProcess | None = None

    def start(self) -> None:
        command = [str(find_java()), "-Xmx256m", "-XX:TieredStopAtLevel=1", f"-Dquarkus.http.port={self.port}"]
        command += ["-Dquarkus.http.host=127.0.0.1", "-jar", f"apicurio-registry-app-{VERSION}-runner.jar"]
        with self._log.open("ab") as log:
            self._process = GuardedProcess(command, cwd=self._home, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.alive, self._log.read_text()[-2000:]
            assert time.monotonic() < deadline, self._log.read_text()[-2000:]
            time.sleep(0.1)

    def kill(self) -> None:
        if self._process is not None:
            self._process.process.kill()
            self._process.join(30)
            self._process = None

    def restart(self) -> None:
        self.kill()
        self.start()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/subjects", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


class Gateway:
    """Before a registry: adds GUIDs to its answers, as Confluent's has them since 8.0 and Apicurio does not; and gives
    others instead.

    Attributes:
        instead: status and body of every answer, while it is set.
        asked, authorizations: the paths, in their order, and the headers of that name.
    """

    def __init__(self, registry_url: str) -> None:
        self.instead: tuple[int, bytes] | None = None
        self.asked: list[str] = []
        self.authorizations: list[str | None] = []
        self.registry_url = registry_url
        self._by_guid: dict[str, bytes] = {}
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(None)

            def do_POST(self) -> None:
                self._answer(self.rfile.read(int(self.headers["Content-Length"])))

            def _answer(self, body: bytes | None) -> None:
                gateway.asked.append(self.path)
                gateway.authorizations.append(self.headers["Authorization"])
                status, said = gateway.instead or gateway._answer_to(self.path, body)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer_to(self, path: str, body: bytes | None) -> tuple[int, bytes]:
        if path.startswith("/schemas/guids/"):
            known = self._by_guid.get(path.rpartition("/")[2])
            return (200, known) if known else (404, b'{"error_code": 40403, "message": "Schema not found"}')
        request = urllib.request.Request(self.registry_url + path, data=body)
        if body is not None:
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                found = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError:
            return 502, b"<html>Bad Gateway</html>"
        text = (
            found.get("schema") or (json.loads(body)["schema"] if body else None) if isinstance(found, dict) else None
        )
        if text is not None and "is_compatible" not in found:
            found["guid"] = str(uuid.UUID(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()))
            self._by_guid[found["guid"]] = json.dumps({"schema": text, "guid": found["guid"]}).encode()
        return 200, json.dumps(found).encode()


@contextmanager
def running_registry(log: Path) -> Iterator[Apicurio]:
    registry = Apicurio(log)
    registry.start()
    try:
        yield registry
    finally:
        registry.kill()
