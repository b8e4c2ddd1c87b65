"""Calls to an HTTP service with asyncio: hundreds at a time in one executor, each one's outcome recorded once.

pip install httpx
kantoku-kafka topics create http_calls:kan --yes
kantoku-kafka run-executor http_calls:kan -c 200
python http_calls.py https://example.org/ https://example.com/
"""

from __future__ import annotations

import json
import sys

import httpx

from kantoku_kafka import Context, Kantoku, NonRetryable, Retryable, Task

kan = Kantoku("calls")


@kan.task("fetch")
async def fetch(data: bytes, ctx: Context) -> bytes:
    """``{"url": ...}`` in, ``{"status": ..., "bytes": ...}`` out."""
    url = json.loads(data)["url"]
    try:
        # The id stays the same if the call is repeated: a service that remembers it acts once.
        async with httpx.AsyncClient(timeout=10, headers={"Idempotency-Key": ctx.task_id}) as client:
            answer = await client.get(url)
    except httpx.TransportError as error:
        raise Retryable(f"{url} does not answer: {error}") from error
    if answer.status_code >= 500:
        raise Retryable(f"{url} answers {answer.status_code}")
    if answer.status_code >= 400:
        raise NonRetryable(f"{url} answers {answer.status_code}")
    ctx.event("http.answered", status=str(answer.status_code))
    return json.dumps({"status": answer.status_code, "bytes": len(answer.content)}).encode()


def main(urls: list[str]) -> None:
    spawned = {kan.spawn(Task("fetch", json.dumps({"url": url}).encode())).id: url for url in urls}
    for result in kan.as_completed(spawned, timeout_seconds=60):
        said = result.data.decode() if result.ok or result.error is None else result.error.message
        print(f"{spawned[result.task_id]}: {said}")
    kan.close()


if __name__ == "__main__":
    main(sys.argv[1:])
