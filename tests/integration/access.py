"""How the tests reach the broker: openly or, in a secured run, as users that have just the rights of their roles.

``KANTOKU_TEST_SECURED=scram`` or ``mtls`` makes it a secured run. What a test does besides the program (it looks into
topics, plays foreign producers) it does as the super user.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from granting import granted
from securing import SecuredCluster, secured_cluster

from kantoku_kafka.kafka.rights import Right, Role, rights_of
from kantoku_kafka.names import Topics

MODE_VARIABLE = "KANTOKU_TEST_SECURED"
CLIENT = "client"
"""Who spawns and administers in a test's own process: a user with two roles."""
ROLES_OF = {CLIENT: (Role.SPAWNER, Role.ADMIN), **{role: (role,) for role in Role}}
_WRITES = {CLIENT: ("copy",), Role.EXECUTOR: ("small",)}
"""Further topics of a test's namespace that a user writes to, as by ``acls plan --writes``."""
_COMMANDS = {
    Role.EXECUTOR: ("run-executor", "doctor"),
    Role.SCHEDULER: ("run-scheduler",),
    Role.SPAWNER: ("spawn", "result"),
    Role.OBSERVER: (
        "events tail",
        "events replay",
        "lag",
        "tasks list",
        "tasks show",
        "dlq list",
        "verify",
    ),
}


@dataclass(frozen=True)
class SecuredRun:
    """All tests of this process run against this cluster, in one manner."""

    cluster: SecuredCluster
    mode: str

    @property
    def servers(self) -> str:
        return self.cluster.servers[self.mode]

    def file(self, user: str) -> str:
        """The settings of a user, for ``-F``."""
        path = self.cluster.folder / f"{user}-{self.mode}.properties"
        settings = self.cluster.client(self.mode, user)
        path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        return str(path)


_current: SecuredRun | None = None


@contextmanager
def secured_run(mode: str, folder: Path) -> Iterator[SecuredRun]:
    """For the block :func:`super_user`, :func:`as_user` and :func:`environment_of` speak of this run."""
    global _current
    with secured_cluster(folder, tuple(ROLES_OF)) as cluster:
        _current = SecuredRun(cluster, mode)
        try:
            yield _current
        finally:
            _current = None


def _is_secured(servers: str) -> bool:
    """Some tests start brokers of their own."""
    return _current is not None and servers == _current.servers


def super_user(servers: str) -> dict[str, Any]:
    """librdkafka's settings of who may do anything."""
    return dict(_current.cluster.super_user) if _is_secured(servers) else {"bootstrap.servers": servers}


def as_user(servers: str, user: str = CLIENT) -> dict[str, Any]:
    """What ``Kantoku`` and ``Connection`` take of the settings of a user."""
    if not _is_secured(servers):
        return {"bootstrap_servers": servers}
    settings = _current.cluster.client(_current.mode, user)
    return {"bootstrap_servers": settings.pop("bootstrap.servers"), "config": settings}


def environment_of(*command: str | bytes) -> dict[str, str]:
    """The variables for a command: they name the file of the user whose role it needs."""
    if _current is None:
        return dict(os.environ)
    words = f" {' '.join(os.fsdecode(word) for word in command)} "
    role = next((role for role, names in _COMMANDS.items() if any(f" {name} " in words for name in names)), CLIENT)
    return {**os.environ, "KANTOKU_CONFIG": _current.file(role)}


@contextmanager
def rights(
    namespace: str, inputs: Iterable[str], foreign: Sequence[str] = (), replies: Sequence[str] = ()
) -> Iterator[None]:
    """Within the block each user has what its roles need in a namespace, and of topics of others."""
    if _current is None:
        yield
        return
    topics, names = Topics(namespace=namespace), list(inputs)

    def of(user: str) -> list[Right]:
        writes = [f"{namespace}.{name}" for name in _WRITES.get(user, ())]
        more = {"foreign": foreign, "replies": replies, "writes": writes}
        return sorted({right for role in ROLES_OF[user] for right in rights_of(role, topics, names, **more)})

    with granted(_current.cluster.super_user["bootstrap.servers"], {user: of(user) for user in ROLES_OF}):
        yield
