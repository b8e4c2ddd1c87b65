"""What a child process is told before its first task."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from kantoku_kafka.logs import are_json

if TYPE_CHECKING:
    from kantoku_kafka.app import Kantoku

__all__ = ["Hello"]


class Hello(NamedTuple):
    """All that a child has to know. It goes through the socket because secrets may be in ``config``.

    Parameters:
        reference: the app, ``module:attribute``.
        task_types: those that the app must have.
        namespace, topics: of the app in the parent, which the command line may have changed.
        bootstrap_servers, timeout_seconds, config: its connection, without what JSON cannot carry (callbacks):
            that part the child has from its own import.
        path: where the parent looks for modules.
        log_level: of the parent's root logger; None if the parent has not configured logging.
        registry: settings of the schema registry that were laid over the app's own.
        json_logs: whether its lines are JSON.
        max_tasks: after so many it is replaced; 0: never.
        max_memory_bytes: more than this it may not have; 0: no limit.
        plugins: that its import does not give the app, as ``module:function``, which does.
    """

    reference: str
    task_types: Sequence[str]
    namespace: str
    topics: Mapping[str, str]
    bootstrap_servers: str
    timeout_seconds: float
    config: Mapping[str, str | int | float | bool]
    path: Sequence[str]
    log_level: int | None
    registry: Mapping[str, Any]
    json_logs: bool = False
    max_tasks: int = 0
    max_memory_bytes: int = 0
    plugins: Sequence[str] = ()

    def __repr__(self) -> str:
        return f"Hello({self.reference!r}, {self.namespace!r})"

    @classmethod
    def of(
        cls,
        kantoku: Kantoku,
        reference: str,
        task_types: Iterable[str],
        *,
        max_tasks: int = 0,
        max_memory_bytes: int = 0,
    ) -> Hello:
        """What a child has to know of this process and of its app."""
        connection, root = kantoku.connection, logging.getLogger()
        return cls(
            reference,
            list(task_types),
            kantoku.topics.namespace,
            dict(kantoku.topics.overrides),
            connection.bootstrap_servers,
            connection.timeout_seconds,
            {name: value for name, value in connection.config.items() if isinstance(value, str | int | float)},
            list(sys.path),
            root.level if root.handlers else None,
            dict(kantoku.registry_settings),
            are_json(root),
            max_tasks,
            max_memory_bytes,
            [plugin.for_children for plugin in kantoku.plugins if plugin.for_children is not None],
        )

    def encode(self) -> bytes:
        """The body of the frame."""
        return json.dumps(self._asdict()).encode()

    @classmethod
    def decode(cls, body: bytes) -> Hello:
        """From the body of the frame; the parent is trusted."""
        return cls(**json.loads(body))
