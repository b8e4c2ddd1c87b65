"""Formats by properties: what is no task says so, and the same event is the same task in either mode."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kantoku_kafka.errors import EnvelopeError
from kantoku_kafka.formats import CloudEvents, ForeignRecord, ForeignTask, Format, Json, Raw
from kantoku_kafka.model import Headers

STRUCTURED: Headers = (("content-type", b"application/cloudevents+json"),)
texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
sources = texts.map(lambda text: text.replace(" ", "-"))
numbers = st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
documents = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)
headers = st.lists(
    st.tuples(st.sampled_from(["id", "kind", "ce_id", "content-type", "x"]), st.none() | st.binary())
).map(tuple)
formats: st.SearchStrategy[Format] = st.sampled_from(
    [Raw(), Raw(id_header="id", type_header="kind", types=["a"]), Json(), Json(id_field="id"), CloudEvents()]
)


@given(formats, st.none() | st.binary() | documents.map(lambda d: json.dumps(d).encode()), headers)
def test_any_record_is_a_task_or_says_why_it_is_none(one: Format, value: bytes | None, heads: Headers) -> None:
    try:
        found = one.read(ForeignRecord(None, value, heads))
    except EnvelopeError as error:
        assert str(error).endswith((".", "'1.0'.")) and str(error).encode()
        return
    assert isinstance(found.data, bytes) and (found.id is None or found.id.encode())
    assert all(name.encode() and isinstance(raw, bytes | None) for name, raw in found.headers)


@given(documents, st.dictionaries(texts, documents, max_size=3), texts | st.integers())
def test_json_is_data_as_it_is(document: Any, rest: dict[str, Any], name: str | int) -> None:
    value = json.dumps(document).encode()
    assert Json().read(ForeignRecord(None, value, ())) == ForeignTask(value, None, None, ())
    named = json.dumps(rest | {"id": name}, ensure_ascii=False).encode()
    assert Json(id_field="id").read(ForeignRecord(None, named, ())).id == str(name)


@given(
    texts,
    sources,
    texts,
    documents,
    st.dictionaries(st.from_regex(r"[a-z0-9]{3,10}", fullmatch=True), texts, max_size=3),
)
def test_an_event_is_the_same_task_in_either_mode(
    id_: str, source: str, type_: str, data: Any, extensions: dict[str, str]
) -> None:
    for taken in ("data", "id", "source", "type", "specversion", "datacontenttype"):
        extensions.pop(taken, None)
    attributes = extensions | {"specversion": "1.0", "id": id_, "source": source, "type": type_}
    event = json.dumps(attributes | {"data": data, "datacontenttype": "application/json"}).encode()
    structured = CloudEvents().read(ForeignRecord(None, event, STRUCTURED))
    heads = (("content-type", b"application/json"), *((f"ce_{n}", text.encode()) for n, text in attributes.items()))
    value = json.dumps(data).encode()
    binary = CloudEvents().read(ForeignRecord(None, value, heads))
    assert structured._replace(data=b"", headers=()) == binary._replace(data=b"", headers=())
    assert dict(structured.headers) == dict(binary.headers)
    assert json.loads(structured.data) == json.loads(binary.data)


@given(st.binary())
def test_binary_data_of_a_structured_event(data: bytes) -> None:
    event = {
        "specversion": "1.0",
        "id": "1",
        "source": "/s",
        "type": "t",
        "data_base64": base64.b64encode(data).decode(),
    }
    assert CloudEvents().read(ForeignRecord(None, json.dumps(event).encode(), STRUCTURED)).data == data


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"id": ""}, "'id'"),
        ({"source": None}, "no attribute 'source'"),
        ({"source": "a b"}, "no URI reference"),
        ({"type": 7.5}, "is a float"),
        ({"specversion": "0.3"}, "'0.3', not '1.0'"),
        ({"Big": "x"}, "no name for an attribute"),
        ({"ext": {"a": 1}}, "is a dict"),
        ({"ext": "\ud800"}, "surrogate"),
        ({"data": 1, "data_base64": "aGk="}, "both"),
        ({"data_base64": "no base64"}, "cannot be taken out"),
        ({"data": "\ud800", "datacontenttype": "text/plain"}, "cannot be taken out"),
        ({"datacontenttype": 7}, "is no text"),
    ],
)
def test_a_structured_event_that_is_none(changed: dict[str, Any], reason: str) -> None:
    event = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"} | changed
    with pytest.raises(EnvelopeError, match=reason):
        CloudEvents().read(ForeignRecord(None, json.dumps(event).encode(), STRUCTURED))


@pytest.mark.parametrize(
    ("value", "reason"),
    [(None, "no JSON"), (b"[]", "not an object"), (b'{"data": 1e999}', "cannot be taken out"), (b"{}", "no attribute")],
)
def test_a_structured_record_that_holds_no_event(value: bytes | None, reason: str) -> None:
    with pytest.raises(EnvelopeError, match=reason):
        CloudEvents().read(ForeignRecord(None, value, STRUCTURED))


def test_batches_and_other_encodings_are_named() -> None:
    for kind in (b"application/cloudevents-batch+json", b"application/cloudevents+avro"):
        with pytest.raises(EnvelopeError, match=r"structured mode JSON"):
            CloudEvents().read(ForeignRecord(None, b"[]", (("content-type", kind),)))


def test_text_of_an_event_is_no_json_text() -> None:
    event = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "datacontenttype": "text/plain", "data": "é"}
    assert CloudEvents().read(ForeignRecord(None, json.dumps(event).encode(), STRUCTURED)).data == "é".encode()
