"""``--http``: what a process shows of itself while it runs: probes, and metrics."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from kantoku_kafka.app import Kantoku
from kantoku_kafka.errors import UsageError
from kantoku_kafka.meter import Vitals
from kantoku_kafka.observability.exposition import Exposition
from kantoku_kafka.observability.health import PROBES
from kantoku_kafka.observability.http import Address, Page, StatusServer
from kantoku_kafka.observability.measured import Measured

__all__ = ["shown"]

_log = logging.getLogger(__name__)
_TEXT, _JSON = "text/plain; charset=utf-8", "application/json"


def shown(
    http: str | None, kantoku: Kantoku, vitals: Callable[[], Vitals], loops: Collection[str], number: int | None
) -> AbstractContextManager[object]:
    """Serve until the block ends, from here on. Without ``http`` nothing is measured either.

    Parameters:
        http: ``HOST:PORT``.
        kantoku: the app, before its executor begins.
        vitals: of the process.
        loops: which it has.
        number: of this process among those of its supervisor: its port is so many further.

    Raises:
        UsageError: for an address that is none, or not to be had.
    """
    if http is None:
        return nullcontext()
    address = Address.of(http).plus(number or 0)
    pages: dict[str, Callable[[str], Page]] = {path: partial(_probe, vitals, path) for path in PROBES}
    server = StatusServer(address, {"/metrics": _metrics(kantoku, loops), **pages})
    _log.info("listening on http://%s", server.address, extra={"action": "listening"})
    return server


def _metrics(kantoku: Kantoku, loops: Collection[str]) -> Callable[[str], Page]:
    measured = Measured(loops)
    try:
        exposition = Exposition(measured)
    except UsageError as error:
        missing = Page(501, _TEXT, f"{error}\n".encode())
        return lambda _: missing
    kantoku.use(measured)
    return lambda accepted: Page(200, *exposition.text(accepted))


def _probe(vitals: Callable[[], Vitals], path: str, _: str) -> Page:
    reasons = PROBES[path](vitals(), time.monotonic())
    body = {"status": "failing" if reasons else "ok", "reasons": reasons}
    return Page(503 if reasons else 200, _JSON, f"{json.dumps(body)}\n".encode())
