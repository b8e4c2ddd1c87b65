"""README and tutorial, their commands run as they stand there, in a directory that has nothing else."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from executors import until

pytestmark = pytest.mark.unsecured("what a user does first, on an open broker")

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
ELSEWHERE = (
    "pip install",
    "kantoku-kafka dev broker",
    "kantoku-kafka demo",
)  # test_install, test_dev_broker, test_demo
LIVE = re.compile(r"events tail| top$")


class Reader:
    """Follows a page: writes the app, starts the executor, runs the rest."""

    def __init__(self, here: Path, bootstrap: str) -> None:
        self._here = here
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._environment = {
            **os.environ,
            "COLUMNS": "80",  # as a terminal, or ``watch``
            "PATH": path,
            "KANTOKU_BOOTSTRAP_SERVERS": bootstrap,
            "XDG_CACHE_HOME": str(here / "cache"),
            "PYTHONPATH": str(here),
        }
        self._executors: list[subprocess.Popen[bytes]] = []
        self._task_id = ""
        self.printed: list[str] = []

    def follow(self, page: Path) -> None:
        for language, text in BLOCK.findall(page.read_text("utf-8")):
            if language == "sh":
                for line in text.strip().splitlines():
                    self._command(line.partition("  #")[0].rstrip(), expected=1 if "exit code 1" in line else 0)
            elif language == "python" and text.startswith("# app.py"):
                (self._here / "app.py").write_text(text, "utf-8")
            elif language == "python":
                servers = self._environment["KANTOKU_BOOTSTRAP_SERVERS"]
                self._run([sys.executable, "-c", text.replace("localhost:9092", servers)], 0)

    def stop(self) -> None:
        for executor in self._executors:
            executor.send_signal(signal.SIGTERM)
        for executor in self._executors:
            assert executor.wait(40) == 0

    def _command(self, line: str, expected: int) -> None:
        if line.startswith(ELSEWHERE):
            return
        arguments = line.replace(" ID", f" {self._task_id}")
        if "run-executor" in line:
            self._executors.append(subprocess.Popen(["sh", "-c", f"exec {arguments}"], **self._where()))
        elif LIVE.search(line):
            process = subprocess.Popen(["timeout", "-s", "INT", "3", "sh", "-c", f"exec {arguments}"], **self._where())
            assert process.wait(30) in (124, 130)
        else:
            self._run(["sh", "-c", arguments], expected)

    def _run(self, command: list[str], expected: int) -> None:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **self._where())
        assert done.returncode == expected, (command, done.stdout, done.stderr)
        self.printed.append(done.stdout)
        found = re.search(r"^[0-9a-f-]{36}", done.stdout, re.MULTILINE)
        self._task_id = found[0] if found else self._task_id

    def _where(self) -> dict[str, object]:
        return {"cwd": self._here, "env": self._environment}


@pytest.fixture
def reader(tmp_path: Path, bootstrap: str) -> Iterator[Reader]:
    following = Reader(tmp_path, bootstrap)
    yield following
    following.stop()


@pytest.mark.parametrize("page", ["docs/tutorial.md", "README.md"])
def test_following_a_page(reader: Reader, page: str) -> None:
    reader.follow(ROOT / page)
    assert any("HELLO" in printed for printed in reader.printed)
    assert any("sent_outputs" in printed for printed in reader.printed) == (page != "README.md")


def test_existing_topics_become_tasks(reader: Reader) -> None:
    reader.follow(ROOT / "docs/howto/existing-topics.md")
    shipments, invoices, inputs, verified = reader.printed[-6:-2]
    assert "b'7' b'{\"order_id\": 7, \"parcel\": \"P-1\"}' b'OK'" in shipments
    assert invoices.count("invoice") == 1, "the other event is passed over"
    assert "\norders " in inputs and "\nshop-events " in inputs
    assert "exactly one terminal result" in verified


def test_signed_tasks(reader: Reader) -> None:
    reader.follow(ROOT / "docs/howto/signatures.md")
    assert any("hello friend" in printed for printed in reader.printed)

    def letters() -> str:
        reader._run(["kantoku-kafka", "-n", "greetings", "dlq", "list"], 0)
        return reader.printed[-1]

    until(lambda: " unsigned: " in letters(), 120, "the stranger's letter")
