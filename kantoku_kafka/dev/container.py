"""The same cluster of one node from the official image, by ``testcontainers``."""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from kantoku_kafka.dev.distribution import KAFKA_VERSION
from kantoku_kafka.dev.errors import EmbeddedBrokerError
from kantoku_kafka.dev.layout import common_settings, reserved_ports
from kantoku_kafka.dev.readiness import await_nodes

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

__all__ = ["container_broker", "docker_answers"]

_IMAGE: Final = f"apache/kafka:{KAFKA_VERSION}"
_DEFAULT_DOCKER_HOST: Final = "unix:///var/run/docker.sock"
_PING_TIMEOUT_SECONDS: Final = 3
_START_TIMEOUT_SECONDS: Final = 60.0
_LOG_LINES: Final = 20
_CLIENT_PORT: Final = 9092
# Inside the container the clients' address leads nowhere: the node talks to itself on a listener of its own.
_LISTENERS: Final = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.quorum.voters": "1@localhost:9093",
    "listeners": f"PLAINTEXT://:{_CLIENT_PORT},CONTROLLER://:9093,INTERNAL://:9094",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "INTERNAL",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,INTERNAL:PLAINTEXT",
}


def docker_answers() -> bool:
    """Whether ``testcontainers`` is installed and a Docker daemon answers it within some 3 s."""
    if importlib.util.find_spec("testcontainers") is None:
        return False
    from docker.errors import DockerException  # type: ignore[import-untyped]
    from testcontainers.core.docker_client import DockerClient, get_docker_host

    if not _listens(get_docker_host() or _DEFAULT_DOCKER_HOST):
        return False
    try:
        client = DockerClient(timeout=_PING_TIMEOUT_SECONDS).client
    except (DockerException, OSError):
        return False
    try:
        return bool(client.ping())
    except (DockerException, OSError):
        return False
    finally:
        client.close()


def _listens(url: str) -> bool:
    # Asked first: a client that cannot connect leaves its socket open, which is a warning, in tests an error.
    address = urlsplit(url)
    try:
        if address.scheme == "unix":
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(_PING_TIMEOUT_SECONDS)
                probe.connect(address.path)
        elif address.hostname and address.port:
            socket.create_connection((address.hostname, address.port), _PING_TIMEOUT_SECONDS).close()
    except OSError:
        return False
    return True


@contextmanager
def container_broker() -> Iterator[str]:
    """Run the broker in a container, removed at the end; gives its bootstrap servers.

    Raises:
        EmbeddedBrokerError: ``testcontainers`` is missing, no Docker answers, or the broker does not come up.
    """
    if not docker_answers():
        raise EmbeddedBrokerError("no Docker answers: start it, and install its client with pip install testcontainers")
    from docker.errors import DockerException
    from testcontainers.core.container import DockerContainer

    with reserved_ports(1) as (port,):  # given back at once: who forwards it may want it alone
        pass
    container = DockerContainer(_IMAGE).with_bind_ports(_CLIENT_PORT, port)
    servers = f"{container.get_docker_client().host()}:{port}"
    advertised = {"advertised.listeners": f"PLAINTEXT://{servers},INTERNAL://localhost:9094"}
    for key, value in (common_settings(1) | _LISTENERS | advertised).items():
        container.with_env(f"KAFKA_{key.upper().replace('.', '_')}", value)
    try:
        try:
            container.start()
        except (DockerException, OSError) as error:
            raise EmbeddedBrokerError(f"Docker could not run {_IMAGE}, look at the cause: {error}") from error
        if not await_nodes(servers, [1], timeout_seconds=_START_TIMEOUT_SECONDS):
            raise EmbeddedBrokerError(f"Kafka did not answer in its container:\n{_log_tail(container)}")
        yield servers
    finally:
        container.stop()


def _log_tail(container: DockerContainer) -> str:
    lines = b"\n".join(container.get_logs()).decode("utf-8", "replace").splitlines()
    return "\n".join(lines[-_LOG_LINES:]) or "(its log is empty)"
