"""Typed values in and out of task functions, in every pool; bytes that are none of the payload's."""

from __future__ import annotations

import asyncio
import importlib
import json
import re
import threading
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import payload_app
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kantoku_kafka import (
    AvroPayload,
    BadPayload,
    BytesPayload,
    JsonPayload,
    Kantoku,
    Reject,
    Retry,
    Retryable,
    Status,
    Task,
)
from kantoku_kafka.avro.safe import SafeSchema
from kantoku_kafka.bindings import chosen_types
from kantoku_kafka.errors import EnvelopeError, UsageError
from kantoku_kafka.settings import PoolKind
from kantoku_kafka.testing import run_tasks

ORDER: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "fields": [{"name": "id", "type": "string"}, {"name": "amount", "type": "int"}],
}
RECEIPT: dict[str, Any] = {"type": "record", "name": "Receipt", "fields": [{"name": "total", "type": "long"}]}


@dataclass
class Line:
    name: str
    count: int = 1


@pytest.fixture
def kan() -> Kantoku:
    return Kantoku("test")


def one(kan: Kantoku, task_type: str, data: bytes) -> Any:
    return run_tasks(kan, [Task(task_type, data)]).results[0]


@pytest.mark.parametrize("pool", ["thread", "inline"])
def test_a_function_takes_and_returns_json(kan: Kantoku, pool: str) -> None:
    @kan.task("sum", payload=JsonPayload(), pool=pool)
    def add(numbers: list[int]) -> dict[str, int]:
        return {"sum": sum(numbers)}

    assert one(kan, "sum", b"[1, 2, 3]").data == b'{"sum":6}'


def test_a_coroutine_takes_and_returns_avro_with_its_context(kan: Kantoku) -> None:
    order, receipt = AvroPayload(ORDER), AvroPayload(RECEIPT)

    @kan.task("pay", payload=order, result_payload=receipt)
    async def pay(value: dict[str, Any], ctx: Any) -> dict[str, int]:
        await asyncio.sleep(0)
        return {"total": value["amount"] * ctx.attempt}

    assert receipt.load(one(kan, "pay", order.dump({"id": "a", "amount": 7})).data) == {"total": 7}


def test_a_child_process_takes_and_returns_values_and_rejects_what_is_none() -> None:
    tasks = [Task("child", b'{"n": 4}'), Task("child", b"x"), Task("async-child", b'{"n": 1}')]
    run = run_tasks(payload_app.kan, tasks, reference="payload_app:kan", timeout_seconds=60)
    assert [(r.status, r.data) for r in run.results] == [
        (Status.OK, b'{"n":5}'),
        (Status.REJECTED, b""),
        (Status.OK, b'{"n":2}'),
    ]
    assert [payload_app.kan.codec.decode_task(letter.value).data for letter in run.dead_letters] == [b"x"]


def test_pydantic_checks_types(kan: Kantoku) -> None:
    @kan.task("count", payload=JsonPayload(list[Line]), result_payload=JsonPayload(Line))
    def count(lines: list[Line]) -> Line:
        return Line("all", sum(line.count for line in lines))

    assert one(kan, "count", b'[{"name": "a"}, {"name": "b", "count": 2}]').data == b'{"name":"all","count":3}'
    refused = one(kan, "count", b'[{"name": 1}]')
    assert (refused.status, refused.error.type) == (Status.REJECTED, "BadPayload")
    with pytest.raises(UsageError, match="JsonPayload cannot take"):
        JsonPayload(threading.Lock)


def test_one_side_may_be_bytes(kan: Kantoku) -> None:
    @kan.task("pack", payload=JsonPayload(), result_payload=BytesPayload())
    def pack(value: str) -> bytes:
        return value.encode()

    @kan.task("parse", result_payload=JsonPayload())
    def parse(data: bytes) -> list[int]:
        return list(data)

    assert one(kan, "pack", b'"ab"').data == b"ab"
    assert one(kan, "parse", b"\1\2").data == b"[1,2]"


