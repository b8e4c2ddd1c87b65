"""Signatures on a real Kafka, against someone who may write to every topic and has no key."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from access import as_user, super_user
from accounting import read_all
from confluent_kafka import Producer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from executors import HERE, ExecutorUnderTest, until
from test_cli import cli

from kantoku_kafka import (
    Ed25519Key,
    HmacKey,
    Kantoku,
    Seal,
    Status,
    Task,
    delay,
    headers,
    idempotency_key,
    key,
    labels,
    load_seal,
    timeout,
)
from kantoku_kafka.avro.control import encode_schedule, encode_timer
from kantoku_kafka.errors import SignatureError, UsageError
from kantoku_kafka.ids import new_task_id
from kantoku_kafka.job import Message
from kantoku_kafka.kafka import topics
from kantoku_kafka.model import SIGNATURE, Schedule, TaskEnvelope, Timer, now_us
from kantoku_kafka.spawning import prepare

TYPES = ("noted", "flaky", "pooled")


def pair() -> tuple[bytes, bytes]:
    """A new key, private and public."""
    key_ = Ed25519PrivateKey.generate()
    private = key_.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, key_.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


(PRIVATE, PUBLIC), (OTHER, _) = pair(), pair()
MARK = "baggage"  # a header that no signature covers
SIGNS = Seal([Ed25519Key("s1", private=PRIVATE)])


@pytest.fixture
def seals(tmp_path: Path) -> Path:
    """A folder with files of seals: of one that signs, and of one that only checks."""
    (tmp_path / "private.pem").write_bytes(PRIVATE)
    (tmp_path / "public.pem").write_bytes(PUBLIC)
    for name, half in (("signs", "private"), ("checks", "public")):
        (tmp_path / f"{name}.toml").write_text(f"[keys.s1]\n{half} = '${{file:{tmp_path}/{half}.pem}}'\n")
    return tmp_path


@pytest.fixture
def kan(bootstrap: str, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kantoku]:
    """Who spawns, and signs."""
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    client = Kantoku(namespace, **as_user(bootstrap), seal=SIGNS)
    topics.create(client.clients, topics.plan(client.topics, TYPES))
    yield client
    client.close()


@pytest.fixture
def executor(kan: Kantoku, bootstrap: str, seals: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ExecutorUnderTest]:
    """Who only has the public key."""
    monkeypatch.setenv("KANTOKU_SEAL", str(seals / "checks.toml"))
    running = ExecutorUnderTest(bootstrap, kan.namespace, log=seals / "log", app="sealed_app:kan", cwd=HERE)
    monkeypatch.delenv("KANTOKU_SEAL")
    with running:
        yield running


def notes(folder: Path) -> list[str]:
    path = folder / "notes"
    return sorted(path.read_text().splitlines()) if path.exists() else []


def made(kan: Kantoku, task: Task) -> tuple[TaskEnvelope, Message]:
    ctx, message = prepare(kan, task)
    assert ctx.envelope is not None
    return ctx.envelope, message


def inject(bootstrap: str, messages: Sequence[Message]) -> None:
    """As anybody does who may write to the topics."""
    producer = Producer({**super_user(bootstrap), "partitioner": "murmur2_random"})
    for topic, key_, value, carried, partition in messages:
        producer.produce(topic, value, key_, partition, headers=list(carried))
    assert producer.flush(20) == 0


def letters(bootstrap: str, kan: Kantoku) -> dict[str, str]:
    """The causes of the dead letters, by their marks."""
    found = [dict(record.headers() or ()) for record in read_all(bootstrap, kan.topics.dlq)]
    return {(one.get(MARK) or b"").decode(): (one["kantoku-error-type"] or b"").decode() for one in found}


def marked(message: Message, mark: str) -> Message:
    return message._replace(headers=(*message.headers, (MARK, mark.encode())))


def altered(kan: Kantoku) -> dict[str, tuple[str, Message]]:
    """Records that must not run, and why not."""
    codec, topic = kan.codec, kan.topics.of_type("noted")
    options = (key("k"), labels(a="1"), headers(tenant="7"), timeout(seconds=3))
    envelope, message = made(kan, Task("noted", b"altered").with_(*options))
    signature = dict(message.headers)[SIGNATURE] or b""

    def changed(**fields: object) -> Message:
        return message._replace(value=codec.encode_task(envelope._replace(**fields)))  # type: ignore[arg-type]

    def signed_with(value: bytes | None) -> Message:
        return message._replace(headers=(("tenant", b"7"), (SIGNATURE, value)))

    def by(seal: Seal, namespace: str = kan.namespace) -> Message:
        return made(Kantoku(namespace, seal=seal), Task("noted", b"by another"))[1]._replace(topic=topic)

    cases = {
        "unsigned": message._replace(headers=()),
        "unknown_key": by(Seal([HmacKey("s2", b"x" * 32)])),
        "signature_expired": by(Seal([Ed25519Key("s1", private=PRIVATE)], lifetime_seconds=1e-6)),
        "too_early": _early(kan),
        "forged by another key of the same name": by(Seal([Ed25519Key("s1", private=OTHER)])),
        "forged by an HMAC of that name": by(Seal([HmacKey("s1", PUBLIC)])),
        "forged namespace": by(SIGNS, "another"),
        "forged data": changed(data=b"evil"),
        "forged type": changed(type="flaky", data=b"1"),
        "forged id": changed(id=new_task_id()),
        "forged labels": changed(labels={"a": "2"}),
        "forged timeout": changed(timeout_ms=60_000),
        "forged options": changed(options={"reply_to": b"somewhere"}),
        "forged expiry": changed(expires_at_us=None, created_at_us=now_us() + 1),
        "forged key": message._replace(key=b"l"),
        "forged header": message._replace(headers=(("tenant", b"8"), (SIGNATURE, signature))),
        "forged second signature": message._replace(headers=(*message.headers, (SIGNATURE, signature))),
        "forged null": signed_with(None),
        "forged truncated": signed_with(signature[:-5]),
        "forged garbage": signed_with(b"\xff\x00" * 50),
        "forged huge": signed_with(b"1.task.s1.-." + b"A" * 500_000),
        "forged end": signed_with(signature.replace(b".-.", b".9999999999999999.")),
    }
    return {case: (case.partition(" ")[0], marked(one, case)) for case, one in cases.items()}


def _early(kan: Kantoku) -> Message:
    message = made(kan, Task("noted", b"early").with_(delay(seconds=3_600)))[1]
    return message._replace(headers=(*message.headers, ("kantoku-timer", b"timers/0/0")))


def test_whoever_may_write_and_has_no_key_has_nothing_executed(
    kan: Kantoku, bootstrap: str, seals: Path, executor: ExecutorUnderTest
) -> None:
    cases = altered(kan)
    inject(bootstrap, [message for _, message in cases.values()])
    evil = TaskEnvelope(new_task_id(), "noted", b"evil", now_us())
    topic, value = kan.topics.of_type("noted"), kan.codec.encode_task(evil)
    timer = Timer(evil.id, "noted", 1, now_us(), topic, b"k", value, ((MARK, b"timer"),))
    stolen = made(kan, Task("noted", b"stolen"))[1]
    of_another = timer._replace(
        task_id=new_task_id(), task=stolen.value, key=stolen.key, headers=marked(stolen, "of another").headers
    )
    elsewhere = of_another._replace(
        task_id=(stolen.key or b"").decode(), topic=kan.topics.results, headers=marked(stolen, "elsewhere").headers
    )
    schedule = Schedule("evil", now_us(), topic, value, every_us=1_000_000, headers=((MARK, b"schedule"),))
    yearly = kan.schedules.add("yearly", Task("noted", b"yearly"), cron="@yearly")
    often = yearly._replace(cron=None, every_us=1_000_000, start_at_us=0, headers=(*yearly.headers, (MARK, b"often")))
    planned = [
        Message(kan.topics.schedules, one.name.encode(), encode_schedule(one), (), 0) for one in (schedule, often)
    ]
    timers = [
        Message(kan.topics.timers, one.task_id.encode(), encode_timer(one)) for one in (timer, of_another, elsewhere)
    ]
    inject(bootstrap, [*planned, *timers])
    good = kan.spawn_many(
        [Task("flaky", b"3"), Task("noted", b"good"), Task("noted", b"later").with_(delay(seconds=1))]
    )
    assert [result.data for result in kan.gather(good, timeout_seconds=60)] == [b"3", b"good", b"later"]
    expected = {mark: reason for mark, (reason, _) in cases.items()}
    expected |= {
        "timer": "unsigned",
        "of another": "forged",
        "elsewhere": "forged",
        "schedule": "unsigned",
        "often": "forged",
    }
    until(lambda: letters(bootstrap, kan).keys() >= expected.keys(), 60, "all of it is a dead letter")
    assert letters(bootstrap, kan) == expected
    assert notes(seals) == ["flaky 3", "noted good", "noted later"]
    results = [kan.codec.decode_result(record.value() or b"") for record in read_all(bootstrap, kan.topics.results)]
    assert {result.task_id for result in results} == {task.id for task in good}
    kept = {record.value() for record in read_all(bootstrap, kan.topics.dlq)}
    assert kept >= {message.value for _, message in cases.values()}, "the original bytes"
    verified = cli("-b", bootstrap, "-n", kan.namespace, "verify", timeout=120)
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_a_forgery_that_comes_first_takes_no_id_from_the_true_task(
    kan: Kantoku, bootstrap: str, seals: Path, executor: ExecutorUnderTest
) -> None:
    envelope, message = made(kan, Task("noted", b"true").with_(idempotency_key("i"), key("k")))
    forged = message._replace(value=kan.codec.encode_task(envelope._replace(data=b"evil")))
    inject(bootstrap, [forged])
    until(lambda: read_all(bootstrap, kan.topics.dlq), 60, "it is a dead letter")
    true = kan.spawn(Task("noted", b"true").with_(idempotency_key("i"), key("k")))
    assert kan.wait(true.id, timeout_seconds=60).data == b"true"
    inject(bootstrap, [message._replace(topic=kan.topics.of_type("flaky"))])
    until(
        lambda: len(read_all(bootstrap, kan.topics.dlq)) == 2, 60, "what was moved to another type's topic is one, too"
    )
    assert notes(seals) == ["noted true"]


def test_children_need_a_key_that_signs_in_the_processes_of_the_pool_too(
    kan: Kantoku, bootstrap: str, seals: Path, executor: ExecutorUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = kan.wait(kan.spawn(Task("pooled", b"a")).id, timeout_seconds=60)
    assert refused.status is Status.FAILED and refused.error is not None
    assert "only has keys that check" in refused.error.message
    executor.kill()
    monkeypatch.setenv("KANTOKU_SEAL", str(seals / "signs.toml"))
    with ExecutorUnderTest(bootstrap, kan.namespace, log=seals / "log", app="sealed_app:kan", cwd=HERE):
        assert kan.wait(kan.spawn(Task("pooled", b"b")).id, timeout_seconds=60).ok
        until(lambda: notes(seals) == ["noted child of b", "pooled b"], 60, "the child ran")


def test_who_can_sign_signs_schedules_and_others_may_pause_them(
    kan: Kantoku, bootstrap: str, seals: Path, executor: ExecutorUnderTest
) -> None:
    kan.schedules.add("tick", Task("noted", b"tick"), every_seconds=1)
    until(lambda: len(notes(seals)) >= 2, 60, "the schedule is served")
    checks = Kantoku(kan.namespace, **as_user(bootstrap), seal=load_seal(seals / "checks.toml"))
    checks.schedules.pause("tick")
    checks.schedules.resume("tick")
    count = len(notes(seals))
    until(lambda: len(notes(seals)) >= count + 2, 60, "it goes on")
    checks.schedules.remove("tick")
    kan.schedules.add("never", Task("noted", b"triggered"), cron="@yearly")
    assert (
        kan.schedules.add("never", Task("noted", b"triggered"), cron="@yearly") == kan.schedules.get("never").schedule
    )
    for refused in (
        lambda: checks.schedules.trigger("never"),
        lambda: checks.schedules.add("more", Task("noted"), cron="@yearly"),
        lambda: checks.spawn(Task("noted")),
    ):
        with pytest.raises(UsageError, match="only has keys that check"):
            refused()
    checks.close()
    assert kan.schedules.trigger("never").result(60).data == b"triggered"
    schedule = kan.schedules.get("never").schedule
    evil = kan.codec.encode_task(kan.codec.decode_task(schedule.task)._replace(data=b"evil"))
    kan.write([Message(kan.topics.schedules, b"never", encode_schedule(schedule._replace(task=evil)), (), 0)])
    with pytest.raises(SignatureError):
        kan.schedules.trigger("never")
    assert not read_all(bootstrap, kan.topics.dlq)


def test_restarts_and_redrives_are_signed_by_whoever_asks_for_them(
    kan: Kantoku, bootstrap: str, seals: Path, executor: ExecutorUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(seal: str, *command: str) -> subprocess.CompletedProcess[bytes]:
        monkeypatch.setenv("KANTOKU_SEAL", str(seals / f"{seal}.toml"))
        return cli("-b", bootstrap, "-n", kan.namespace, *command, timeout=60)

    failed = kan.spawn(Task("flaky", b"9"))
    assert failed.result(60).status is Status.FAILED
    for command in (("tasks", "restart", failed.id), ("dlq", "redrive", failed.id)):
        refused = run("checks", *command)
        assert refused.returncode == 2 and b"only has keys that check" in refused.stderr, refused.stderr
    monkeypatch.delenv("KANTOKU_SEAL")
    plain = cli("-b", bootstrap, "-n", kan.namespace, "tasks", "restart", failed.id)
    assert plain.returncode == 2 and b"name its file by KANTOKU_SEAL" in plain.stderr, plain.stderr
    assert b"1 cannot be" in cli("-b", bootstrap, "-n", kan.namespace, "dlq", "redrive", failed.id).stderr
    restarted = run("signs", "tasks", "restart", failed.id, "-o", "jsonl")
    assert restarted.returncode == 0, restarted.stderr
    until(lambda: len(read_all(bootstrap, kan.topics.dlq)) == 2, 60, "it ran, and failed again")
    assert set(letters(bootstrap, kan).values()) == {"ConnectionError"}


def test_a_new_key_is_taken_on_at_sighup(
    kan: Kantoku, bootstrap: str, seals: Path, executor: ExecutorUnderTest
) -> None:
    new = Kantoku(kan.namespace, **as_user(bootstrap), seal=Seal([HmacKey("s2", b"2" * 32)]))
    new.spawn(Task("noted", b"early"))
    until(lambda: set(letters(bootstrap, kan).values()) == {"unknown_key"}, 60, "nobody knows that key")
    with (seals / "checks.toml").open("a") as file:
        file.write(f"[keys.s2]\nsecret = '{'2' * 32}'\n")
    executor.kill(signal.SIGHUP)
    until(lambda: executor.log().count("HmacKey(id='s2')"), 60, "it has read the file anew")
    assert new.spawn(Task("noted", b"new")).result(60).data == b"new"
    assert kan.spawn(Task("noted", b"old")).result(60).data == b"old"
    new.close()
    assert notes(seals) == ["noted new", "noted old"]


def test_a_redrive_blesses_nothing_that_was_forged(
    kan: Kantoku, bootstrap: str, seals: Path, executor: ExecutorUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = Kantoku(kan.namespace, seal=Seal([Ed25519Key("s1", private=PRIVATE)], lifetime_seconds=1e-6))
    envelope, too_late = made(late, Task("noted", b"late"))
    message = made(kan, Task("noted", b"?"))[1]
    unsigned = message._replace(headers=())
    forged = message._replace(value=made(kan, Task("noted", b"evil"))[1].value)
    inject(bootstrap, [too_late, unsigned, forged])
    until(lambda: len(read_all(bootstrap, kan.topics.dlq)) == 3, 60, "they are dead letters")
    common = ("-b", bootstrap, "-n", kan.namespace, "dlq", "redrive", "--all")
    monkeypatch.setenv("KANTOKU_SEAL", str(seals / "checks.toml"))
    assert b"0 letters redriven, 0 were before, 3 cannot be" in cli(*common, timeout=60).stderr
    monkeypatch.setenv("KANTOKU_SEAL", str(seals / "signs.toml"))
    for told in (b"1 letters redriven, 0 were before, 2 cannot be", b"0 letters redriven, 1 were before, 2 cannot be"):
        assert told in cli(*common, timeout=60).stderr
    assert kan.wait(envelope.id, timeout_seconds=60).data == b"late"
    assert notes(seals) == ["noted late"]
