"""Records of others become tasks of ours, with the real loop over the log in memory."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from kantoku_kafka import Context, Kantoku, Reject, Retry, Status
from kantoku_kafka.errors import UsageError
from kantoku_kafka.formats import CloudEvents, ForeignRecord, ForeignTask, Format, Json, Raw
from kantoku_kafka.ids import idempotent_id
from kantoku_kafka.job import Message
from kantoku_kafka.model import Headers, Result
from kantoku_kafka.testing import InMemoryLog, Record, Run, run_tasks

ORDER = b'{"order_id": 7, "lines": 2}'


def app(one: Format, **task: object) -> Kantoku:
    kan = Kantoku("shop")

    @kan.task("ship", from_topics={"orders": one}, **task)  # type: ignore[arg-type]  # passed through
    def ship(data: bytes, ctx: Context) -> bytes:
        if data == b"fail at first" and ctx.attempt == 1:
            raise ConnectionError
        return b"%d %s" % (ctx.attempt, data)

    return kan


def run(kan: Kantoku, *values: bytes, headers: Headers = (), key: bytes | None = b"customer-7") -> Run:
    log = InMemoryLog()
    log.append(*(Message("orders", key, value, headers) for value in values))
    return run_tasks(kan, [], log=log)


def results(done: Run) -> list[Result]:
    return sorted(done.all_results, key=lambda result: result.source)


def causes(letter: Record) -> dict[str, str]:
    return {name.removeprefix("kantoku-"): (value or b"").decode("utf-8", "replace") for name, value in letter.headers}


def test_data_key_headers_and_place_are_those_of_the_record() -> None:
    done = run(app(Json()), ORDER, headers=(("trace", b"1"), ("kantoku-timer", b"forged"), ("none", None)))
    (result,) = results(done)
    assert (result.status, result.data) == (Status.OK, b"1 " + ORDER)
    assert result.source.topic == "orders"
    (record,) = done.log.read("shop.results")
    assert record.headers == (("trace", b"1"), ("none", None))
    assert [event.source for event in done.events] == [result.source] * 3


def test_an_id_that_its_writer_gave_is_an_idempotency_key() -> None:
    done = run(app(Json(id_field="order_id")), ORDER, ORDER)
    (result,) = results(done)
    assert result.task_id == idempotent_id("shop", "ship", "7")
    assert [event.name for event in done.events].count("duplicate") == 1


def test_without_one_each_record_is_a_task_and_the_same_one_when_it_is_read_again() -> None:
    once, twice = (run(app(Raw()), b"same", b"same", b"same") for _ in range(2))
    assert len({result.task_id for result in results(once)}) == 3
    assert [result.task_id for result in results(twice)] == [result.task_id for result in results(once)]


def test_what_is_tried_again_goes_by_the_own_topic() -> None:
    kan = app(Raw(id_header="id"), retry=Retry(max_attempts=2))
    done = run(kan, b"fail at first", headers=(("id", b"x"),))
    (result,) = results(done)
    assert (result.data, result.attempt, result.source.topic) == (b"2 fail at first", 2, "shop.tasks.ship")
    (again,) = done.log.read("shop.tasks.ship")
    assert (again.key, again.headers[0]) == (b"customer-7", ("id", b"x"))
    assert len(done.log.read("orders")) == 1


@pytest.mark.parametrize(
    ("one", "value", "headers", "reason"),
    [
        (Raw(), b"", (), "no value"),  # in memory an empty value is a null one
        (Raw(id_header="id"), b"x", (), "no header 'id'"),
        (Raw(id_header="id"), b"x", (("id", b"\xff"),), "not UTF-8"),
        (Raw(id_header="id"), b"x", (("id", None),), "0 characters"),
        (Json(), b"{", (), "no JSON"),
        (Json(), b'{"a": NaN}', (), "no JSON"),
        (Json(), b"\xff\xfe{\0}\0", (), "no JSON"),
        (Json(), b"[" * 100_000, (), "no JSON"),
        (Json(id_field="order_id"), b"[]", (), "no field 'order_id'"),
        (Json(id_field="order_id"), b'{"order_id": true}', (), "is a bool"),
        (Json(id_field="order_id"), b'{"order_id": "\\ud800"}', (), "surrogate"),
        (CloudEvents(), b"{}", (), "no CloudEvent"),
    ],
)
def test_what_no_task_can_be_read_from_is_a_dead_letter(
    one: Format, value: bytes, headers: Headers, reason: str
) -> None:
    done = run(app(one), value, headers=headers)
    assert done.all_results == []
    (letter,) = done.dead_letters
    assert (letter.key, letter.value, letter.headers[: len(headers)]) == (b"customer-7", value, headers)
    cause = causes(letter)
    assert reason in cause["error-message"]
    assert (cause["source-topic"], cause["input"]) == ("orders", "")


def test_a_task_whose_attempts_are_used_up_leaves_an_envelope() -> None:
    kan = Kantoku("shop")

    @kan.task("ship", from_topics={"orders": Json()}, retry=Retry(max_attempts=1))
    def ship(data: bytes) -> bytes:
        raise ConnectionError

    done = run(kan, ORDER)
    (letter,) = done.dead_letters
    task = kan.codec.decode_task(letter.value)
    assert (task.type, task.data, task.id) == ("ship", ORDER, results(done)[0].task_id)
    assert (causes(letter)["source-topic"], causes(letter)["input"]) == ("orders", "shop.tasks.ship")


def test_types_choose_the_task_type_and_leave_the_rest_alone() -> None:
    kan = Kantoku("shop")

    @kan.task("ship", from_topics={"orders": Raw(type_header="kind", types=["placed", "paid"])})
    def ship(data: bytes) -> bytes:
        return b"ship " + data

    @kan.task("bill", from_topics={"orders": Raw(type_header="kind", types=["due"])})
    def bill(data: bytes) -> bytes:
        raise Reject("no")

    log = InMemoryLog()
    for kind in (b"placed", b"due", b"paid", b"unknown"):
        log.append(Message("orders", b"k", kind, (("kind", kind),)))
    log.append(Message("orders", b"k", b"no kind"))
    done = run_tasks(kan, [], log=log)
    assert [(r.type, r.data, r.status) for r in results(done)] == [
        ("ship", b"ship placed", Status.OK),
        ("bill", b"", Status.REJECTED),
        ("ship", b"ship paid", Status.OK),
    ]
    (letter,) = done.dead_letters
    assert "no header 'kind'" in causes(letter)["error-message"]


def test_a_structured_event_is_its_data_with_attributes_as_headers() -> None:
    event = {
        "specversion": "1.0",
        "id": "1",
        "source": "/shop",
        "type": "order.placed",
        "datacontenttype": "application/json",
        "urgent": True,
        "data": {"order": "é"},
    }
    structured = (("content-type", b"application/cloudevents+json; charset=utf-8"), ("x", b"y"))
    done = run(app(CloudEvents()), json.dumps(event).encode(), headers=structured)
    (result,) = results(done)
    assert result.data == '1 {"order":"é"}'.encode()
    assert result.task_id == idempotent_id("shop", "ship", "/shop 1")
    assert dict(done.log.read("shop.results")[0].headers) == {
        "x": b"y",
        "content-type": b"application/json",
        "ce_specversion": b"1.0",
        "ce_id": b"1",
        "ce_source": b"/shop",
        "ce_type": b"order.placed",
        "ce_urgent": b"true",
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"orders": "json"},
        {"or ders": Json()},
        {"shop.results": Json()},
        {"shop.tasks.ship": Json()},
        {"shop.priority.high.bill": Json()},
    ],
)
def test_wrong_from_topics(wrong: dict[str, Format]) -> None:
    with pytest.raises(UsageError):
        Kantoku("shop").task("ship", from_topics=wrong)(lambda data: data)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Raw(types=["a"]),
        lambda: Raw(type_header="kind"),
        lambda: Raw(types="ab", type_header="kind"),
        lambda: Json(id_field="a", id_header="b"),
        lambda: Json(since=datetime(2026, 1, 1)),
        lambda: Json(reply_header="reply-to"),
        lambda: Json(reply_header="reply-to", reply_topics=["a b"]),
        lambda: Json(reply_header="reply-to", reply_topics=["*"]),
        lambda: CloudEvents(source="/shop"),
    ],
)
def test_wrong_formats(wrong: object) -> None:
    with pytest.raises(UsageError):
        wrong()  # type: ignore[operator]  # each is a function


def test_a_format_of_ones_own_that_fails_costs_its_record_alone() -> None:
    class Own(Raw):
        def read(self, record: ForeignRecord) -> ForeignTask:
            wrong: dict[bytes | None, Any] = {
                b"raises": 1,
                b"nothing": None,
                b"text": ForeignTask("text", None, None, ()),  # type: ignore[arg-type]
                b"headers": ForeignTask(b"", None, None, (("a", "b"),)),  # type: ignore[arg-type]
                b"surrogate": ForeignTask(b"", "\ud800", None, ()),
            }
            if record.value == b"raises":
                raise ZeroDivisionError
            return wrong.get(record.value, ForeignTask(record.value or b"", None, None, ()))  # type: ignore[no-any-return]

    done = run(app(Own()), b"good", b"raises", b"nothing", b"text", b"headers", b"surrogate")
    assert [result.data for result in results(done)] == [b"1 good"]
    messages = {letter.value: causes(letter)["error-message"] for letter in done.dead_letters}
    assert messages.keys() == {b"raises", b"nothing", b"text", b"headers", b"surrogate"}
    assert all(message.startswith("Own failed: ") for message in messages.values())


def test_types_that_share_a_topic_have_to_go_together() -> None:
    kan = Kantoku("shop")
    kan.task("a", from_topics={"orders": CloudEvents(types=["x"])})(lambda data: data)
    kan.task("b", from_topics={"orders": CloudEvents(types=["y"])})(lambda data: data)
    for wrong in (CloudEvents(), CloudEvents(types=["x"]), Json(), CloudEvents(types=["z"], since=datetime.now(UTC))):
        with pytest.raises(UsageError, match="orders"):
            kan.task("c", from_topics={"orders": wrong})(lambda data: data)