def test_bad_data_are_rejected_with_a_dead_letter_and_run_nothing(kan: Kantoku) -> None:
    ran: list[Any] = []

    @kan.task("see", payload=JsonPayload(), retry=Retry(max_attempts=3))
    def see(value: Any) -> None:
        ran.append(value)

    bad = [b"", b"{", b"\xff", b"NaN", b"[" * 100_000, b"[] []", b'"\\ud800', b"9" * 5000]
    run = run_tasks(kan, [Task("see", data) for data in bad])
    assert [(r.status, r.error and r.error.type, r.attempt) for r in run.results] == [
        (Status.REJECTED, "BadPayload", 1)
    ] * len(bad)
    assert run.results[0].error is not None
    assert run.results[0].error.message.startswith("The data cannot be read: JSONDecodeError")
    assert sorted(kan.codec.decode_task(letter.value).data for letter in run.dead_letters) == sorted(bad)
    assert dict(run.dead_letters[0].headers)["kantoku-error-type"] == b"BadPayload"
    assert not ran


def test_a_plain_reject_leaves_no_dead_letter(kan: Kantoku) -> None:
    @kan.task("no", payload=JsonPayload())
    def no(value: Any) -> None:
        raise Reject("not this one")

    run = run_tasks(kan, [Task("no", b"1")])
    assert (run.results[0].status, run.dead_letters) == (Status.REJECTED, [])


def test_a_result_that_cannot_be_written_fails_its_task_and_publishes_nothing_of_it(kan: Kantoku) -> None:
    @kan.task("odd", payload=JsonPayload())
    def odd(value: Any, ctx: Any) -> Any:
        ctx.produce("side", None, b"never")
        return {"set": object, "nan": float("nan"), "lone": "\ud800"}[value]

    @kan.task("avro", payload=JsonPayload(), result_payload=AvroPayload(RECEIPT))
    async def avro(value: Any) -> Any:
        return value

    run = run_tasks(kan, [Task("odd", b'"set"'), Task("odd", b'"nan"'), Task("odd", b'"lone"'), Task("avro", b"{}")])
    assert {(r.status, r.error and r.error.type) for r in run.results} == {(Status.FAILED, "unserialisable_result")}
    assert run.results[0].error is not None
    assert "What the task returned, type, cannot be written: TypeError" in run.results[0].error.message
    assert not run.log.read("side")


def test_a_payload_steers_by_the_errors_of_tasks(kan: Kantoku) -> None:
    class Slow:
        blocking = True
        asked = 0

        def load(self, data: bytes) -> Any:
            self.asked += 1
            assert threading.current_thread() is not threading.main_thread()
            if self.asked < 3:
                raise Retryable("not yet")
            return json.loads(data)

        def dump(self, value: Any) -> bytes:
            return json.dumps(value).encode()

    slow, seen = Slow(), list[str]()

    @kan.task("wait", payload=slow)
    async def wait(value: Any) -> Any:
        seen.append(threading.current_thread().name)
        return value

    result = one(kan, "wait", b"[1]")
    assert (result.data, result.attempt, slow.asked) == (b"[1]", 3, 3)
    assert seen == ["kantoku-asyncio"]


def test_what_runs_too_long_is_timed_out_though_its_result_is_being_written(kan: Kantoku) -> None:
    written = threading.Event()

    class Slow(JsonPayload):
        blocking = True

        def dump(self, value: Any) -> bytes:
            written.wait(30)
            return super().dump(value)

    @kan.task("slow", payload=Slow(), timeout_seconds=0.2)
    async def slow(value: Any) -> Any:
        return value

    try:
        assert one(kan, "slow", b"1").status is Status.TIMED_OUT
    finally:
        written.set()


