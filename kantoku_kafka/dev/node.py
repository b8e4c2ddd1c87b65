"""One node of the embedded cluster: its files and its process."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import STDOUT
from typing import Final

from kantoku_kafka.dev.errors import EmbeddedBrokerError
from kantoku_kafka.dev.layout import properties
from kantoku_kafka.dev.processes import GuardedProcess

__all__ = ["Node", "java_command"]

_FORMAT_TIMEOUT_SECONDS: Final = 60.0
_LOG_LINES: Final = 20
_LOG4J: Final = Path(__file__).with_name("log4j2.properties")


def java_command(java: Path, classpath: str, *options: str) -> list[str]:
    """How to run a Java class of Kafka, up to the name of the class.

    ``KANTOKU_BROKER_LOG4J2`` of the environment names a file that says how it logs; default: warnings, to stderr.
    """
    logging = os.environ.get("KANTOKU_BROKER_LOG4J2", _LOG4J)
    common = ("-XX:+UseSerialGC", "-XX:-UsePerfData", f"-Dlog4j2.configurationFile={logging}")
    return [str(java), *common, *options, "-cp", classpath]


class Node:
    """A combined broker and controller in a directory of its own.

    Args:
        number: its number in the cluster, from 1.
        home: its directory; created.
        settings: server properties; paths in them are relative to ``home``.
        scratch: a directory to remove if this process dies while the node runs, default none.

    Not thread-safe. ``process`` is None until the first ``launch``.
    """

    def __init__(self, number: int, home: Path, settings: Mapping[str, str], scratch: Path | None = None) -> None:
        self.number = number
        self.home = home
        self.log = home / "log"
        self.process: GuardedProcess | None = None
        self._scratch = scratch
        home.mkdir(parents=True, exist_ok=True)
        (home / "server.properties").write_text(properties(settings), encoding="ascii")

    @property
    def formatted(self) -> bool:
        """Whether its storage is ready for ``launch``."""
        return self._formatted.exists()

    @property
    def _formatted(self) -> Path:
        return self.home / "formatted"

    def begin_format(self, java: Sequence[str], cluster_id: str) -> None:
        """Start formatting the storage; what an interrupted format left goes first. Returns at once."""
        shutil.rmtree(self.home / "data", ignore_errors=True)
        arguments = ("kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", "server.properties")
        self._run([*java, *arguments])

    def end_format(self) -> None:
        """Wait until the storage is formatted.

        Raises:
            EmbeddedBrokerError: the tool refused: its last lines are in the text.
        """
        assert self.process is not None
        self.process.join(_FORMAT_TIMEOUT_SECONDS)
        if self.process.process.returncode != 0:
            raise EmbeddedBrokerError(f"node {self.number} could not format its storage:\n{self.log_tail()}")
        self._formatted.touch()

    def launch(self, java: Sequence[str]) -> None:
        """Start the server. Returns at once."""
        self._run([*java, "kafka.Kafka", "server.properties"])

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self.process is not None and self.process.alive

    def log_tail(self) -> str:
        """The last lines that the node has logged."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            lines = []
        return "\n".join(lines[-_LOG_LINES:]) or "(its log is empty)"

    def _run(self, command: Sequence[str]) -> None:
        with self.log.open("ab") as log:
            self.process = GuardedProcess(command, cwd=self.home, stdout=log, stderr=STDOUT, scratch=self._scratch)
