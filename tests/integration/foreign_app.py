"""Tasks that come by topics of others; the namespace is that of the command line, and their topics begin with it."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime

from kantoku_kafka import Context, Kantoku, Retry
from kantoku_kafka.formats import CloudEvents, Json, Raw

NAMESPACE = os.environ.get("FOREIGN_NAMESPACE", "t-foreign")
SINCE_MS = int(os.environ.get("FOREIGN_SINCE_MS", "0"))
since = datetime.fromtimestamp(SINCE_MS / 1_000, UTC) if SINCE_MS else None

kan = Kantoku(NAMESPACE)


@kan.task(
    "ship",
    pool=os.environ.get("FOREIGN_POOL"),
    from_topics={
        f"{NAMESPACE}-orders": Json(
            id_field="id", since=since, reply_header="reply-to", reply_topics=[f"{NAMESPACE}-answers*"]
        )
    },
    retry=Retry(max_attempts=2, initial_seconds=0.1),
    reply_to=f"{NAMESPACE}-shipments",
    reply_format=Json(),
)
def ship(data: bytes, ctx: Context) -> bytes:
    """Fails as often as the order says."""
    if b"always" in data or (b"once" in data and ctx.attempt == 1):
        raise ConnectionError("no carrier")
    if b"slow" in data:
        time.sleep(0.05)
    assert ctx.envelope.data == data
    return b'{"attempt": %d}' % ctx.attempt


@kan.task("note", from_topics={f"{NAMESPACE}-raw": Raw()})
def note(data: bytes) -> bytes:
    return data


@kan.task("placed", from_topics={f"{NAMESPACE}-events": CloudEvents(types=["order.placed"])})
def placed(data: bytes, ctx: Context) -> bytes:
    return dict(ctx.headers)["ce_id"] or b""
