"""The two forms of property files: as librdkafka's tools take them, and as Java does. Parsed and written."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from kantoku_kafka.errors import UsageError

__all__ = [
    "Entry",
    "java_entries",
    "java_line",
    "literal_entries",
    "literal_line",
    "raw_java_entries",
    "text_of",
    "toml_of",
]

_LINE_ENDS = re.compile(r"\r\n|\n|\r")
_BLANKS = " \t\f"
_JAVA_LINE = re.compile(r"((?:\\.|[^\\=: \t\f])*)[ \t\f]*(?:[=:][ \t\f]*)?(.*)", re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_ESCAPED = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


class Entry(NamedTuple):
    """A setting in a file, and the number of the line where it begins."""

    key: str
    value: str
    line: int


def text_of(path: Path, what: str = "") -> str:
    """The text of a file in UTF-8, with or without a byte order mark. Raises UsageError, which names ``what``, too."""
    told = _named(path, what)
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else "its name has a NUL character"
        raise UsageError(f"{told} cannot be read: {reason}.") from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UsageError(f"{told} cannot be read: it is UTF-16. Save it as UTF-8.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{told} cannot be read: line {number} is not UTF-8. Save it as UTF-8.") from None


def _named(path: Path, what: str) -> str:
    return f"{what}: {path}" if what else str(path)


def toml_of(path: Path, what: str = "") -> dict[str, Any]:
    """What a file of TOML says. Raises as :func:`text_of`."""
    text, told = text_of(path, what), _named(path, what)
    try:
        return tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError is one; so is a number of too many digits
        raise UsageError(f"{told} is no TOML: {error}.") from None
    except RecursionError:
        raise UsageError(f"{told} is nested too deeply.") from None


def literal_entries(text: str, where: object) -> list[Entry]:
    """Lines of ``key=value``, nothing escaped; blank lines and those that begin with ``#`` are left out.

    Raises:
        UsageError: a line is none.
    """
    entries = []
    for number, line in enumerate(map(str.strip, _LINE_ENDS.split(text)), 1):
        if line and not line.startswith("#"):
            key, equals, value = line.partition("=")
            if not (equals and key.strip()):
                raise UsageError(f"line {number} of {where} is not KEY=VALUE.")
            entries.append(Entry(key.strip(), value.strip(), number))
    return entries


def java_entries(text: str, where: object) -> list[Entry]:
    """As ``java.util.Properties`` reads them: escapes, continued lines, ``=``, ``:`` or a blank behind the key.

    Raises:
        UsageError: ``\\u`` without four hexadecimal digits.
    """
    entries = []
    for key, value, line in raw_java_entries(text):
        place = f"line {line} of {where}"
        entries.append(Entry(_unescaped(key, place), _unescaped(value, place), line))
    return entries


def raw_java_entries(text: str) -> Iterator[Entry]:
    """The same with their escapes, which cannot be wrong then."""
    for number, line in _logical_lines(text):
        match = _JAVA_LINE.fullmatch(line)
        assert match is not None  # no backslash ends it: that would have continued the line
        yield Entry(match[1], match[2], number)


def literal_line(key: str, value: str) -> str:
    """A line that :func:`literal_entries` reads as these. Raises UsageError if there is none."""
    if value != value.strip() or _LINE_ENDS.search(value):
        raise UsageError(f"{key} has a value of several lines, or with blanks around: use --to toml or --to java.")
    return f"{key}={value}"


def java_line(key: str, value: str) -> str:
    """A line that :func:`java_entries` reads as these."""
    begin = len(value) - len(value.lstrip(" "))
    return f"{_escaped(key, '=: #!')}={value[:begin].replace(' ', chr(92) + ' ')}{_escaped(value[begin:], '')}"


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    lines = enumerate(_LINE_ENDS.split(text), 1)
    for number, raw in lines:
        line = raw.lstrip(_BLANKS)
        if not line or line[0] in "#!":
            continue
        while (len(line) - len(line.rstrip("\\"))) % 2:
            line = line[:-1] + next(lines, (0, ""))[1].lstrip(_BLANKS)
        yield number, line


def _unescaped(text: str, where: str) -> str:
    def character(match: re.Match[str]) -> str:
        if match[1]:
            return chr(int(match[1], 16))
        if match[2] == "u":
            raise UsageError(f"{where} has \\u without four hexadecimal digits.")
        return _ESCAPED.get(match[2], match[2])

    try:  # pairs of surrogates are one character
        return _ESCAPE.sub(character, text).encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise UsageError(f"{where} has half a character: \\uD800 to \\uDFFF come in pairs.") from None


def _escaped(text: str, more: str) -> str:
    pieces = []
    for character in text:
        if character in _ESCAPED.values():
            pieces.append("\\" + next(name for name, one in _ESCAPED.items() if one == character))
        elif character == "\\" or character in more:
            pieces.append("\\" + character)
        elif " " <= character <= "~":
            pieces.append(character)
        else:
            units = character.encode("utf-16-be")
            pieces += [f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2)]
    return "".join(pieces)
