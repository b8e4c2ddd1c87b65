"""Other programs on our topics: only the Kafka client, the generic Avro library and ``schemas/``; and garbage."""

from __future__ import annotations

import io
import json
import random
import time
import uuid
from pathlib import Path
from typing import Any

import fastavro
from access import super_user
from accounting import Account, read_all
from confluent_kafka import Producer

from kantoku_kafka import Kantoku, Status, Task, headers
from kantoku_kafka.avro.codec import AvroCodec
from kantoku_kafka.dev import EmbeddedBroker
from kantoku_kafka.ids import new_task_id
from kantoku_kafka.kafka.partitioner import python_partition_of
from kantoku_kafka.model import TaskEnvelope, now_us

SCHEMAS = Path(__file__).parents[2] / "schemas"


class ForeignCodec:
    """Single-object encoding as any Avro library has it."""

    def __init__(self, name: str) -> None:
        raw = json.loads((SCHEMAS / f"{name}.avsc").read_text())
        self._schema = fastavro.parse_schema(raw)
        canonical = fastavro.schema.to_parsing_canonical_form(raw)
        self._header = b"\xc3\x01" + bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))

    def encode(self, record: dict[str, Any]) -> bytes:
        out = io.BytesIO(self._header)
        out.seek(len(self._header))
        fastavro.schemaless_writer(out, self._schema, record)
        return out.getvalue()

    def decode(self, value: bytes) -> Any:
        assert value.startswith(self._header)
        return fastavro.schemaless_reader(io.BytesIO(value[len(self._header) :]), self._schema, None)


