"""The forms of a schema registry: marks, and our envelopes in them; bytes that are none."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kantoku_kafka.avro import schemas
from kantoku_kafka.avro.codec import AvroCodec
from kantoku_kafka.avro.framing import Form, Frame, joined, marked, split
from kantoku_kafka.avro.safe import SafeSchema
from kantoku_kafka.errors import EnvelopeError, NotFound, RegistryUnavailable, UsageError
from kantoku_kafka.formats import ForeignRecord, Json, Raw
from kantoku_kafka.ids import new_task_id
from kantoku_kafka.job import Job, Partition
from kantoku_kafka.model import VALUE_SCHEMA_ID, TaskEnvelope, carried_headers, lasting_headers
from kantoku_kafka.names import Topics
from kantoku_kafka.registry import Registry
from kantoku_kafka.registry.envelopes import RegistryCodec

MARKS = st.integers(0, (1 << 32) - 1) | st.uuids()
TASK = TaskEnvelope(new_task_id(), "resize", b"data", 1, labels={"a": "b"})
GUID = UUID(int=7)


class Known(Registry):
    """A registry that answers at once: 1 and a GUID are Task, 2 is Result, 3 is none of ours, 4 is no answer."""

    def __init__(self) -> None:
        super().__init__("http://localhost:1")
        self.asked: list[int | UUID] = []

    def connect(self) -> None:
        pass

    def schema(self, mark: int | UUID) -> SafeSchema:
        self.asked.append(mark)
        if mark == 4:
            raise RegistryUnavailable("No answer.")
        if mark == 5:
            raise UsageError("Not safe.")
        texts = {
            1: schemas.text("Task.avsc"),
            GUID: schemas.text("Task.avsc"),
            2: schemas.text("Result.avsc"),
            3: "string",
        }
        if mark not in texts:
            raise NotFound(f"No {mark}.")
        return SafeSchema(texts[mark])


@given(MARKS, st.binary())
def test_a_mark_is_split_off(mark: int | UUID, body: bytes) -> None:
    assert split(marked(mark) + body) == (mark, body)
    assert joined(body, [("a", None), (VALUE_SCHEMA_ID, marked(mark))]) == marked(mark) + body
    assert joined(body, None) == body


@pytest.mark.parametrize("mark", [1, GUID])
def test_an_envelope_is_read_in_either_form(mark: int | UUID) -> None:
    codec, body = RegistryCodec(Known()), AvroCodec().encode_task(TASK)[10:]
    assert codec.decode_task(marked(mark) + body) == TASK
    assert codec.peek_task(marked(mark) + body)[:2] == (TASK.id, "resize")
    assert codec.decode_task(AvroCodec().encode_task(TASK)) == TASK


def test_a_frame_changes_what_is_of_its_schema_and_nothing_else() -> None:
    value = AvroCodec().encode_task(TASK)
    wire, header = Frame(value[:10], Form.WIRE, marked(1)), Frame(value[:10], Form.HEADER, marked(GUID))
    assert wire.framed(value, ()) == (marked(1) + value[10:], ())
    body, headers = header.framed(value, (("a", b"b"),))
    assert headers == (("a", b"b"), (VALUE_SCHEMA_ID, marked(GUID)))
    codec = RegistryCodec(Known())
    assert codec.decode_task(joined(body, headers)) == TASK
    for other in (None, b"", b"{}", value[:9]):
        assert wire.framed(other, ()) == (other, ()) == header.framed(other, ())


def test_a_job_goes_on_in_our_own_form_without_the_header() -> None:
    value = AvroCodec().encode_task(TASK)
    job = Job(Partition("t", 0, 1), 0, b"k", value[10:], [("a", b"b"), (VALUE_SCHEMA_ID, marked(GUID))])
    assert RegistryCodec(Known()).read(job)
    assert (job.value, job.raw_headers) == (value, [("a", b"b")])


def test_a_record_of_others_in_header_form_has_its_mark_before_its_data() -> None:
    headers = (("tenant", b"a"), (VALUE_SCHEMA_ID, marked(GUID)))
    assert Raw().read(ForeignRecord(None, b"body", headers)).data == marked(GUID) + b"body"
    assert Json().read(ForeignRecord(None, b"{}", headers)).data == b"{}"


@pytest.mark.parametrize("value", [marked(3) + b"x", marked(1) + b"x", marked(9), marked(2) + bytes(40)])
def test_a_record_that_cannot_be_read_stays_as_it_is_for_its_dead_letter(value: bytes) -> None:
    headers = [("a", b"b"), ("__key_schema_id", b"k")]
    job = Job(Partition("t", 0, 1), 0, b"k", value, headers)
    with pytest.raises(EnvelopeError):
        RegistryCodec(Known(), patience_seconds=0).read(job)
    assert (job.value, job.raw_headers) == (value, headers)


def test_headers_that_name_schemas_are_of_their_record_alone() -> None:
    headers = (("a", b"b"), (VALUE_SCHEMA_ID, b"x"), ("__key_schema_id", b"x"), ("kantoku-x", b"y"))
    assert carried_headers(headers) == lasting_headers(headers) == (("a", b"b"),)


@given(st.binary(max_size=60) | st.builds(lambda mark, body: marked(mark) + body, MARKS, st.binary(max_size=60)))
def test_any_bytes_are_an_envelope_or_refused(value: bytes) -> None:
    codec = RegistryCodec(Known(), patience_seconds=0)
    for decode in (codec.peek_task, codec.decode_task, codec.decode_result, codec.decode_event):
        try:
            decode(value)  # type: ignore[operator]  # of several types
        except EnvelopeError:
            pass
        except RegistryUnavailable:
            assert value.startswith(marked(4))


def test_what_the_registry_says_of_a_schema_tells_what_becomes_of_the_record() -> None:
    codec = RegistryCodec(Known(), patience_seconds=0)
    body = AvroCodec().encode_task(TASK)[10:]
    with pytest.raises(EnvelopeError, match="that of no released Task schema"):
        codec.decode_task(marked(3) + body)
    with pytest.raises(EnvelopeError, match="that of no released Task schema"):
        codec.decode_task(marked(2) + body)
    with pytest.raises(EnvelopeError, match=r"names a schema that is not known\. No 9"):
        codec.decode_task(marked(9) + body)
    with pytest.raises(EnvelopeError, match="schema 5 is none of ours: Not safe"):
        codec.decode_task(marked(5) + body)
    with pytest.raises(RegistryUnavailable):
        codec.decode_task(marked(4) + body)


def test_a_schema_is_waited_for_once() -> None:
    registry = Known()
    codec = RegistryCodec(registry, patience_seconds=0.5)
    for mark in (9, 10, 11):
        with pytest.raises(EnvelopeError):
            codec.decode_task(marked(mark) + b"x")
    assert registry.asked.count(9) > 1 and registry.asked.count(10) == registry.asked.count(11) == 1


@pytest.mark.parametrize("role", ["dlq", "task.resize", "timers", ""])
def test_a_topic_that_cannot_be_written_so_is_said(role: str) -> None:
    codec = RegistryCodec(Registry("http://localhost:1", envelopes={role: "wire"}))
    with pytest.raises(UsageError, match=r"there are results, events, tasks and tasks\.TYPE"):
        codec.frames(Topics(namespace="shop"), [])


@pytest.mark.parametrize("url", ["", "x", "ftp://h", "http://", "http://h:99999", "http://[::1", "http://u:secret@"])
def test_a_url_that_cannot_be_is_said_without_its_secrets(url: str) -> None:
    with pytest.raises(UsageError, match="no URL of a schema registry") as raised:
        Registry(url)
    assert "secret" not in str(raised.value)


def test_secrets_are_not_shown() -> None:
    registry = Registry("https://u:s3cret@h:1/x,http://u:s3cret@g", config={"ssl.key.password": "s3cret"})
    assert repr(registry) == "Registry('https://h:1/x,http://g')"
    with pytest.raises(UsageError, match="names a user, and so does"):
        Registry("https://u:s3cret@h", config={"basic.auth.user.info": "u:p"})


def test_who_a_url_names_is_nobody_at_another_one() -> None:
    user_info = "schema.registry.basic.auth.user.info"
    registry = Registry("https://u:s3cret@h")
    registry.connect_to({"ssl.ca.location": "ca.pem"})
    assert registry.settings[user_info] == "u:s3cret"
    registry.connect_to({"url": "http://g"})
    assert user_info not in registry.settings
    registry.connect_to({"basic.auth.user.info": "u:p"})
    registry.connect_to({"url": "http://f"})
    assert registry.settings[user_info] == "u:p"