def test_a_payload_that_waits_for_a_network_stays_out_of_the_loop(kan: Kantoku) -> None:
    class Slow(JsonPayload):
        blocking = True

    with pytest.raises(UsageError, match="pool 'inline' must not: use 'thread'"):
        kan.task("t", payload=Slow(), pool="inline")(print)
    kan.task("t", payload=Slow())(print)
    with pytest.raises(UsageError, match="pool 'inline' must not"):
        chosen_types(kan, None, PoolKind.INLINE, None)


@pytest.mark.parametrize("wrong", [JsonPayload, json, "json", 0])
def test_what_is_no_payload_is_said_at_once(kan: Kantoku, wrong: Any) -> None:
    with pytest.raises(UsageError, match=r"is no payload; make one, e\.g\. payload=JsonPayload\(\)"):
        kan.task("t", payload=wrong)


def test_long_data_are_not_looked_at() -> None:
    with pytest.raises(BadPayload, match="6 bytes; the payload takes 5 at most"):
        AvroPayload("string", max_bytes=5).load(b"\x0ahello")


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs/howto/payloads.md").read_text("utf-8")
    (tmp_path / "payloads_page.py").write_text("\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)), "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    app = importlib.import_module("payloads_page")
    order = app.orders.dump(app.Order("o-1", 7))
    tasks = [Task("total", b"[1.5, 2]"), Task("pay", order), Task("receipt", order), Task("sort", b"b\na")]
    assert [result.data for result in run_tasks(app.kan, tasks).results] == [
        b'{"total":3.5}',
        b'{"paid":"o-1"}',
        b"\x06o-1",
        b"a\nb",
    ]


# --- Avro of others


VALUES = st.recursive(
    st.sampled_from(["null", "boolean", "int", "long", "float", "double", "bytes", "string"])
    | st.integers(0, 8).map(lambda size: {"type": "fixed", "name": f"F{size}", "size": size}),
    lambda inner: (
        inner.map(lambda items: {"type": "array", "items": items})
        | inner.map(lambda values: {"type": "map", "values": values})
        | st.lists(inner, max_size=3).map(
            lambda types: {
                "type": "record",
                "name": "R",
                "fields": [{"name": f"f{n}", "type": kind} for n, kind in enumerate(types)],
            }
        )
    ),
    max_leaves=6,
)


@given(VALUES, st.binary(max_size=60))
def test_any_bytes_by_any_schema_are_a_value_or_refused(schema: Any, body: bytes) -> None:
    try:
        safe = SafeSchema(json.dumps(schema))
    except UsageError:
        return
    with suppress(EnvelopeError):
        safe.decode(body)


@given(
    st.recursive(
        st.text(max_size=4) | st.integers(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["type", "items", "name", "fields", "symbols", "size", "values"]), inner)
        ),
    )
)
def test_any_json_is_a_safe_schema_or_refused(schema: Any) -> None:
    with suppress(UsageError):
        SafeSchema(json.dumps(schema))


@pytest.mark.parametrize("schema", ["string", " string\n", '"string"'])
def test_a_bare_name_is_a_schema_whose_text_is_json(schema: str) -> None:
    safe = SafeSchema(schema)
    assert (safe.text, safe.decode(safe.encode("hi"))) == ('"string"', "hi")


def doubled(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "record", "name": "L0", "fields": []}
    for n in range(1, levels):
        fields = [{"name": "a", "type": schema}, {"name": "b", "type": f"L{n - 1}"}]
        schema = {"type": "record", "name": f"L{n}", "fields": fields}
    return schema


