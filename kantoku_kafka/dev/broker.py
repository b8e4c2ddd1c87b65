"""A real Apache Kafka in KRaft mode as child processes, for development and tests."""

from __future__ import annotations

import os
import signal as signals
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from kantoku_kafka.dev.distribution import default_cache_dir, find_java, jars, locked
from kantoku_kafka.dev.errors import EmbeddedBrokerError
from kantoku_kafka.dev.layout import (
    HOST,
    cluster_id,
    common_settings,
    is_free,
    node_settings,
    reserved_ports,
)
from kantoku_kafka.dev.node import Node, java_command
from kantoku_kafka.dev.processes import GuardedProcess, run_guarded
from kantoku_kafka.dev.readiness import await_nodes

__all__ = ["EmbeddedBroker", "EmbeddedBrokerError"]

START_TIMEOUT_SECONDS: Final = 60.0
STOP_TIMEOUT_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.1
# Compiles less: right for a program that runs for a second, wrong for a server.
_QUICK_JIT: Final = "-XX:TieredStopAtLevel=1"


class EmbeddedBroker:
    """A cluster of real Kafka brokers on 127.0.0.1, usable as a context manager. It ends with this process.

    The first use on a machine fetches Kafka (45 MB, about half a minute); after that a start takes some 3 s.

    Args:
        nodes: how many combined brokers and controllers, numbered from 1, default 1. With 3, topics have 3
            replicas of which 2 must be in sync.
        data_dir: where the cluster lives; created when missing, kept afterwards, continued by the next broker
            that is given it. Default: a temporary directory, removed by ``stop``.
        port: port of node 1, the next nodes take the next ports. Default: free ports, others at every start.
        heap_mb: Java heap of each node in MiB, default 512.
        short_lived: it will run for minutes: Java compiles quickly, not well; default False.
        settings: server properties added to, or put in place of, those this class chooses; or a function that
            answers them for a node, given its number and what was chosen for it.
        cache_dir: where the jars are kept, default ``~/.cache/kantoku-kafka`` (honours ``XDG_CACHE_HOME``).
        on_progress: told in one line what takes long; default: nobody.

    Raises:
        ValueError: ``nodes`` or ``heap_mb`` is less than 1.

    Not thread-safe: one thread at a time. Any number of clients may use the cluster meanwhile.
    """

    def __init__(
        self,
        *,
        nodes: int = 1,
        data_dir: Path | None = None,
        port: int | None = None,
        heap_mb: int = 512,
        short_lived: bool = False,
        settings: Mapping[str, str] | Callable[[int, Mapping[str, str]], Mapping[str, str]] | None = None,
        cache_dir: Path | None = None,
        on_progress: Callable[[str], None] | None = None,
    ) -> None:
        if nodes < 1 or heap_mb < 1:
            raise ValueError(f"nodes and heap_mb must be at least 1, not {nodes} and {heap_mb}")
        self._size = nodes
        self._data_dir = None if data_dir is None else data_dir.absolute()
        self._port = port
        self._options = [f"-Xmx{heap_mb}m", "-XX:+ExitOnOutOfMemoryError", *([_QUICK_JIT] if short_lived else [])]
        self._settings = settings if callable(settings) else partial(_same, dict(settings or {}))
        self._cache_dir = default_cache_dir() if cache_dir is None else cache_dir
        self._on_progress = on_progress
        self._cleanup = ExitStack()
        self._ports: list[int] = []
        self._nodes: dict[int, Node] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def bootstrap_servers(self) -> str:
        """``host:port`` of every node, joined by commas.

        Raises:
            EmbeddedBrokerError: the broker is not started.
        """
        self._require_start()
        return ",".join(f"{HOST}:{port}" for port in self._ports)

    @cached_property
    def java(self) -> Path:
        """The Java that runs the nodes and tools, 17 or newer; looked for at the first use.

        Raises:
            EmbeddedBrokerError: there is none.
        """
        return find_java()

    @cached_property
    def classpath(self) -> str:
        """The class path of the nodes; resolved at the first use.

        Raises:
            EmbeddedBrokerError: Kafka is not in the cache and cannot be fetched.
        """
        return self._classpath_of("broker")

    @cached_property
    def tools_classpath(self) -> str:
        """The class path of Kafka's command-line tools; resolved at the first use.

        Raises:
            EmbeddedBrokerError: the tools are not in the cache and cannot be fetched.
        """
        return self._classpath_of("tools")

    def start(self) -> None:
        """Start every node and wait until the cluster answers with all of them.

        Raises:
            EmbeddedBrokerError: it is started already, or does not start: the text ends with the node's log.
        """
        if self._nodes:
            raise EmbeddedBrokerError("the broker is started already: stop it first")
        try:
            self._prepare()
            for node in self._nodes.values():
                node.launch(self._server_command())
            self._await_ready(list(self._nodes.values()))
        except OSError as error:
            self.stop()
            where = error.filename or self._data_dir or self._cache_dir
            raise EmbeddedBrokerError(f"{where}: {error.strerror}: give a directory that can be written") from error
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every node and remove what is temporary. Nothing happens when the broker is not started.

        With a ``data_dir`` the nodes get SIGTERM and, after 10 s, SIGKILL; without one there is nothing to
        save: they get SIGKILL at once.
        """
        processes = [node.process for node in self._nodes.values() if node.process is not None]
        for process in processes:
            process.terminate()
        grace_seconds = 0.0 if self._data_dir is None else STOP_TIMEOUT_SECONDS
        deadline = time.monotonic() + grace_seconds
        for process in processes:
            process.join(deadline - time.monotonic())
        self._nodes.clear()
        self._cleanup.close()

    def kill(self, node: int, signal: int = signals.SIGKILL) -> None:
        """Send a signal to one node; after SIGKILL, return when it is gone.

        Args:
            node: its number, from 1.
            signal: default SIGKILL; SIGSTOP and SIGCONT freeze and thaw it.

        Raises:
            EmbeddedBrokerError: the broker is not started, or has no such node.
        """
        process = self._process(node)
        process.signal(signal)
        if signal == signals.SIGKILL:
            process.join(STOP_TIMEOUT_SECONDS)

    def restart(self, node: int) -> None:
        """Start one node again on its data and port, ending it first if it runs; wait until it answers.

        Args:
            node: its number, from 1.

        Raises:
            EmbeddedBrokerError: the broker is not started, has no such node, or the node does not come up.
        """
        process = self._process(node)
        process.terminate()
        process.join(STOP_TIMEOUT_SECONDS)
        self._nodes[node].launch(self._server_command())
        self._await_ready([self._nodes[node]])

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """Block until a node has ended.

        Args:
            timeout_seconds: how long at most, default without end.

        Returns:
            The number of a node that has ended, or None after the timeout.

        Raises:
            EmbeddedBrokerError: the broker is not started.
        """
        self._require_start()
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            for node in self._nodes.values():
                if not node.alive:
                    return node.number
            if deadline is not None and time.monotonic() >= deadline:
                return None
            time.sleep(_POLL_SECONDS)

    def log(self, node: int = 1) -> Path:
        """The file with what the node has logged (warnings and errors).

        Raises:
            EmbeddedBrokerError: the broker is not started, or has no such node.
        """
        self._process(node)
        return self._nodes[node].log

    def pid(self, node: int = 1) -> int:
        """The process id of the node's Java.

        Raises:
            EmbeddedBrokerError: the broker is not started, or has no such node.
        """
        return self._process(node).process.pid

    def run_tool(
        self, main_class: str, *arguments: str, timeout_seconds: float | None = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run one of Kafka's command-line tools, such as ``org.apache.kafka.tools.TopicCommand``, to its end.

        The first use on a machine fetches the tools. The broker need not be started.

        Args:
            main_class: Java class of the tool.
            arguments: its arguments; they must name the bootstrap servers.
            timeout_seconds: the tool is killed after this time, default 60; None waits for ever.

        Returns:
            Exit code, output and errors; a code other than 0 raises nothing.

        Raises:
            EmbeddedBrokerError: there is no Java, or the tools cannot be fetched.
            subprocess.TimeoutExpired: the tool was killed after the timeout.
        """
        command = java_command(self.java, self.tools_classpath, _QUICK_JIT)
        return run_guarded([*command, main_class, *arguments], timeout_seconds=timeout_seconds)

    def _prepare(self) -> None:
        """Steps: 1 the directory, 2 ports, 3 the settings of every node, 4 the format of the new ones."""
        directory = self._open_directory()
        self._ports = self._choose_ports()
        controller_ports = self._cleanup.enter_context(reserved_ports(self._size))
        scratch = directory if self._data_dir is None else None
        for number in range(1, self._size + 1):
            settings = node_settings(number, self._ports, controller_ports) | common_settings(self._size)
            settings |= self._settings(number, settings)
            self._nodes[number] = Node(number, directory / f"node{number}", settings, scratch)
        fresh = [node for node in self._nodes.values() if not node.formatted]
        identity = cluster_id(directory, self._size)
        for node in fresh:
            node.begin_format(java_command(self.java, self.classpath, _QUICK_JIT), identity)
        for node in fresh:
            node.end_format()

    def _open_directory(self) -> Path:
        if self._data_dir is None:
            temporary = tempfile.TemporaryDirectory(prefix="kantoku-kafka-", ignore_cleanup_errors=True)
            return Path(self._cleanup.enter_context(temporary))
        self._data_dir.mkdir(parents=True, exist_ok=True)
        try:
            self._cleanup.enter_context(locked(self._data_dir / "lock", wait=False))
        except BlockingIOError as error:
            raise EmbeddedBrokerError(
                f"another broker runs in {self._data_dir}: stop it or give another directory"
            ) from error
        return self._data_dir

    def _choose_ports(self) -> list[int]:
        if self._port is None:
            return self._cleanup.enter_context(reserved_ports(self._size))
        ports = list(range(self._port, self._port + self._size))
        if not 0 < ports[0] <= ports[-1] < 65536:
            raise EmbeddedBrokerError(f"there are no ports {ports[0]} to {ports[-1]}: give one from 1 to 65535")
        for port in ports:
            if not is_free(port):
                reason = "needs root" if port < 1024 and os.geteuid() != 0 else "is in use: stop who listens there"
                raise EmbeddedBrokerError(f"port {port} {reason}, or give another")
        return ports

    def _await_ready(self, nodes: Sequence[Node]) -> None:
        def check() -> None:
            for node in nodes:
                if not node.alive:
                    raise EmbeddedBrokerError(f"node {node.number} ended at its start:\n{node.log_tail()}")

        servers = ",".join(f"{HOST}:{self._ports[node.number - 1]}" for node in nodes)
        numbers = [node.number for node in nodes]
        if not await_nodes(servers, numbers, timeout_seconds=START_TIMEOUT_SECONDS, check=check):
            logs = "\n".join(f"node {node.number}:\n{node.log_tail()}" for node in nodes)
            raise EmbeddedBrokerError(f"Kafka did not answer within {START_TIMEOUT_SECONDS:.0f} s:\n{logs}")

    def _server_command(self) -> list[str]:
        return java_command(self.java, self.classpath, *self._options)

    def _classpath_of(self, part: str) -> str:
        return os.pathsep.join(str(jar.absolute()) for jar in jars(part, self._cache_dir, self._on_progress))

    def _require_start(self) -> None:
        if not self._nodes:
            raise EmbeddedBrokerError("the broker is not started: call start() or use it in a with statement")

    def _process(self, number: int) -> GuardedProcess:
        self._require_start()
        node = self._nodes.get(number)
        if node is None or node.process is None:
            raise EmbeddedBrokerError(f"there is no node {number}: they are numbered from 1 to {self._size}")
        return node.process


def _same(settings: Mapping[str, str], _: int, __: Mapping[str, str]) -> Mapping[str, str]:
    """Of every node."""
    return settings
