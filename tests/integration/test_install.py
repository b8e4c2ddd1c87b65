"""What a user does first: ``pip install`` into an empty environment, an app in a directory of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from executors import until

pytestmark = pytest.mark.unsecured("what a user does first, on an open broker")

ROOT = Path(__file__).parents[2]
APP = """
from kantoku_kafka import Kantoku

kan = Kantoku("{namespace}", bootstrap_servers="{bootstrap}")


@kan.task("upper")
def upper(data: bytes) -> bytes:
    return data.upper()
"""
SPAWN = """
from app import kan
from kantoku_kafka import Task

results = kan.gather(kan.spawn_many([Task("upper", b"a%d" % n) for n in range(1000)]), timeout_seconds=60)
assert [result.data for result in results] == [b"A%d" % n for n in range(1000)]
kan.close()
print("ok")
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin directory of an environment that has this package and what it needs, nothing else."""
    path = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", path], check=True)
    subprocess.run([path / "bin" / "pip", "install", "--quiet", str(ROOT)], check=True, timeout=240)
    return path / "bin"


def test_the_package_is_whole(environment: Path) -> None:
    script = """
import kantoku_kafka, pathlib
root = pathlib.Path(kantoku_kafka.__file__).parent
print(*sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.suffix in (".avsc", ".typed")))
"""
    done = subprocess.run([environment / "python", "-c", script], capture_output=True, check=True, cwd="/")
    files = done.stdout.decode().split()
    assert {"py.typed", "schemas/Task.avsc", "schemas/Result.avsc", "schemas/Event.avsc"} <= set(files)


def test_ten_lines_in_a_foreign_directory(environment: Path, bootstrap: str, tmp_path: Path) -> None:
    namespace = f"i-{uuid.uuid4().hex[:8]}"
    (tmp_path / "app.py").write_text(APP.format(namespace=namespace, bootstrap=bootstrap))
    (tmp_path / "client.py").write_text(SPAWN)
    program = environment / "kantoku-kafka"

    def run(*arguments: str | Path) -> bytes:
        return subprocess.run(arguments, cwd=tmp_path, check=True, capture_output=True, timeout=90).stdout

    run(program, "topics", "create", "app:kan", "--yes")
    with (tmp_path / "log").open("wb") as log:
        executor = subprocess.Popen([program, "run-executor", "app:kan"], cwd=tmp_path, stderr=log)
    try:
        until(lambda: "assigned" in (tmp_path / "log").read_text(), 30, "the executor has partitions")
        assert run(environment / "python", "client.py") == b"ok\n"
        assert run(program, "-b", bootstrap, "-n", namespace, "spawn", "upper", "x", "--wait") == b"X"
        executor.send_signal(signal.SIGTERM)
        assert executor.wait(40) == 0
    finally:
        executor.kill()
        executor.wait()


def test_what_needs_an_extra_names_it(environment: Path, tmp_path: Path) -> None:
    command = [environment / "kantoku-kafka", "dev", "broker"]
    empty_home = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, check=False, timeout=60, env=empty_home)
    assert done.returncode == 3
    assert b"kantoku-kafka[broker]" in done.stderr
    assert b"Traceback" not in done.stderr
