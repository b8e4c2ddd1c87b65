"""A broker that allows its users nothing but what is granted, and who may be granted it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from executors import until

from kantoku_kafka import Kantoku
from kantoku_kafka.dev import EmbeddedBroker
from kantoku_kafka.dev.layout import reserved_ports
from kantoku_kafka.kafka.rights import Operation, Resource, Right

_RESOURCES = {
    Resource.TOPIC: ResourceType.TOPIC,
    Resource.GROUP: ResourceType.GROUP,
    Resource.TRANSACTIONAL_ID: ResourceType.TRANSACTIONAL_ID,
}
_OPERATIONS = {
    Operation.READ: AclOperation.READ,
    Operation.WRITE: AclOperation.WRITE,
    Operation.CREATE: AclOperation.CREATE,
    Operation.DELETE: AclOperation.DELETE,
    Operation.DESCRIBE: AclOperation.DESCRIBE,
    Operation.DESCRIBE_CONFIGS: AclOperation.DESCRIBE_CONFIGS,
}


@dataclass(frozen=True)
class GrantingBroker:
    """At ``admin_servers`` everybody may do everything; at ``servers`` users have passwords, may what is granted."""

    embedded: EmbeddedBroker
    servers: str

    @property
    def admin_servers(self) -> str:
        return self.embedded.bootstrap_servers

    def config(self, user: str) -> dict[str, str]:
        """The client settings of a user."""
        return {
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": user,
            "sasl.password": f"{user}-pw",
        }

    def config_file(self, user: str, directory: Path) -> str:
        """The same as a file for ``-F``."""
        path = directory / f"{user}.properties"
        path.write_text("".join(f"{name}={value}\n" for name, value in self.config(user).items()))
        return str(path)

    def kantoku(self, user: str, namespace: str) -> Kantoku:
        return Kantoku(namespace, bootstrap_servers=self.servers, config=self.config(user))

    def grant(self, user: str, rights: Iterable[Right]) -> None:
        grant(self.admin_servers, user, rights)

    def revoke(self, user: str, rights: Iterable[Right] | None = None) -> None:
        """These rights; None: all that the user has."""
        revoke(self.admin_servers, user, rights)

    @contextmanager
    def without(self, user: str, right: Right) -> Iterator[None]:
        """Within the block the user has all rights but this one."""
        self.revoke(user, [right])
        try:
            yield
        finally:
            self.grant(user, [right])


@contextmanager
def granting_broker(users: Iterable[str]) -> Iterator[GrantingBroker]:
    """One that runs for the block."""
    passwords = " ".join(f'user_{user}="{user}-pw"' for user in users)
    with reserved_ports(1) as (port,):
        address = f"USERS://127.0.0.1:{port}"

        def settings(_: int, chosen: Mapping[str, str]) -> Mapping[str, str]:
            return {
                "listeners": f"{chosen['listeners']},{address}",
                "advertised.listeners": f"{chosen['advertised.listeners']},{address}",
                "listener.security.protocol.map": f"{chosen['listener.security.protocol.map']},USERS:SASL_PLAINTEXT",
                "listener.name.users.sasl.enabled.mechanisms": "PLAIN",
                "listener.name.users.plain.sasl.jaas.config": (
                    f"org.apache.kafka.common.security.plain.PlainLoginModule required {passwords};"
                ),
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": "User:ANONYMOUS",
            }

        with EmbeddedBroker(short_lived=True, settings=settings) as embedded:
            yield GrantingBroker(embedded, f"127.0.0.1:{port}")


def grant(servers: str, user: str, rights: Iterable[Right]) -> None:
    """Returns when the broker goes by it; ``servers``: where one may do that."""
    admin, wanted = AdminClient({"bootstrap.servers": servers}), [binding(user, right) for right in rights]
    for future in admin.create_acls(wanted).values():
        future.result(10)
    until(lambda: set(wanted) <= _bindings(admin, user), 30, "the rights")


def revoke(servers: str, user: str, rights: Iterable[Right] | None = None) -> None:
    """These rights, None: all that the user has; returns when the broker goes by it."""
    admin = AdminClient({"bootstrap.servers": servers})
    gone = None if rights is None else {binding(user, right) for right in rights}
    filters = [_all_of(user)] if gone is None else [_filter(one) for one in gone]
    for future in admin.delete_acls(filters).values():
        future.result(10)
    until(lambda: not (_bindings(admin, user) if gone is None else _bindings(admin, user) & gone), 30, "its end")


@contextmanager
def granted(servers: str, rights: Mapping[str, Iterable[Right]]) -> Iterator[None]:
    """Within the block users have these rights."""
    for user, wanted in rights.items():
        grant(servers, user, wanted)
    try:
        yield
    finally:
        for user, wanted in rights.items():
            revoke(servers, user, wanted)


def _bindings(admin: AdminClient, user: str) -> set[AclBinding]:
    return set(admin.describe_acls(_all_of(user)).result(10))


def binding(user: str, right: Right) -> AclBinding:
    return AclBinding(
        _RESOURCES[right.resource],
        right.name,
        ResourcePatternType.PREFIXED if right.prefixed else ResourcePatternType.LITERAL,
        f"User:{user}",
        "*",
        _OPERATIONS[right.operation],
        AclPermissionType.ALLOW,
    )


def _filter(binding: AclBinding) -> AclBindingFilter:
    return AclBindingFilter(
        binding.restype,
        binding.name,
        binding.resource_pattern_type,
        binding.principal,
        binding.host,
        binding.operation,
        binding.permission_type,
    )


def _all_of(user: str) -> AclBindingFilter:
    return AclBindingFilter(
        ResourceType.ANY,
        None,
        ResourcePatternType.ANY,
        f"User:{user}",
        None,
        AclOperation.ANY,
        AclPermissionType.ANY,
    )
