"""Three brokers that clients reach through a proxy, or directly."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kantoku_kafka.dev.broker import EmbeddedBroker
from kantoku_kafka.dev.errors import EmbeddedBrokerError
from kantoku_kafka.dev.layout import reserved_ports

__all__ = ["Cluster"]

_HEAP_MB = 384
_SMALL_DISK_MB = 128
_HANGING_SECONDS = 10.0
# Nobody is to fence the only broker for being slow: Kafka 4.3.1 forgets to end transactions in partitions that have no
# leader at that moment (KAFKA-20734). After a kill such a broker comes back as late as that.
_OF_ONLY_NODE = {"broker.session.timeout.ms": "600000"}


class Cluster:
    """Started and stopped by ``with``.

    Parameters:
        nodes: how many brokers.
        proxied: whether clients are led through a proxy.
        folder: where the logs of brokers and proxy go.
        settings: of every broker, besides those of the embedded one.
        small_disk: the number of a broker whose disk can be filled, see :meth:`fill_disk`; 0: of none. Needs root.

    Attributes:
        broker: the brokers.
        bootstrap: for executors and spawners.
    """

    def __init__(
        self,
        nodes: int,
        *,
        proxied: bool,
        folder: Path,
        settings: Mapping[str, str] | None = None,
        small_disk: int = 0,
    ) -> None:
        self._settings = {**(_OF_ONLY_NODE if nodes == 1 else {}), **(settings or {})}
        self._nodes, self._folder = nodes, folder
        self._small_disk, self._disk = small_disk, folder / "disk"
        self._log = folder / "proxy.jsonl"
        self._reserved = ExitStack()
        self._fronts = self._reserved.enter_context(reserved_ports(2 * nodes)) if proxied else []
        self._backs, self._fronts = self._fronts[nodes:], self._fronts[:nodes]
        self._proxy: subprocess.Popen[str] | None = None
        self.broker = EmbeddedBroker(nodes=nodes, heap_mb=_HEAP_MB, short_lived=True, settings=self._of_node)

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

    def fill_disk(self) -> None:
        """No byte is left on the small disk."""
        with (self._disk / "filler").open("wb", buffering=0) as file:
            for block_bytes in (1 << 20, 1 << 12, 1):
                with suppress(OSError):
                    while file.write(bytes(block_bytes)) == block_bytes:
                        pass

    def free_disk(self) -> None:
        """There is room again."""
        (self._disk / "filler").unlink(missing_ok=True)

    def end_hanging_transactions(self) -> list[str]:
        """Restart the coordinators of transactions whose end takes long, as an operator does; which these are.

        A coordinator that has got an answer it does not expect never sends the marker again; whoever loads its
        partition does.
        """
        hanging = self._ending()
        time.sleep(_HANGING_SECONDS)
        hanging &= self._ending()
        orphans = ("find-hanging", "--max-transaction-timeout", "0", "--broker-id")
        said = [self._transactions("list"), *(self._transactions(*orphans, str(n + 1)) for n in range(self._nodes))]
        (self._folder / "transactions.txt").write_text("\n".join(said))
        for node in sorted({int(line.split()[1]) for line in hanging}):
            self.broker.kill(node)
            self.broker.restart(node)
        return sorted(hanging)

    def coordinators(self, transactional_id: str) -> list[int]:
        """The broker that coordinates these transactions; none if there is no such id."""
        rows = (line.split() for line in self._transactions("list").splitlines())
        return [int(row[1]) for row in rows if row and row[0] == transactional_id]

    def _ending(self) -> set[str]:
        """Those whose end is decided; a line for each: id, coordinator, producer id, state."""
        lines = (line.rstrip() for line in self._transactions("list").splitlines())
        return {line for line in lines if line.endswith(("PrepareCommit", "PrepareAbort"))}

    def _transactions(self, *command: str) -> str:
        """What Kafka's own tool says."""
        common = ("--bootstrap-server", self.broker.bootstrap_servers)
        tool = "org.apache.kafka.tools.TransactionsCommand"
        return self.broker.run_tool(tool, *common, *command, timeout_seconds=60).stdout

    def __enter__(self) -> Self:
        if self._small_disk:
            self._disk.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_SMALL_DISK_MB}m", "tmpfs", self._disk], check=True)
        if self._fronts:
            ports = [f"{front}:{back}" for front, back in zip(self._fronts, self._backs, strict=True)]
            with self._log.open("w") as log:
                self._proxy = subprocess.Popen(
                    [sys.executable, "-m", "tests.chaos.proxy", *ports], stdin=subprocess.PIPE, stdout=log, text=True
                )
        try:
            self.broker.start()
        except EmbeddedBrokerError:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in range(1, self._nodes + 1):
            with suppress(OSError, EmbeddedBrokerError):  # it may never have started
                shutil.copy(self.broker.log(node), self._folder / f"broker-{node}.log")
        self.broker.stop()
        if self._small_disk:
            subprocess.run(["umount", "--lazy", self._disk], check=True)
        if self._proxy is not None:
            self._proxy.kill()
            self._proxy.communicate()
        self._reserved.close()

    def _of_node(self, number: int, chosen: Mapping[str, str]) -> Mapping[str, str]:
        settings = dict(self._settings)
        if number == self._small_disk:
            settings["log.dirs"] = str(self._disk / "data")
        if not self._fronts:
            return settings
        return {
            **settings,
            "listeners": f"{chosen['listeners']},CLIENT://127.0.0.1:{self._backs[number - 1]}",
            "advertised.listeners": f"{chosen['advertised.listeners']},CLIENT://127.0.0.1:{self._fronts[number - 1]}",
            "listener.security.protocol.map": f"{chosen['listener.security.protocol.map']},CLIENT:PLAINTEXT",
        }
