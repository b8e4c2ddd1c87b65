"""A TCP proxy that understands Kafka's frames, so that a fault can hit one kind of request and nothing else.

One process for a whole cluster: node N listens where the brokers advertise it, and is forwarded to its real port. It
takes commands as JSON lines on stdin, and writes what it did as JSON lines to stdout:

    {"do": "hold", "api": 26, "cut_seconds": 0.1, "release_seconds": 2.0}

``hold`` stops the next request of that kind, closes the client's side after ``cut_seconds`` and hands the request to
the broker after ``release_seconds``, as a network that delays it would (KAFKA-17754). ``drop`` loses the next request
of that kind, ``mute`` its response; with ``seconds`` all of them meanwhile. ``delay`` adds ``delay_seconds`` to every
frame, ``freeze`` forwards nothing and closes nothing, ``deafen`` forwards requests but no responses, ``cut`` closes
connections and accepts none: these four for ``seconds``. ``node`` and ``client`` (a part of the client id) narrow each
of them.

Frames: a size (4 bytes), then api key (2), api version (2), correlation id (4), client id (2 + length). A broker
answers the requests of a connection in their order.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "ADD_OFFSETS",
    "ADD_PARTITIONS",
    "EFFECTS",
    "END_TXN",
    "FETCH",
    "HEARTBEAT",
    "PRODUCE",
    "TXN_OFFSET_COMMIT",
    "main",
]

PRODUCE, FETCH, HEARTBEAT = 0, 1, 12
ADD_PARTITIONS, ADD_OFFSETS, END_TXN, TXN_OFFSET_COMMIT = 24, 25, 26, 28
EFFECTS = frozenset({"hold", "drop", "mute", "delay", "freeze", "deafen", "cut"})
"""What its log says of a rule that has met somebody: of the first three each time, of the others once."""
_HEADER = struct.Struct(">hhih")
_LOOK_SECONDS = 0.02


@dataclass(slots=True)
class Rule:
    """A command, as long as it is in force."""

    do: str
    api: int | None = None
    node: int | None = None
    client: str = ""
    cut_seconds: float = 0.1
    release_seconds: float = 2.0
    delay_seconds: float = 0.0
    seconds: float = 0.0
    until: float = 0.0
    met: bool = False

    def covers(self, node: int, client: str) -> bool:
        return self.node in (None, node) and self.client in client


@dataclass(slots=True)
class Proxy:
    """The rules, and what is connected."""

    rules: list[Rule] = field(default_factory=list)
    connections: set[Connection] = field(default_factory=set)

    def take(self, line: str) -> None:
        """A command."""
        rule = Rule(**json.loads(line))
        rule.until = time.monotonic() + rule.seconds
        self.rules.append(rule)
        self.note("rule", **json.loads(line))
        if rule.do == "cut":
            for connection in [c for c in self.connections if rule.covers(c.node, c.client)]:
                self.meets(rule)
                connection.close()

    def lasting(self, node: int, client: str, *kinds: str) -> Rule | None:
        """The rule of one of these kinds that is in force for a connection."""
        now = time.monotonic()
        self.rules = [rule for rule in self.rules if not rule.seconds or rule.until > now]
        found = next((r for r in self.rules if r.seconds and r.do in kinds and r.covers(node, client)), None)
        if found is not None:
            self.meets(found)
        return found

    def meets(self, rule: Rule) -> None:
        """It is noted once that a rule has met a connection."""
        if not rule.met:
            rule.met = True
            self.note(rule.do)

    def next_for(self, node: int, client: str, api: int) -> Rule | None:
        """The rule that is for this request; one without a duration is used up."""
        now = time.monotonic()
        for rule in self.rules:
            if rule.api == api and rule.covers(node, client) and (not rule.seconds or rule.until > now):
                if not rule.seconds:
                    self.rules.remove(rule)
                return rule
        return None

    def note(self, what: str, **more: Any) -> None:
        """Into the log."""
        sys.stdout.write(json.dumps({"at": time.time(), "what": what, **more}) + "\n")
        sys.stdout.flush()


class Connection:
    """One client's connection to one node."""

    def __init__(self, proxy: Proxy, node: int, down: Streams, up: Streams) -> None:
        self.proxy = proxy
        self.node = node
        self.client = ""
        self._from_client, self._to_client = down
        self._from_broker, self._to_broker = up
        self._muted: deque[bool] = deque()  # of the requests under way, whether the answer is to be lost

    async def run(self) -> None:
        requests = asyncio.create_task(self._requests())
        responses = asyncio.create_task(self._responses())
        try:
            await asyncio.wait((requests, responses), return_when=asyncio.FIRST_COMPLETED)
        finally:
            requests.cancel()
            responses.cancel()
            self.close()

    def close(self) -> None:
        self._to_client.close()
        self._to_broker.close()

    async def _requests(self) -> None:
        while True:
            size = await self._from_client.readexactly(4)
            frame = await self._from_client.readexactly(int.from_bytes(size))
            api, _, _, client_size = _HEADER.unpack_from(frame)
            self.client = frame[_HEADER.size : _HEADER.size + max(0, client_size)].decode("utf-8", "replace")
            rule = self.proxy.next_for(self.node, self.client, api)
            await self._wait("freeze")
            if rule is not None and rule.do == "drop":
                self.proxy.note("drop", api=api, node=self.node, client=self.client)
                return
            if rule is not None and rule.do == "hold":
                await self._hold(rule, size + frame, api)
                return
            self._muted.append(rule is not None and rule.do == "mute")
            self._to_broker.write(size + frame)
            await self._to_broker.drain()

    async def _hold(self, rule: Rule, frame: bytes, api: int) -> None:
        """The client gives up, the request arrives all the same."""
        held = time.monotonic()
        await asyncio.sleep(rule.cut_seconds)
        self._to_client.close()
        await asyncio.sleep(max(0.0, held + rule.release_seconds - time.monotonic()))
        self._to_broker.write(frame)
        await self._to_broker.drain()
        self._muted.append(True)
        seconds = time.monotonic() - held
        self.proxy.note("hold", api=api, node=self.node, client=self.client, seconds=round(seconds, 3))
        await asyncio.sleep(2)

    async def _responses(self) -> None:
        while True:
            size = await self._from_broker.readexactly(4)
            frame = await self._from_broker.readexactly(int.from_bytes(size))
            await self._wait("freeze", "deafen")
            muted = self._muted.popleft() if self._muted else False
            if self._to_client.is_closing():
                if muted:
                    self.proxy.note("answered", node=self.node, client=self.client, answer=frame[4:].hex())
                continue
            if muted:
                self.proxy.note("mute", node=self.node, client=self.client, answer=frame[4:].hex())
                return
            self._to_client.write(size + frame)
            await self._to_client.drain()

    async def _wait(self, *kinds: str) -> None:
        delay = self.proxy.lasting(self.node, self.client, "delay")
        if delay is not None:
            await asyncio.sleep(delay.delay_seconds)
        while self.proxy.lasting(self.node, self.client, *kinds) is not None:
            await asyncio.sleep(_LOOK_SECONDS)


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _serve(proxy: Proxy, node: int, front: int, back: int) -> asyncio.Server:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if proxy.lasting(node, "", "cut") is not None:
            writer.close()
            return
        try:
            up = await asyncio.open_connection("127.0.0.1", back)
        except OSError:
            writer.close()
            return
        connection = Connection(proxy, node, (reader, writer), up)
        proxy.connections.add(connection)
        try:
            await connection.run()
        finally:
            proxy.connections.discard(connection)

    return await asyncio.start_server(connected, "127.0.0.1", front, limit=1 << 20)


async def _run(ports: list[tuple[int, int]]) -> None:
    proxy = Proxy()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, __: None)  # connections end in every possible way here
    servers = [await _serve(proxy, node, front, back) for node, (front, back) in enumerate(ports, 1)]
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    proxy.note("listening")
    while line := await commands.readline():
        proxy.take(line.decode())
    for server in servers:
        server.close()


def main() -> None:
    """``FRONT:BACK ...``: the two ports of each node."""
    asyncio.run(_run([(int(a), int(b)) for a, _, b in (word.partition(":") for word in sys.argv[1:])]))


if __name__ == "__main__":
    main()
