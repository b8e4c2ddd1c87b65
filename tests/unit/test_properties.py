"""Property files in both forms: what is written is read back, and whatever else stands there is said in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kantoku_kafka.configuration.jaas import jaas_text, parse_jaas
from kantoku_kafka.configuration.properties import (
    Entry,
    java_entries,
    java_line,
    literal_entries,
    literal_line,
    text_of,
)
from kantoku_kafka.errors import UsageError

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(st.lists(st.tuples(TEXTS.filter(bool), TEXTS), max_size=5))
def test_java_properties_are_read_as_they_were_written(pairs: list[tuple[str, str]]) -> None:
    text = "\n".join(java_line(key, value) for key, value in pairs)
    assert java_entries(text, "f") == [Entry(key, value, number) for number, (key, value) in enumerate(pairs, 1)]
    assert text.isascii()


@given(st.lists(st.tuples(st.from_regex(r"[a-z.]{1,9}", fullmatch=True), TEXTS.map(str.strip)), max_size=5))
def test_literal_properties_are_read_as_they_were_written(pairs: list[tuple[str, str]]) -> None:
    pairs = [(key, value) for key, value in pairs if "\n" not in value and "\r" not in value]
    text = "\r\n".join(literal_line(key, value) for key, value in pairs)
    assert literal_entries(text, "f") == [Entry(key, value, number) for number, (key, value) in enumerate(pairs, 1)]


@pytest.mark.parametrize("value", ["a\nb", "a\rb", " a", "a\t"])
def test_what_a_literal_line_cannot_hold_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match="--to toml"):
        literal_line("k", value)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (java_entries, literal_entries):
        try:
            read(text, "f")
        except UsageError as error:
            assert "line" in str(error)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=b", ("a", "b")),
        ("  a = b ", ("a", "b ")),
        ("a:b", ("a", "b")),
        ("a b=c", ("a", "b=c")),
        ("a  :  b", ("a", "b")),
        ("a", ("a", "")),
        ("a=", ("a", "")),
        ("a==b", ("a", "=b")),
        (r"a\ b\=c=d", ("a b=c", "d")),
        ("a=b\\\n   c", ("a", "bc")),
        ("a=b\\\r\n\tc", ("a", "bc")),
        ("a=b\\\\\n", ("a", "b\\")),
        ("a=b\\", ("a", "b")),
        ("a=b\\\n#c", ("a", "b#c")),
        (r"a=\u00e9\t\q\"", ("a", 'é\tq"')),
        (r"a=\ud83d\ude00", ("a", "😀")),
        ("# c\n! c\n\n\f a=b", ("a", "b")),
    ],
)
def test_the_syntax_of_java(text: str, expected: tuple[str, str]) -> None:
    """As the documentation of java.util.Properties has it."""
    assert [(key, value) for key, value, _ in java_entries(text, "f")] == [expected]


@pytest.mark.parametrize("text", [r"a=\u12", r"a=\u", r"a=\ud83d", r"\uzzzz=1"])
def test_a_wrong_escape_is_named_by_its_line(text: str) -> None:
    with pytest.raises(UsageError, match="line 2 of f"):
        java_entries(f"b=c\n{text}", "f")


def test_the_line_of_an_entry_is_where_it_begins() -> None:
    assert [entry.line for entry in java_entries("#\na=b\\\n c\nd=e", "f")] == [2, 4]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a=1\nb=\xe9", "line 2 is not UTF-8"),
        ("a=1".encode("utf-16"), "UTF-16"),
        (None, "No such file"),
    ],
)
def test_what_cannot_be_decoded_is_said(tmp_path: Path, data: bytes | None, message: str) -> None:
    path = tmp_path / "f"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UsageError, match=message):
        text_of(path, "--config")


def test_a_byte_order_mark_is_none_of_the_first_key(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"\xef\xbb\xbfa=\xc3\xa9")
    assert text_of(tmp_path / "f", "--config") == "a=é"


OPTIONS = st.dictionaries(st.from_regex(r"[A-Za-z_]{1,8}", fullmatch=True), st.text(max_size=20), max_size=4)


@given(OPTIONS)
def test_jaas_is_read_as_it_was_written(options: dict[str, str]) -> None:
    found = parse_jaas(jaas_text("a.b.PlainLoginModule", options), "f:1")
    assert found == ("PlainLoginModule", options)


@given(st.text(st.sampled_from("ab \t\n\"'\\=;/*0"), max_size=40))
def test_any_jaas_is_read_or_refused(text: str) -> None:
    for whole in (text, f"a.M required {text}"):
        try:
            parse_jaas(whole, "f:1")
        except UsageError as error:
            assert str(error).startswith("f:1: ")


@pytest.mark.parametrize(
    "text",
    [
        "a.PlainLoginModule required username='u' password='p\"q';",
        'a.PlainLoginModule  required\n username="u"\n password = "p\\"q" ;',
        'a.b.PlainLoginModule REQUIRED username=u /* c */ password="p\\42q"; // c',
    ],
)
def test_forms_of_jaas(text: str) -> None:
    assert parse_jaas(text, "f:1") == ("PlainLoginModule", {"username": "u", "password": 'p"q'})


@pytest.mark.parametrize(
    "text",
    [
        "",
        ";",
        "M",
        "M required",
        'M required password="hunter2"',
        'M required password="hunter2',
        'M maybe password="hunter2";',
        'M required password="hunter2"; M required;',
        'M required password hunter2 "hunter2";',
        'M required = = "hunter2";',
        'M required password="hun\nter2";',
    ],
)
def test_no_error_of_jaas_quotes_it(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_jaas(text, "f:1")
    assert "hun" not in str(raised.value)