def with_nulls(count: int) -> dict[str, Any]:
    """A record of one byte."""
    nulls = [{"name": f"n{n}", "type": "null"} for n in range(count)]
    return {"type": "record", "name": f"Nulls{count}", "fields": [*nulls, {"name": "b", "type": "boolean"}]}


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "record", "name": "N", "fields": [{"name": "next", "type": ["null", "N"]}]}, "N is recursive"),
        ({"type": "array", "items": "null"}, "an array or a map may hold more than 8 values a byte"),
        ({"type": "array", "items": {"type": "record", "name": "E", "fields": []}}, "8 values a byte"),
        ({"type": "array", "items": {"type": "fixed", "name": "F", "size": -1}}, "8 values a byte"),
        ({"type": "array", "items": with_nulls(9)}, "8 values a byte"),
        ({"type": "array", "items": ["boolean", with_nulls(15)]}, "8 values a byte"),
        ({"type": "map", "values": {"type": "array", "items": ["int", with_nulls(9_000)]}}, "8 values a byte"),
        ({"type": "map", "values": with_nulls(9_000)}, "8 values a byte"),
        (doubled(20), "more than 10,000 parts"),
        (doubled(60), "more than 128 levels"),
        ("[" * 100_000, "no Avro schema"),
        ('{"type": "nope"}', "no Avro schema"),
        ({"type": "fixed", "name": "D", "size": 10**6, "logicalType": "decimal", "precision": 9}, "a decimal has more"),
    ],
)
def test_bombs_are_refused(schema: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        SafeSchema(schema)


@pytest.mark.parametrize("schema", [with_nulls(6), ["null", with_nulls(6)], {"type": "map", "values": "null"}])
def test_what_has_few_values_a_byte_may_stand_in_arrays(schema: Any) -> None:
    assert SafeSchema({"type": "array", "items": schema}).decode(b"\0") == []


@given(st.binary(max_size=100))
def test_no_bytes_become_more_values_than_their_number_allows(body: bytes) -> None:
    item = {"type": "record", "name": "I", "fields": [{"name": "u", "type": ["null", "boolean", with_nulls(13)]}]}
    schema = SafeSchema({"type": "array", "items": {"type": "map", "values": item}})
    with suppress(EnvelopeError):
        assert values_in(schema.decode(body)) <= 8 * len(body)


def values_in(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(values_in, value.values()))
    return 1 + sum(map(values_in, value)) if isinstance(value, list) else 1


def test_decimals_are_read_and_none_takes_minutes() -> None:
    cents = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}
    fields = [{"name": "net", "type": cents}, {"name": "tax", "type": ["null", cents]}]
    bill = SafeSchema({"type": "record", "name": "Bill", "fields": fields})
    value = {"net": Decimal("1.25"), "tax": Decimal("-0.30")}
    assert bill.decode(bill.encode(value)) == bill.decode(bill.encode(value), bill) == value
    with pytest.raises(EnvelopeError, match="a decimal has 4,194,304 bytes"):
        bill.decode(SafeSchema("bytes").encode(b"\x7f" * (4 << 20)) + b"\0")


def test_schemas_may_refer_to_others_and_be_resolved() -> None:
    money = '{"type": "record", "name": "Money", "namespace": "x", "fields": [{"name": "cents", "type": "int"}]}'
    bill = {
        "type": "record",
        "name": "Bill",
        "fields": [{"name": "net", "type": "x.Money"}, {"name": "tax", "type": "x.Money"}],
    }
    writer = SafeSchema(bill, [money])
    body = writer.encode({"net": {"cents": 4}, "tax": {"cents": 1}})
    reader = SafeSchema(
        {**bill, "fields": [bill["fields"][0], {"name": "paid", "type": "boolean", "default": False}]}, [money]
    )
    assert writer.decode(body) == {"net": {"cents": 4}, "tax": {"cents": 1}}
    assert writer.decode(body, reader) == {"net": {"cents": 4}, "paid": False}
    with pytest.raises(EnvelopeError, match="1 bytes follow"):
        writer.decode(body + b"\0")


def test_avro_is_what_others_write() -> None:
    import io

    body = io.BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(ORDER), {"id": "a", "amount": 3})
    assert AvroPayload(ORDER).dump({"id": "a", "amount": 3}) == body.getvalue()
