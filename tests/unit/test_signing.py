"""Signatures: the form that is signed, the keys, the seal, and an executor's way with them over the in-memory log."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption
from cryptography.hazmat.primitives.serialization import PrivateFormat as Private
from cryptography.hazmat.primitives.serialization import PublicFormat as Public
from hypothesis import given
from hypothesis import strategies as st

from kantoku_kafka import (
    Context,
    Ed25519Key,
    HmacKey,
    Kantoku,
    Retry,
    Seal,
    Status,
    Task,
    delay,
    expires,
    headers,
    idempotency_key,
    key,
    labels,
    load_seal,
    timeout,
)
from kantoku_kafka.avro.codec import AvroCodec
from kantoku_kafka.avro.control import encode_timer
from kantoku_kafka.engine.judge import FIRED
from kantoku_kafka.errors import SignatureError, UsageError
from kantoku_kafka.formats import Json
from kantoku_kafka.ids import new_task_id, occurrence_id
from kantoku_kafka.job import Message
from kantoku_kafka.model import SIGNATURE, Schedule, TaskEnvelope, Timer, lasting_headers, now_us
from kantoku_kafka.schedules import sealed
from kantoku_kafka.signing.form import Kind, claim_of, header_of, read_header, signed_bytes
from kantoku_kafka.spawning import prepare
from kantoku_kafka.testing import InMemoryLog, Run, run_tasks

CODEC = AvroCodec()
SECRET = b"0123456789abcdef0123456789abcdef"
HMAC = HmacKey("h1", SECRET)
PRIVATE = Ed25519PrivateKey.from_private_bytes(SECRET)
PRIVATE_PEM = PRIVATE.private_bytes(Encoding.PEM, Private.PKCS8, NoEncryption())
PUBLIC_PEM = PRIVATE.public_key().public_bytes(Encoding.PEM, Public.SubjectPublicKeyInfo)
SIGNS, CHECKS = Seal([Ed25519Key("e1", private=PRIVATE_PEM)]), Seal([Ed25519Key("e1", public=PUBLIC_PEM)])
HOUR_US = 3_600_000_000

Record = tuple[TaskEnvelope, bytes | None, tuple[tuple[str, bytes | None], ...]]

texts = st.text(max_size=5)
numbers = st.none() | st.integers(-3, 3)
names = st.sampled_from(["a", "b", "tenant", "kantoku-x", "__value_schema_id", "traceparent", "\udcff"])
tasks = st.builds(
    TaskEnvelope,
    id=texts,
    type=texts,
    data=st.binary(max_size=4),
    created_at_us=st.integers(-3, 3),
    attempt=st.integers(1, 3),
    max_attempts=numbers,
    timeout_ms=numbers,
    not_before_us=numbers,
    expires_at_us=numbers,
    parent_id=st.none() | texts,
    context_id=st.none() | texts,
    restarted_from=st.none() | texts,
    idempotency_key=st.none() | texts,
    labels=st.dictionaries(texts, texts, max_size=2),
    options=st.dictionaries(texts, st.binary(max_size=3), max_size=2),
)
records = st.tuples(tasks, st.none() | st.binary(max_size=3), st.lists(st.tuples(names, st.none() | st.binary())))


def meaning(record: Record) -> object:
    """All of a record that its signature speaks for."""
    task, key_, carried = record
    unsigned = ("traceparent", "tracestate", "baggage", "__key_schema_id", "__value_schema_id")
    mine = [item for item in carried if not item[0].startswith("kantoku-") and item[0] not in unsigned]
    return task._replace(attempt=0), key_, mine


@given(records, records, texts, texts)
def test_two_records_have_the_same_signed_bytes_only_if_they_say_the_same(
    one: Record, other: Record, namespace: str, elsewhere: str
) -> None:
    claim = claim_of(Kind.TASK, "k", None)
    same = meaning(one) == meaning(other) and namespace == elsewhere
    bytes_of_one = signed_bytes(claim, namespace, one[0], one[1], tuple(one[2]))
    assert (bytes_of_one == signed_bytes(claim, elsewhere, other[0], other[1], tuple(other[2]))) is same
    assert bytes_of_one != signed_bytes(claim_of(Kind.SCHEDULE, "k", None), namespace, one[0], one[1], tuple(one[2]))


@given(records, st.data())
def test_no_field_of_a_record_can_be_changed_for_another(record: Record, data: st.DataObject) -> None:
    """Of two random records nearly all differ in everything; these differ in one thing."""
    task, key_, carried = record
    field = data.draw(st.sampled_from(TaskEnvelope._fields))
    changed = task._replace(**{field: getattr(data.draw(tasks), field)})
    claim = claim_of(Kind.TASK, "k", None)
    same = field == "attempt" or changed == task
    before, after = (signed_bytes(claim, "n", one, key_, tuple(carried)) for one in (task, changed))
    assert (before == after) is same


def test_the_form_is_what_the_documentation_says() -> None:
    task = TaskEnvelope("id", "t", b"data", 7, labels={"b": "2", "a": "1"})
    found = signed_bytes(b"1.task.k.-", "ns", task, b"key", (("h", None), ("kantoku-x", b""), ("traceparent", b"")))
    fields = [b"1.task.k.-", b"ns", b"id", b"t", b"data", b"7", b"key", *[None] * 8]
    fields += [b"2", b"a", b"1", b"b", b"2", b"0", b"1", b"h", None]
    assert found == b"".join(b"\xff" * 4 if f is None else len(f).to_bytes(4, "big") + f for f in fields)


@given(st.binary(max_size=200) | st.from_regex(rb"1\.(task|schedule)\.k\.[0-9]{0,20}\.[A-Za-z0-9_-]{0,100}"))
def test_any_bytes_are_a_signature_or_none(value: bytes) -> None:
    found = read_header(value)
    assert found is None or value.startswith(found.claim + b".")


@given(st.sampled_from(Kind), st.none() | st.integers(0, 10**18 - 1), st.sampled_from([32, 64]), st.data())
def test_a_header_is_read_as_it_was_made(kind: Kind, end_us: int | None, size: int, data: st.DataObject) -> None:
    raw = data.draw(st.binary(min_size=size, max_size=size))
    claim = claim_of(kind, "Key_-1", end_us)
    assert read_header(header_of(claim, raw)[1]) == (claim, kind, "Key_-1", end_us, raw)


# --- keys and seals


@pytest.mark.parametrize(
    "make",
    [
        lambda: HmacKey("k", SECRET),
        lambda: Ed25519Key("k", private=PRIVATE_PEM),
        lambda: Ed25519Key("k", public=PUBLIC_PEM),
        lambda: Seal([HmacKey("k", SECRET)]),
        lambda: Kantoku("n", seal=Seal([HmacKey("k", SECRET), Ed25519Key("e", public=PUBLIC_PEM)])),
    ],
)
def test_no_key_is_shown(make: Callable[[], object]) -> None:
    shown = f"{make()!r} {make()}"
    assert "0123456789" not in shown and "BEGIN" not in shown


def bad_pem() -> bytes:
    return PRIVATE.private_bytes(Encoding.PEM, Private.PKCS8, BestAvailableEncryption(b"hunter2"))


def rsa_pem() -> bytes:
    return generate_private_key(65537, 2048).private_bytes(Encoding.PEM, Private.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: HmacKey("k", b"short-secret"), "at least 32 bytes"),
        (lambda: HmacKey("k", "0" * 32), "at least 32 bytes"),  # type: ignore[arg-type]
        (lambda: HmacKey("k.1", SECRET), "cannot be the id"),
        (lambda: HmacKey("", SECRET), "cannot be the id"),
        (lambda: Ed25519Key("k"), "either its private or its public half"),
        (lambda: Ed25519Key("k", private=PRIVATE_PEM, public=PUBLIC_PEM), "either its private or its public half"),
        (lambda: Ed25519Key("k", private=SECRET), "is no Ed25519 key"),
        (lambda: Ed25519Key("k", private=PUBLIC_PEM), "is no Ed25519 key"),
        (lambda: Ed25519Key("k", public=PRIVATE_PEM), "is no Ed25519 key"),
        (lambda: Ed25519Key("k", private=bad_pem()), "is no Ed25519 key"),
        (lambda: Ed25519Key("k", private=rsa_pem()), "is no Ed25519 key"),
        (lambda: Seal([]), "at least one key"),
        (lambda: Seal([HMAC, HmacKey("h1", SECRET[::-1])]), "have the id 'h1'"),
        (lambda: Seal([HMAC, HmacKey("h2", SECRET)]), "sign_with says which"),
        (lambda: Seal([HMAC], sign_with="h2"), "no key 'h2' that can sign"),
        (lambda: Seal([Ed25519Key("k", public=PUBLIC_PEM)], sign_with="k"), "no key 'k' that can sign"),
        (lambda: Seal([HMAC], lifetime_seconds=0), "lifetime_seconds"),
        (lambda: Seal([HMAC], unsigned_topics=["a b"]), "cannot be a topic"),
        (lambda: Seal([Ed25519Key("k", public=PUBLIC_PEM)], unsigned_topics=["a"]), "take a key that signs"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence_without_secrets(make: Callable[[], object], says: str) -> None:
    with pytest.raises(UsageError, match=says) as told:
        make()
    assert "0123456789" not in str(told.value) and "short" not in str(told.value)


def test_without_the_extra_a_sentence_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(UsageError, match=r"kantoku-kafka\[signing\]"):
        Ed25519Key("k", private=PRIVATE_PEM)
    assert Seal([HMAC]).can_sign


FILE = """
sign_with = "new"
lifetime_seconds = 60
[keys.new]
private = "${file:FOLDER/new.pem}"
[keys.old]
secret = "${env:OLD_SECRET}"
[keys.theirs]
public = "${file:FOLDER/theirs.pem}"
"""


def test_a_file_describes_a_seal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "new.pem").write_bytes(PRIVATE_PEM)
    (tmp_path / "theirs.pem").write_bytes(PUBLIC_PEM)
    monkeypatch.setenv("OLD_SECRET", SECRET.decode())
    (tmp_path / "seal.toml").write_text(FILE.replace("FOLDER", str(tmp_path)))
    seal = load_seal(tmp_path / "seal.toml")
    keys = "[Ed25519Key('new', private), HmacKey(id='old'), Ed25519Key('theirs', public)]"
    assert repr(seal) == f"Seal({keys}, sign_with='new')"
    monkeypatch.setenv("KANTOKU_SEAL", str(tmp_path / "seal.toml"))
    kan = Kantoku("n")
    assert repr(kan.seal) == repr(seal)
    record = signed(kan, "t")
    seal.check("n", *record)
    Seal([HmacKey("x", SECRET), Ed25519Key("new", public=PUBLIC_PEM)]).check("n", *record)


GOOD = f"[keys.a]\nsecret='{SECRET.decode()}'"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "at least one key"),
        ("keys = 1", "has no such 'keys'"),
        ("required = 'no'\n" + GOOD, "has no such 'required'"),
        ("secrets = 1\n" + GOOD, "has no such 'secrets'"),
        ("unsigned_topics = 'orders'\n" + GOOD, "has no such 'unsigned_topics'"),
        ("unsigned_topics = [1]\n" + GOOD, "cannot be a topic"),
        ("[keys]\na = 's'", "has one entry"),
        (GOOD + "\npublic='x'", "has one entry"),
        (GOOD.replace("secret=", "key="), "has one entry"),
        ("[keys.a]\nsecret=1", "has one entry"),
        ("[keys.a]\nsecret='${file:absent}'", r"keys.a.secret refers to a file: absent cannot be read"),
        ("[keys.a]\nsecret='${env:ABSENT_1}'", "keys.a.secret refers to the environment variable ABSENT_1"),
        (GOOD.replace("secret=", "private="), "is no Ed25519 key"),
        (GOOD.replace("keys.a", "keys.'a b'"), "cannot be the id"),
        (GOOD.replace("'", '"', 1), "is no TOML"),
        (f"lifetime_seconds = {'9' * 5_000}\n{GOOD}", "is no TOML"),
        (f"keys = {'[' * 5_000}", "is nested too deeply"),
        ("unsigned_topics = [['orders']]\n" + GOOD, "cannot be a topic"),
        ("[keys.a]\nsecret='${env:NO_UTF8}'", "keys.a.secret: its value is not UTF-8"),
        ("\udcff", "is not UTF-8"),
    ],
)
def test_a_bad_file_is_said_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, says: str
) -> None:
    monkeypatch.setitem(os.environb, b"NO_UTF8", 20 * b"\xff0")
    file = tmp_path / "seal.toml"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError, match=says) as told:
        load_seal(file)
    assert "0123456789" not in str(told.value)
    assert str(told.value).startswith(f"the seal: {file}")
    monkeypatch.setenv("KANTOKU_SEAL", str(file))
    with pytest.raises(UsageError, match=says) as told:
        Kantoku("n")
    assert str(told.value).startswith(f"KANTOKU_SEAL: {file}")


# --- signed and checked


def signed(kan: Kantoku, type_: str, *options: object, data: bytes = b"data") -> Record:
    """A task as it would be spawned."""
    ctx, message = prepare(kan, Task(type_, data).with_(*options))  # type: ignore[arg-type]
    assert ctx.envelope is not None
    return ctx.envelope, message.key, message.headers


def refusal(seal: Seal, record: Record, namespace: str = "n", at_us: int | None = None) -> str | None:
    try:
        seal.check(namespace, *record, at_us)
    except SignatureError as error:
        assert error.reason in SignatureError.REASONS and str(error).endswith(".")
        return error.reason
    return None


@pytest.mark.parametrize("kinds", [(Seal([HMAC]), Seal([HMAC])), (SIGNS, CHECKS)], ids=["hmac", "ed25519"])
def test_what_was_signed_is_good_and_nothing_else(kinds: tuple[Seal, Seal]) -> None:
    signs, checks = kinds
    kan = Kantoku("n", seal=signs)
    options = (key("k"), labels(a="1"), headers(tenant="7"), timeout(seconds=3), expires(seconds=60), delay(seconds=1))
    task, key_, carried = record = signed(kan, "t", *options)
    assert refusal(checks, record) is None
    assert refusal(checks, record, namespace="m") == "forged"
    assert refusal(checks, (task._replace(attempt=3), key_, carried)) is None, "retries need no key"
    altered = [
        {"id": new_task_id()},
        {"type": "u"},
        {"data": b"Data"},
        {"created_at_us": task.created_at_us + 1},
        {"max_attempts": 9},
        {"timeout_ms": None},
        {"not_before_us": None},
        {"expires_at_us": None},
        {"parent_id": "p"},
        {"labels": {"a": "2"}},
        {"options": {"retry": b"{}"}},
    ]
    for change in altered:
        assert refusal(checks, (task._replace(**change), key_, carried)) == "forged", change
    assert refusal(checks, (task, b"other", carried)) == "forged"
    (tenant, signature) = carried
    assert refusal(checks, (task, key_, (signature,))) == "forged"
    assert refusal(checks, (task, key_, (("tenant", b"8"), signature))) == "forged"
    assert refusal(checks, (task, key_, (tenant, ("more", b""), signature))) == "forged"
    assert refusal(checks, (task, key_, (tenant, ("traceparent", b"00-1"), (FIRED, b"p"), signature))) is None
    assert refusal(checks, (task, key_, (tenant,))) == "unsigned"
    assert refusal(checks, (task, key_, (*carried, signature))) == "forged", "two of them"
    value = signature[1] or b""
    for garbage in (None, b"", b"x", value[:-1], value + b"A", b"2" + value[1:], b"A" * 100_000, value[:20]):
        assert refusal(checks, (task, key_, (tenant, (SIGNATURE, garbage)))) == "forged", garbage


def test_what_names_a_schema_of_the_record_may_come_and_go() -> None:
    kan = Kantoku("n", seal=Seal([HMAC]))
    task, key_, _ = signed(kan, "t")
    of_others = (("tenant", b"7"), ("__key_schema_id", b"k"), ("__value_schema_id", b"v"))
    carried = Seal([HMAC]).sign("n", task, key_, of_others)
    assert refusal(Seal([HMAC]), (task, key_, carried)) is None
    assert refusal(Seal([HMAC]), (task, key_, lasting_headers(carried))) is None, "as timers have them"


def test_a_signature_ends_when_its_lifetime_is_over_and_no_claim_can_be_changed() -> None:
    seal = Seal([HMAC], lifetime_seconds=3_600)
    kan = Kantoku("n", seal=seal)
    task, key_, carried = record = signed(kan, "t")
    assert refusal(seal, record, at_us=task.created_at_us + HOUR_US - 1_000_000) is None
    late_us = task.created_at_us + 2 * HOUR_US
    assert refusal(seal, record, at_us=late_us) == "signature_expired"
    assert refusal(seal, record) is None, "where time does not matter"
    ((_, value),) = carried
    found = read_header(value or b"")
    assert found is not None and found.end_us is not None
    longer = header_of(claim_of(Kind.TASK, "h1", found.end_us + 4 * HOUR_US), found.raw)
    assert refusal(seal, (task, key_, (longer,)), at_us=late_us) == "forged"
    for_ever = header_of(claim_of(Kind.TASK, "h1", None), found.raw)
    assert refusal(seal, (task, key_, (for_ever,)), at_us=late_us) == "forged"
    delayed = signed(kan, "t", delay(seconds=7_200))
    assert refusal(seal, delayed, at_us=late_us) is None, "it counts from when the task may begin"


def test_a_task_whose_time_has_not_come_was_put_there_by_no_timer() -> None:
    kan = Kantoku("n", seal=SIGNS)
    task, key_, carried = signed(kan, "t", delay(seconds=3_600))
    fired = (task, key_, (*carried, (FIRED, b"n.timers/0/7")))
    assert refusal(CHECKS, fired, at_us=now_us()) == "too_early"
    assert refusal(CHECKS, fired, at_us=now_us() + HOUR_US - 60_000_000) is None, "clocks differ"
    assert refusal(CHECKS, (task, key_, carried), at_us=now_us()) is None, "it waits for its time yet"


def test_keys_are_rotated_without_a_gap() -> None:
    old, new = HmacKey("old", SECRET), HmacKey("new", SECRET[::-1])
    of_old = signed(Kantoku("n", seal=Seal([old])), "t")
    of_new = signed(Kantoku("n", seal=Seal([old, new], sign_with="new")), "t")
    before, between, after = Seal([old]), Seal([old, new], sign_with="old"), Seal([new])
    assert [refusal(seal, of_old) for seal in (before, between, after)] == [None, None, "unknown_key"]
    assert [refusal(seal, of_new) for seal in (before, between, after)] == ["unknown_key", None, None]
    impostor = Seal([HmacKey("old", b"\0" * 32)])
    assert refusal(impostor, of_old) == "forged"


def test_until_all_sign_the_unsigned_may_be_let_through_and_the_forged_not() -> None:
    lenient = Seal([Ed25519Key("e1", public=PUBLIC_PEM)], required=False)
    task, key_, carried = signed(Kantoku("n", seal=SIGNS), "t")
    assert refusal(lenient, (task, key_, ())) is None
    assert refusal(lenient, (task, key_, carried)) is None
    assert refusal(lenient, (task._replace(data=b"x"), key_, carried)) == "forged"
    assert signed(Kantoku("n", seal=lenient), "t")[2] == (), "who has no key to sign with, does not"
    with pytest.raises(UsageError, match=r"only has keys that check: .*\(KANTOKU_SEAL\)"):
        signed(Kantoku("n", seal=CHECKS), "t")


# --- schedules


def planned(seal: Seal, **times: object) -> Schedule:
    template = TaskEnvelope("schedule/nightly", "t", b"d", 0, labels={"schedule": "nightly"}, expires_at_us=60_000_000)
    schedule = Schedule("nightly", now_us(), "n.tasks.t", CODEC.encode_task(template), headers=(("h", b"1"),))
    return sealed(Kantoku("n", seal=seal), schedule._replace(**times), template)  # type: ignore[arg-type]


def spawned_at(schedule: Schedule, due_us: int, at_us: int | None = None) -> Record:
    """As the book spawns it."""
    from kantoku_kafka.engine.schedule_book import occurrence

    task_id = occurrence_id("n", schedule.name, due_us)
    envelope = occurrence(CODEC.decode_task(schedule.task), task_id, at_us or due_us)
    return envelope, schedule.key or task_id.encode(), schedule.headers


@pytest.mark.parametrize("times", [{"cron": "30 2 * * *", "time_zone": "Europe/Berlin"}, {"every_us": 1_500_000}])
@pytest.mark.parametrize("key_", [None, b"k"])
def test_the_tasks_of_a_signed_schedule_are_good_at_its_times_only(
    times: dict[str, object], key_: bytes | None
) -> None:
    from kantoku_kafka.engine.recurrence import Recurrence

    schedule = planned(SIGNS, key=key_, **times)
    due_us = Recurrence(schedule).next_after(now_us())
    assert due_us is not None
    task, record_key, carried = record = spawned_at(schedule, due_us)
    assert refusal(CHECKS, record, at_us=due_us) is None
    assert refusal(CHECKS, record, namespace="m") == "forged"
    assert refusal(CHECKS, (task._replace(attempt=2), record_key, carried)) is None
    assert refusal(CHECKS, spawned_at(schedule, due_us, due_us + HOUR_US), at_us=due_us + HOUR_US) is None, "late"
    assert refusal(CHECKS, record, at_us=due_us - HOUR_US) == "too_early"
    for wrong_us in (due_us + 1_000, due_us - 60_000, due_us + 500_000):
        assert refusal(CHECKS, spawned_at(schedule, wrong_us)) == "forged", "none of its times"
    for change in ({"data": b"x"}, {"id": new_task_id()}, {"labels": {"schedule": "other"}}, {"expires_at_us": None}):
        assert refusal(CHECKS, (task._replace(**change), record_key, carried)) == "forged", change
    assert refusal(CHECKS, (task, b"other", carried)) == "forged"
    template = CODEC.decode_task(schedule.task)
    assert refusal(CHECKS, (template, key_, carried)) == "forged", "the template is no task"
    CHECKS.check_template("n", schedule, template)
    a_task, its_key, its_headers = signed(Kantoku("n", seal=SIGNS), "t")
    for wrong, wrong_template in (
        (schedule, template._replace(data=b"x")),
        (schedule._replace(name="another"), template),
        (schedule._replace(name="another"), template._replace(id="schedule/another")),
        (schedule._replace(key=its_key, headers=its_headers), a_task),
        (schedule._replace(headers=()), template),
    ):
        with pytest.raises(SignatureError):
            CHECKS.check_template("n", wrong, wrong_template)


def test_the_times_of_a_signed_schedule_cannot_be_changed_in_its_topic() -> None:
    schedule = planned(SIGNS, cron="0 0 * * *")
    every_second = schedule._replace(cron=None, every_us=1_000_000)
    at_us = now_us() // 1_000_000 * 1_000_000 + 1_000_000
    assert at_us % (24 * HOUR_US), "run this at another second"
    assert refusal(CHECKS, spawned_at(every_second, at_us), at_us=at_us) == "forged"


@given(
    task_id=st.uuids().map(str)
    | st.integers(0, 2**48 - 1).map(lambda ms: str(UUID(int=ms << 80 | 8 << 76 | 2 << 62)))
    | texts,
    created_at_us=st.integers(-(2**63), 2**63 - 1),
    expires_at_us=st.none() | st.integers(-(2**63), 2**63 - 1),
    times=st.sampled_from([{"cron": "30 2 29 2 1"}, {"every_us": 1_500_000}, {"cron": "* * * * * *"}]),
)
def test_whatever_is_made_of_a_signed_schedule_is_refused_and_nothing_else_happens(
    task_id: str, created_at_us: int, expires_at_us: int | None, times: dict[str, object]
) -> None:
    schedule = planned(Seal([HMAC]), **times)
    template = CODEC.decode_task(schedule.task)
    if expires_at_us is None:
        expires_at_us = created_at_us + (template.expires_at_us or 0)  # so that the signature fits
    task = template._replace(id=task_id, created_at_us=created_at_us, expires_at_us=expires_at_us)
    reason = refusal(Seal([HMAC]), (task, task_id.encode(), schedule.headers), at_us=now_us())
    assert reason in ("forged", "too_early")


@given(records, st.none() | st.binary(max_size=100))
def test_a_record_of_anything_is_refused_in_a_sentence(record: Record, signature: bytes | None) -> None:
    task, key_, carried = record
    assert refusal(CHECKS, (task, key_, (*carried, (SIGNATURE, signature)))) == "forged"
    assert refusal(CHECKS, (task, key_, tuple(carried))) == "unsigned"


def test_a_schedule_is_good_for_ever_and_each_of_its_tasks_for_the_lifetime() -> None:
    seal = Seal([HMAC], lifetime_seconds=3_600)
    schedule = planned(seal, cron="0 * * * *")
    hour_us = (now_us() // HOUR_US + 10_000) * HOUR_US
    record = spawned_at(schedule, hour_us)
    assert refusal(seal, record, at_us=hour_us + HOUR_US - 1) is None
    assert refusal(seal, record, at_us=hour_us + HOUR_US + 1) == "signature_expired"


# --- an executor


def app(seal: Seal) -> Kantoku:
    kan = Kantoku("n", seal=seal)

    @kan.task("flaky", retry=Retry(max_attempts=3))
    def flaky(data: bytes, ctx: Context) -> bytes:
        if ctx.attempt < 3:
            raise ConnectionError("again")
        return b"%d" % ctx.attempt

    @kan.task("parent")
    def parent(data: bytes, ctx: Context) -> bytes:
        ctx.spawn(Task("echo", b"child").with_(labels(a="1")))
        return b"ok"

    @kan.task("echo")
    def echo(data: bytes) -> bytes:
        return data

    return kan


def forged_by(*messages: Message) -> InMemoryLog:
    log = InMemoryLog()
    log.append(*messages)
    return log


def causes(run: Run) -> list[str]:
    return [dict(letter.headers)["kantoku-error-type"].decode() for letter in run.dead_letters]


def test_an_executor_runs_retries_delays_and_children_that_are_signed() -> None:
    run = run_tasks(app(SIGNS), [Task("flaky", b""), Task("parent", b""), Task("echo", b"x").with_(delay(seconds=900))])
    assert [result.data for result in run.results] == [b"3", b"ok", b"x"]
    assert len(run.all_results) == 4 and not run.dead_letters
    assert not any(name == SIGNATURE for result in run.results for name, _ in result.headers)


def test_one_that_cannot_sign_retries_and_delays_and_spawns_no_children() -> None:
    signs, checks = app(SIGNS), app(CHECKS)
    made = [prepare(signs, Task(name, b"x").with_(delay(seconds=900)))[1] for name in ("flaky", "echo", "parent")]
    run = run_tasks(checks, [], log=forged_by(*made))
    ended = {result.type: result for result in run.all_results}
    assert (ended["flaky"].data, ended["echo"].data) == (b"3", b"x")
    error = ended["parent"].error
    assert ended["parent"].status is Status.FAILED and error is not None and "only has keys that check" in error.message


def test_a_task_that_is_where_it_does_not_belong_is_refused() -> None:
    kan = app(SIGNS)
    task, key_, carried = signed(kan, "echo")
    value, topic = CODEC.encode_task(task), kan.topics.of_type("echo")
    timer = Timer(task.id, "echo", 1, 0, topic, key_, value, carried)
    wrong = [
        timer._replace(topic=kan.topics.results),
        timer._replace(task_id=new_task_id()),
        timer._replace(headers=()),
    ]
    timers = [Message(kan.topics.timers, b"%d" % n, encode_timer(one)) for n, one in enumerate(wrong)]
    run = run_tasks(kan, [], log=forged_by(Message(kan.topics.of_type("flaky"), key_, value, carried), *timers))
    assert sorted(causes(run)) == ["forged", "forged", "forged", "unsigned"] and not run.all_results
    assert {letter.value for letter in run.dead_letters} == {value}, "of the task, also where a timer held it"
    run = run_tasks(kan, [], log=forged_by(Message(kan.topics.timers, b"t", encode_timer(timer))))
    assert [result.data for result in run.all_results] == [b"data"], "this one does"


@pytest.mark.parametrize("id_options", [(), (idempotency_key("i"),)])
def test_what_is_not_signed_is_a_dead_letter_and_leaves_no_other_trace(id_options: tuple[object, ...]) -> None:
    kan = app(SIGNS)
    task, key_, carried = signed(kan, "echo", *id_options)
    topic = kan.topics.of_type("echo")
    value, forged = CODEC.encode_task(task), CODEC.encode_task(task._replace(data=b"evil"))
    unsigned = Message(topic, key_, forged, (("a", b"1"),))
    run = run_tasks(
        kan, [], log=forged_by(unsigned, Message(topic, key_, forged, carried), Message(topic, key_, value, carried))
    )
    assert causes(run) == ["unsigned", "forged"]
    assert run.dead_letters[0].value == forged and run.dead_letters[0].headers[0] == ("a", b"1")
    (result,) = run.all_results
    assert (result.task_id, result.data) == (task.id, b"data"), "the true one ran, though it came last"
    assert {event.name for event in run.events} == {"received_task", "executed_task", "sent_outputs"}


def test_what_was_never_executed_is_not_remembered_as_if_by_a_new_owner_either() -> None:
    kan, log = app(SIGNS), InMemoryLog(partitions=1)
    topic, options = kan.topics.of_type("echo"), (idempotency_key("second"),)
    task, key_, carried = signed(kan, "echo", *options)
    run_tasks(kan, [Task("echo", b"1").with_(idempotency_key("first"))], log=log)
    log.append(Message(topic, key_, CODEC.encode_task(task._replace(data=b"evil")), carried))
    run_tasks(kan, [Task("echo", b"3").with_(idempotency_key("third"))], log=log)
    (second,) = run_tasks(kan, [Task("echo", b"2").with_(*options)], log=log).results
    assert (second.task_id, second.data) == (task.id, b"2")


def test_one_that_comes_too_late_has_an_event_and_no_result() -> None:
    kan = app(Seal([HMAC], lifetime_seconds=1e-6))
    made = prepare(kan, Task("echo", b"x"))[1]
    run = run_tasks(kan, [], log=forged_by(made), waits_for_timers=True)
    assert causes(run) == ["signature_expired"] and not run.all_results
    (event,) = run.events
    assert (event.name, event.attributes) == ("dead_lettered", {"reason": "signature_expired"})


def test_a_task_is_not_tried_again_beyond_the_end_of_its_signature() -> None:
    kan = app(Seal([HMAC], lifetime_seconds=5))

    @kan.task("slow", retry=Retry(initial_seconds=60, jitter=0))
    def slow(data: bytes) -> bytes:
        raise ConnectionError("once")

    (result,) = run_tasks(kan, [Task("slow", b"")]).results
    assert (result.status, result.attempt) == (Status.FAILED, 1)


def test_records_of_others_are_taken_where_their_topic_is_trusted_and_signed_to_go_on() -> None:
    kan = Kantoku("n", seal=Seal([HMAC], unsigned_topics=["orders"]))

    @kan.task("ship", from_topics={"orders": Json()}, retry=Retry(max_attempts=2))
    def ship(data: bytes, ctx: Context) -> bytes:
        if ctx.attempt == 1 or data == b"2":
            raise ConnectionError("again")
        return data

    own = Message(kan.topics.of_type("ship"), b"k", CODEC.encode_task(TaskEnvelope("x", "ship", b"3", 0)))
    run = run_tasks(kan, [], log=forged_by(Message("orders", b"a", b"1"), Message("orders", b"b", b"2"), own))
    assert {(r.data, r.status, r.attempt) for r in run.all_results} == {(b"1", "OK", 2), (b"", "FAILED", 2)}
    assert sorted(causes(run)) == ["ConnectionError", "unsigned"]
    (letter,) = [letter for letter in run.dead_letters if letter.key == b"b"]
    assert refusal(Seal([HMAC]), (CODEC.decode_task(letter.value), letter.key, letter.headers)) is None


def test_a_topic_that_is_trusted_is_so_for_its_own_type_alone() -> None:
    kan = app(Seal([HMAC], unsigned_topics=["n.tasks.echo"]))
    ran = []
    kan.task("pay")(lambda data: bytes(ran.append(data) or b""))
    tasks = [CODEC.encode_task(TaskEnvelope(name, name, b"1", 0)) for name in ("echo", "pay")]
    run = run_tasks(kan, [], log=forged_by(*(Message("n.tasks.echo", b"k", task) for task in tasks)))
    assert [result.type for result in run.all_results] == ["echo"] and not ran and causes(run) == ["forged"]


def test_records_of_others_are_not_taken_without_a_word() -> None:
    kan = Kantoku("n", seal=CHECKS)
    with pytest.raises(UsageError, match=r"unsigned_topics=\['orders'\]"):
        kan.task("ship", from_topics={"orders": Json()})(lambda data: data)


def test_who_reads_unsigned_records_is_not_misled_by_a_missing_environment() -> None:
    assert "KANTOKU_SEAL" not in os.environ and Kantoku("n").seal is None
