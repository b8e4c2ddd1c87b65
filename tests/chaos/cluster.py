"""Three brokers that clients reach through a proxy, or directly."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kantoku_kafka.dev.broker import EmbeddedBroker
from kantoku_kafka.dev.layout import free_ports

__all__ = ["Cluster"]

_HEAP_MB = 384


class Cluster:
    """Started and stopped by ``with``.

    Parameters:
        nodes: how many brokers.
        proxied: whether clients are led through a proxy.
        folder: where the proxy's log goes.
        settings: of every broker, besides those of the embedded one.

    Attributes:
        broker: the brokers.
        bootstrap: for executors and spawners.
    """

    def __init__(self, nodes: int, *, proxied: bool, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        self._settings = dict(settings or {})
        self._log = folder / "proxy.jsonl"
        self._fronts = free_ports(2 * nodes) if proxied else []
        self._backs, self._fronts = self._fronts[nodes:], self._fronts[:nodes]
        self._proxy: subprocess.Popen[str] | None = None
        self.broker = EmbeddedBroker(nodes=nodes, heap_mb=_HEAP_MB, settings=self._of_node)

    @property
    def bootstrap(self) -> str:
        if self._fronts:
            return ",".join(f"127.0.0.1:{port}" for port in self._fronts)
        return self.broker.bootstrap_servers

    def command(self, **rule: Any) -> None:
        """Tell the proxy what to do, see :mod:`tests.chaos.proxy`."""
        assert self._proxy is not None and self._proxy.stdin is not None, "this cluster has no proxy"
        self._proxy.stdin.write(json.dumps(rule) + "\n")
        self._proxy.stdin.flush()

    def proxy_log(self) -> list[dict[str, Any]]:
        """What the proxy did."""
        return [json.loads(line) for line in self._log.read_text().splitlines()] if self._log.exists() else []

    def __enter__(self) -> Self:
        if self._fronts:
            ports = [f"{front}:{back}" for front, back in zip(self._fronts, self._backs, strict=True)]
            with self._log.open("w") as log:
                self._proxy = subprocess.Popen(
                    [sys.executable, "-m", "tests.chaos.proxy", *ports], stdin=subprocess.PIPE, stdout=log, text=True
                )
        self.broker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.broker.stop()
        if self._proxy is not None:
            self._proxy.kill()
            self._proxy.communicate()

    def _of_node(self, number: int, chosen: Mapping[str, str]) -> Mapping[str, str]:
        if not self._fronts:
            return self._settings
        return {
            **self._settings,
            "listeners": f"{chosen['listeners']},CLIENT://127.0.0.1:{self._backs[number - 1]}",
            "advertised.listeners": f"{chosen['advertised.listeners']},CLIENT://127.0.0.1:{self._fronts[number - 1]}",
            "listener.security.protocol.map": f"{chosen['listener.security.protocol.map']},CLIENT:PLAINTEXT",
        }
