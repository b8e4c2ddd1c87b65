"""What a cluster for development is made of: its server settings, its ports, its directory."""

from __future__ import annotations

import base64
import json
import random
import socket
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from kantoku_kafka.dev.distribution import KAFKA_VERSION
from kantoku_kafka.dev.errors import EmbeddedBrokerError

__all__ = ["HOST", "cluster_id", "common_settings", "is_free", "node_settings", "properties", "reserved_ports"]

HOST: Final = "127.0.0.1"
# Below the ports that systems give to outgoing connections: none takes a node's port while it restarts.
_PORTS: Final = range(15_000, 32_000)
_PORT_ATTEMPTS: Final = 1_000


def common_settings(nodes: int) -> dict[str, str]:
    """Server settings that are the same on every node: small internal topics, quick groups.

    Args:
        nodes: size of the cluster; internal topics have up to 3 replicas, of which 2 must be in sync.
    """
    replicas = min(nodes, 3)
    in_sync = 2 if replicas > 1 else 1
    settings = {
        "auto.create.topics.enable": "false",
        "default.replication.factor": str(replicas),
        "min.insync.replicas": str(in_sync),
        "offsets.topic.num.partitions": "4",
        "offsets.topic.replication.factor": str(replicas),
        "group.initial.rebalance.delay.ms": "0",
        "group.consumer.min.session.timeout.ms": "6000",
        "group.consumer.session.timeout.ms": "10000",
        "group.consumer.min.heartbeat.interval.ms": "1000",
        "group.consumer.heartbeat.interval.ms": "3000",
        "log.cleaner.backoff.ms": "200",
        # A node that was killed may come back only when its old session is over: 9 s by default.
        "broker.session.timeout.ms": "4000",
        "broker.heartbeat.interval.ms": "500",
    }
    for topic in ("transaction.state.log", "share.coordinator.state.topic"):
        settings[f"{topic}.num.partitions"] = "4"
        settings[f"{topic}.replication.factor"] = str(replicas)
        settings[f"{topic}.min.isr"] = str(in_sync)
    return settings


def node_settings(node: int, ports: Sequence[int], controller_ports: Sequence[int]) -> dict[str, str]:
    """Server settings of one combined broker and controller.

    Args:
        node: its number, from 1.
        ports: the listener of every node.
        controller_ports: the controller's listener of every node.
    """
    listener = f"PLAINTEXT://{HOST}:{ports[node - 1]}"
    voters = ",".join(f"{number}@{HOST}:{port}" for number, port in enumerate(controller_ports, 1))
    return {
        "process.roles": "broker,controller",
        "node.id": str(node),
        "controller.quorum.voters": voters,
        "listeners": f"{listener},CONTROLLER://{HOST}:{controller_ports[node - 1]}",
        "advertised.listeners": listener,
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": "data",
    }


def properties(settings: Mapping[str, str]) -> str:
    """The text of a Java properties file, which is Latin-1 with escapes."""

    def escape(text: str) -> str:
        units = text.encode("utf-16-be")
        codes = (int.from_bytes(units[index : index + 2]) for index in range(0, len(units), 2))
        return "".join(chr(code) if 32 <= code < 127 and code != 92 else f"\\u{code:04x}" for code in codes)

    return "".join(f"{escape(key)}={escape(value)}\n" for key, value in settings.items())


@contextmanager
def reserved_ports(count: int) -> Iterator[list[int]]:
    """Different ports that nobody listens on; within the context no other process is given them here.

    A socket that is bound and does not listen keeps a port from who asks for it alone, and not, on Linux, from a server
    that shares addresses, as Java's do. Elsewhere it would: there nothing is kept.

    Raises:
        EmbeddedBrokerError: none was found.
    """
    with ExitStack() as held:
        found: list[int] = []
        for port in random.sample(_PORTS, _PORT_ATTEMPTS):
            if len(found) == count:
                break
            holder = held.enter_context(socket.socket())
            with suppress(OSError):
                holder.bind((HOST, port))
                holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                found.append(port)
        else:
            raise EmbeddedBrokerError("no free port was found: name one with port=")
        if sys.platform != "linux":
            held.close()
        yield found


def is_free(port: int) -> bool:
    """Whether a server can listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def cluster_id(directory: Path, nodes: int) -> str:
    """The id of the cluster in a directory, written there the first time.

    Raises:
        EmbeddedBrokerError: the directory holds a cluster of another size, or a damaged file.
    """
    file = directory / "cluster.json"
    if not file.exists():
        fresh = _random_id()
        draft = file.with_suffix(".draft")
        content = {"cluster_id": fresh, "nodes": nodes, "kafka_version": KAFKA_VERSION}
        draft.write_text(json.dumps(content, indent=1), encoding="utf-8")
        draft.replace(file)
        return fresh
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        size, kept = int(content["nodes"]), str(content["cluster_id"])
    except (ValueError, KeyError, TypeError) as error:
        raise EmbeddedBrokerError(f"{file} is damaged: give another data directory") from error
    if size != nodes:
        raise EmbeddedBrokerError(
            f"{directory} holds a cluster of nodes={size}, not {nodes}: say so or give another directory"
        )
    return kept


def _random_id() -> str:
    # Like Kafka's Uuid.randomUuid, which never starts with a dash: command lines would take it for an option.
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text
