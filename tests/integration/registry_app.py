"""Tasks whose envelopes and payloads are in the forms of a schema registry."""

from __future__ import annotations

import os
from typing import Any

from kantoku_kafka import Kantoku, Retry
from kantoku_kafka.formats import Raw
from kantoku_kafka.registry import Registry, RegistryAvro

ORDER = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [{"name": "id", "type": "string"}, {"name": "amount", "type": "int"}],
}
RECEIPT = {
    "type": "record",
    "name": "Receipt",
    "namespace": "shop",
    "fields": [{"name": "order", "type": "string"}, {"name": "total", "type": "long"}],
}

registry = Registry(
    os.environ.get("KANTOKU_TEST_REGISTRY", "http://localhost:8081"),
    envelopes={"results": "wire", "events": os.environ.get("KANTOKU_TEST_FORM", "wire"), "tasks.echo": "wire"},
    timeout_seconds=2,
)
kan = Kantoku("registry", registry=registry)
order = RegistryAvro(registry, "orders-value", ORDER)
receipt = RegistryAvro(registry, "receipts-value", RECEIPT)


@kan.task("echo")
def echo(data: bytes) -> bytes:
    return data


@kan.task(
    "pay",
    payload=order,
    result_payload=receipt,
    from_topics={os.environ.get("KANTOKU_TEST_ORDERS", "orders"): Raw()},
    retry=Retry(initial_seconds=0.5, factor=1, max_attempts=60),
)
def pay(value: dict[str, Any]) -> dict[str, Any]:
    return {"order": value["id"], "total": 2 * value["amount"]}


@kan.task("pay-async", payload=order, result_payload=receipt)
async def pay_async(value: dict[str, Any]) -> dict[str, Any]:
    return pay(value)


@kan.task("pay-child", payload=order, result_payload=receipt, pool="process")
def pay_child(value: dict[str, Any]) -> dict[str, Any]:
    return pay(value)
