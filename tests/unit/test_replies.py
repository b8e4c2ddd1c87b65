"""Replies: each kind of result, once more, for a topic of others."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from kantoku_kafka import Context, Kantoku, Reject, Retry, Task, expires, headers, key, reply_to
from kantoku_kafka.avro.codec import AvroCodec
from kantoku_kafka.errors import UsageError
from kantoku_kafka.formats import CloudEvents, Format, Json, Raw
from kantoku_kafka.job import Message
from kantoku_kafka.model import TaskEnvelope, now_us
from kantoku_kafka.testing import InMemoryLog, Record, Run, run_tasks


def app(**options: object) -> Kantoku:
    kan = Kantoku("shop")

    @kan.task("ship", **options)  # type: ignore[arg-type]  # passed through
    def ship(data: bytes, ctx: Context) -> bytes:
        match data:
            case b"reject":
                raise Reject("no such street")
            case b"fail":
                raise ConnectionError("é")
            case b"once more" if ctx.attempt == 1:
                raise ConnectionError
        return b'{"sent": true}'

    return kan


def replies(done: Run, topic: str = "shipments") -> list[Record]:
    return done.log.read(topic)


def told(record: Record) -> dict[str, str]:
    return {name: (value or b"").decode() for name, value in record.headers}


def test_a_reply_has_the_key_and_the_headers_of_its_task() -> None:
    task = Task("ship", b"x").with_(key("customer-7"), headers(correlation_id="42"))
    done = run_tasks(app(reply_to="shipments"), [task, Task("ship", b"y")])
    first, second = replies(done)
    by_key = {first.key: first, second.key: second}
    task_id = done.results[0].task_id
    assert by_key[b"customer-7"].value == b'{"sent": true}'
    assert by_key[b"customer-7"].headers == (
        ("correlation-id", b"42"),
        ("kantoku-task-id", task_id.encode()),
        ("kantoku-status", b"OK"),
    )
    assert done.results[1].task_id.encode() in by_key


def test_a_task_may_name_its_topic() -> None:
    done = run_tasks(app(), [Task("ship").with_(reply_to("others")), Task("ship")])
    assert [record.key for record in replies(done, "others")] == [done.results[0].task_id.encode()]


@pytest.mark.parametrize(
    ("task", "status", "error"),
    [
        (Task("ship", b"reject"), "REJECTED", "Reject"),
        (Task("ship", b"fail"), "FAILED", "ConnectionError"),
        (Task("ship").with_(expires(seconds=1e-6)), "EXPIRED", "expired"),
        (Task("slow"), "TIMED_OUT", "timed_out"),
    ],
)
def test_what_did_not_end_well_is_replied_too(task: Task, status: str, error: str) -> None:
    kan = app(reply_to="shipments", reply_format=Json())

    @kan.task("slow", timeout_seconds=0.05, reply_to="shipments", reply_format=Json())
    def slow(data: bytes, ctx: Context) -> bytes:
        while not ctx.cancelled:
            time.sleep(0.01)
        return b""

    done = run_tasks(kan, [task])
    (reply,) = replies(done)
    heads = told(reply)
    assert (heads["kantoku-status"], heads["kantoku-error-type"]) == (status, error)
    said = json.loads(reply.value)["error"]
    assert (said["type"], said["message"]) == (error, heads["kantoku-error-message"])
    assert heads["content-type"] == "application/json"


def test_an_attempt_that_is_tried_again_has_no_reply_and_the_last_one_has() -> None:
    kan = app(retry=Retry(max_attempts=2))
    done = run_tasks(kan, [Task("ship", b"once more").with_(reply_to("shipments")), Task("ship", b"fail")])
    (reply,) = replies(done)
    assert (reply.key, told(reply)["kantoku-status"]) == (done.results[0].task_id.encode(), "OK")


def test_a_task_of_an_unknown_type_replies_that() -> None:
    log, codec = InMemoryLog(), AvroCodec()
    envelope = TaskEnvelope("7", "unknown", b"", now_us(), options={"reply_to": b"shipments"})
    log.append(Message("shop.tasks.ship", b"k", codec.encode_task(envelope)))
    (reply,) = replies(run_tasks(app(), [], log=log))
    assert (reply.key, told(reply)["kantoku-error-type"]) == (b"k", "unknown_task_type")


@pytest.mark.parametrize("topic", ["shop.results", "shop.tasks.ship", "shop.timers", "no topic", "", "mine"])
def test_nobody_makes_us_reply_to_a_topic_of_ours(topic: str) -> None:
    kan = Kantoku("shop", topics={"tasks.bill": "mine"})
    kan.task("ship")(lambda data: data)
    with pytest.raises(UsageError):
        run_tasks(kan, [Task("ship").with_(reply_to(topic))])
    with pytest.raises(UsageError):
        kan.task("other", reply_to=topic)
    log = InMemoryLog()
    envelope = TaskEnvelope("7", "ship", b"", now_us(), options={"reply_to": topic.encode()})
    log.append(Message("shop.tasks.ship", b"k", kan.codec.encode_task(envelope)))
    done = run_tasks(kan, [], log=log)
    assert [(r.status, r.error and r.error.type) for r in done.all_results] == [("REJECTED", "EnvelopeError")]
    assert len(log.read("shop.tasks.ship")) == 1


def test_a_record_of_others_may_name_an_allowed_topic_in_a_header() -> None:
    kan, log = Kantoku("shop"), InMemoryLog()
    allowed = Raw(reply_header="kafka_replyTopic", reply_topics=["answers.*", "exact"])
    kan.task("ship", from_topics={"orders": allowed}, reply_to="default")(lambda data: data)
    for value, topic in ((b"1", b"answers.a"), (b"2", b"exact"), (b"3", b"exactly"), (b"4", b"shop.results")):
        log.append(Message("orders", value, value, (("kafka_replyTopic", topic), ("kafka_correlationId", b"c"))))
    log.append(Message("orders", b"5", b"5"))
    done = run_tasks(kan, [], log=log)
    assert [(r.key, r.value) for r in replies(done, "answers.a")] == [(b"1", b"1")]
    assert [told(r)["kafka_correlationId"] for r in replies(done, "exact")] == ["c"]
    assert [r.key for r in replies(done, "default")] == [b"5"]
    assert sorted(letter.value for letter in done.dead_letters) == [b"3", b"4"]


def test_an_event_as_reply() -> None:
    kan = app(reply_to="shipments", reply_format=CloudEvents(source="/shipping", type="order.shipped"))
    task = Task("ship").with_(headers(ce_id="old", other="x"))  # the option writes ce-id, which is no attribute
    done = run_tasks(kan, [task])
    (reply,) = replies(done)
    heads = told(reply)
    assert heads["ce_id"] == done.results[0].task_id
    assert (heads["ce_specversion"], heads["ce_source"], heads["ce_type"]) == ("1.0", "/shipping", "order.shipped")
    assert (heads["other"], reply.value) == ("x", b'{"sent": true}')


@pytest.mark.parametrize(
    "wrong", [None, ("text", ()), (b"", (("a", "b"),)), (b"", (("", 7),)), (b"", (("\ud800", b""),))]
)
def test_a_format_that_cannot_write_fails_its_own_task(wrong: Any) -> None:
    class Broken(Raw):
        def write(self, result: object) -> Any:
            return wrong

    done = run_tasks(app(reply_to="shipments", reply_format=Broken()), [Task("ship")])
    assert [(r.status, r.error and r.error.type) for r in done.results] == [("FAILED", "unserialisable_effects")]


@pytest.mark.parametrize(
    ("data", "status", "error"), [(b"reject", "REJECTED", "Reject"), (b"fail", "FAILED", "ConnectionError")]
)
def test_what_did_not_end_well_stays_what_it_is_if_its_reply_cannot_be_written(
    data: bytes, status: str, error: str
) -> None:
    class Broken(Raw):
        def write(self, result: object) -> Any:
            raise ZeroDivisionError

    done = run_tasks(app(reply_to="shipments", reply_format=Broken()), [Task("ship", data)])
    assert [(r.status, r.error and r.error.type) for r in done.results] == [(status, error)]
    assert replies(done) == []


@pytest.mark.parametrize("wrong", [CloudEvents(), "json"])
def test_a_format_that_has_not_all_it_needs_to_write(wrong: Format) -> None:
    with pytest.raises(UsageError, match="reply_format"):
        Kantoku("shop").task("ship", reply_format=wrong)