def test_a_foreign_program_spawns_and_reads(kan: Kantoku, bootstrap: str, running: Any) -> None:
    task, result, event = ForeignCodec("Task"), ForeignCodec("Result"), ForeignCodec("Event")
    producer = Producer(super_user(bootstrap))
    ids = [str(uuid.uuid4()) for _ in range(20)]
    for n, task_id in enumerate(ids):
        record = {"id": task_id, "type": "echo", "data": b"%d" % n, "created_at": time.time_ns() // 1000}
        producer.produce(kan.topics.of_type("echo"), task.encode(record), task_id, headers={"tracestate": b"x=1"})
    assert producer.flush(10) == 0
    with running():
        kan.gather(ids, timeout_seconds=30)
    records = read_all(bootstrap, kan.topics.results)
    found = {(m.key() or b"").decode(): result.decode(m.value() or b"") for m in records}
    assert found.keys() == set(ids)
    for n, task_id in enumerate(ids):
        assert (found[task_id]["status"], found[task_id]["data"]) == ("OK", b"%d" % n)
        assert found[task_id]["source"]["topic"] == kan.topics.of_type("echo")
    assert all(m.headers() == [("tracestate", b"x=1")] for m in records)
    steps = [event.decode(m.value() or b"") for m in read_all(bootstrap, kan.topics.events)]
    assert {(s["task_id"], s["name"]) for s in steps} == {
        (task_id, name) for task_id in ids for name in ("received_task", "executed_task", "sent_outputs")
    }


def test_the_console_consumer_shows_keys_that_make_sense(kan: Kantoku, bootstrap: str, running: Any) -> None:
    tasks = [Task("echo", b"%d" % n).with_(headers(traceparent="00-1")) for n in range(5)]
    with running():
        ids = {spawned.id for spawned in kan.spawn_many(tasks)}
        kan.gather(ids, timeout_seconds=30)
    home = {task_id: f"Partition:{python_partition_of(task_id.encode(), 4)}" for task_id in ids}
    assert console(bootstrap, kan.topics.results, 5) == sorted(
        (home[task_id], "traceparent:00-1", task_id) for task_id in ids
    )
    assert console(bootstrap, kan.topics.events, 20) == sorted(
        (home[task_id], "NO_HEADERS", f"{task_id}/1/{name}")
        for task_id in ids
        for name in ("spawned", "received_task", "executed_task", "sent_outputs")
    )


def console(bootstrap: str, topic: str, count: int) -> list[tuple[str, ...]]:
    """Partition, headers and key of all records, as Kafka's console consumer prints them."""
    shown = ("print.partition=true", "print.headers=true", "print.key=true", "print.value=false")
    done = EmbeddedBroker().run_tool(
        "org.apache.kafka.tools.consumer.ConsoleConsumer",
        *(
            "--bootstrap-server",
            super_user(bootstrap)["bootstrap.servers"],
            "--topic",
            topic,
            "--from-beginning",
            "--timeout-ms",
            "20000",
        ),
        *("--isolation-level", "read_committed", "--max-messages", str(count)),
        *(word for setting in shown for word in ("--formatter-property", setting)),
    )
    assert done.returncode == 0, done.stderr
    return sorted(tuple(line.split("\t")) for line in done.stdout.splitlines())


def test_garbage_between_good_tasks_goes_to_the_dead_letters(kan: Kantoku, bootstrap: str, running: Any) -> None:
    chance = random.Random(4)
    topic, producer = kan.topics.of_type("echo"), Producer(super_user(bootstrap))
    good, bad = [], []
    for _ in range(200):
        value = _broken(chance)
        bad.append(value)
        producer.produce(topic, value, key=b"poison", headers=[("a", b"1"), ("a", None), ("kantoku-x", b"y")])
        producer.flush(10)
        good.append(kan.spawn(Task("echo", b"good")))
    with running():
        results = kan.gather(good, timeout_seconds=60)
        stray = kan.spawn(Task("side", b"x"))
        other = AvroCodec().encode_task(TaskEnvelope(new_task_id(), "no-such-type", b"", now_us()))
        producer.produce(topic, other)
        producer.flush(10)
        last = kan.spawn_many([Task("echo", b"last")] * 8)
        kan.gather(last, timeout_seconds=30)
    assert all(result.ok for result in results)
    dead = read_all(bootstrap, kan.topics.dlq)
    by_offset = {}
    for message in read_all(bootstrap, topic):
        by_offset[message.partition(), message.offset()] = message
    poison = [m for m in dead if m.key() == b"poison"]
    assert sorted(m.value() or b"" for m in poison) == sorted(bad)
    assert len(dead) == len(bad) + 1
    for message in dead:
        headers = dict(message.headers() or [])
        source = by_offset[
            int(headers["kantoku-source-partition"] or b""), int(headers["kantoku-source-offset"] or b"")
        ]
        assert headers["kantoku-source-topic"] == topic.encode()
        assert (source.key(), source.value()) == (message.key(), message.value())
        assert (message.headers() or [])[: len(source.headers() or [])] == (source.headers() or [])
        assert headers["kantoku-error-type"] and headers["kantoku-error-message"] and headers["kantoku-failed-at"]
    account = Account.of(bootstrap, kan.namespace)
    rejected = [r for r in account.results if r.status is Status.REJECTED]
    assert [r.type for r in rejected] == ["no-such-type"]
    assert stray.id not in {r.task_id for r in account.results}


def _broken(chance: random.Random) -> bytes:
    """Random bytes, or a good envelope with a byte changed, cut off or added, that is no envelope any more."""
    codec = AvroCodec()
    while True:
        value = codec.encode_task(TaskEnvelope(new_task_id(), "echo", chance.randbytes(30), now_us()))
        match chance.randrange(4):
            case 0:
                value = chance.randbytes(chance.randrange(100))
            case 1:
                value = value[: chance.randrange(len(value))]
            case 2:
                value += chance.randbytes(1 + chance.randrange(5))
            case _:
                at = chance.randrange(len(value))
                value = value[:at] + bytes([value[at] ^ (1 + chance.randrange(255))]) + value[at + 1 :]
        try:
            codec.decode_task(value)
        except Exception:  # noqa: BLE001 - any: the test is about what the executor makes of it
            return value
