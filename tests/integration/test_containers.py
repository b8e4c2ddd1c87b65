"""The image and the compose file, where containers run: built, started, stopped as a user would."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
import pytest
from executors import until

from kantoku_kafka.dev.container import docker_answers

ROOT = Path(__file__).parents[2]
IMAGE = "kantoku-kafka"
PROJECT = "kantoku-test"
GRACE_SECONDS = 40
HEALTH_CHECK = json.loads(
    re.findall(r"HEALTHCHECK.*?CMD (\[.*?\])\n", (ROOT / "deploy/Dockerfile").read_text("utf-8"), re.DOTALL)[0]
)
RESULT = b'"be": 2'

pytestmark = [
    pytest.mark.skipif(
        not (docker_answers() and shutil.which("docker")), reason="needs a Docker daemon and its command line"
    ),
    pytest.mark.timeout(600),
]


def compose_command() -> list[str] | None:
    """``docker compose``, or what does the same here."""
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0:
        return ["docker", "compose"]
    places = os.pathsep.join((os.environ["PATH"], str(Path(sys.executable).parent)))
    names = ("docker-compose", "podman-compose" if shutil.which("podman") else "docker-compose")
    return next(([path] for name in names if (path := shutil.which(name, path=places))), None)


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    client = docker.from_env(timeout=120)
    yield client
    client.close()


@pytest.fixture(scope="module")
def image(engine: Any) -> Any:
    subprocess.run(["docker", "build", "-q", "-f", "deploy/Dockerfile", "-t", IMAGE, "."], cwd=ROOT, check=True)
    return engine.images.get(IMAGE)


def test_the_image_runs_as_nobody_in_particular_and_knows_the_command_line(engine: Any, image: Any) -> None:
    assert image.attrs["Config"]["User"] not in ("", "0", "root")
    shown = engine.containers.run(IMAGE, ["events", "replay", "--help"], remove=True)
    assert b"--since-offsets" in shown
    assert engine.containers.run(IMAGE, ["-u"], entrypoint="id", remove=True).strip() != b"0"


Container = Callable[[str], Any]


@pytest.fixture
def composed(engine: Any, image: Any) -> Iterator[Container]:
    """The compose file, up with two executors; answers the container of a service by its name and number."""
    command = compose_command()
    if command is None:
        pytest.skip("needs docker compose, docker-compose or podman-compose")

    def compose(*arguments: str, check: bool = True) -> None:
        whole = [*command, "-f", "deploy/compose.yaml", "-p", PROJECT, *arguments]
        subprocess.run(whole, cwd=ROOT, env=dict(os.environ), check=check, timeout=240, stdout=subprocess.DEVNULL)

    def mine() -> list[Any]:
        return [one for one in engine.containers.list(all=True) if one.name.startswith(PROJECT)]

    def container(name: str) -> Any:
        (found,) = [one for one in mine() if one.name.replace("-", "_").endswith(name)]
        return found

    try:
        compose("up", "-d", "--scale", "executor=2")
        yield container
    finally:
        compose("stop", "-t", "10", check=False)
        while left := mine():
            for one in left:
                with suppress(docker.errors.APIError):  # others of it depend on this one
                    one.remove(force=True)
        compose("down", check=False)


def test_compose_the_spawner_gets_results_and_an_executor_stops_in_its_time(composed: Container) -> None:
    spawner, executor = composed("spawner_1"), composed("executor_1")

    def results() -> int:
        return int(spawner.logs(stderr=False).count(RESULT))

    until(results, 180, "the first result")
    until(lambda: executor.exec_run(HEALTH_CHECK).exit_code == 0, 30, "its health")
    started = time.monotonic()
    executor.stop(timeout=GRACE_SECONDS)
    assert time.monotonic() - started < GRACE_SECONDS - 5
    executor.reload()
    assert executor.attrs["State"]["ExitCode"] == 0
    before = results()
    until(lambda: results() > before + 1, 60, "what the other executor does")
