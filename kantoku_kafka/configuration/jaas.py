"""The one line of JAAS in a Java client's properties: a login module and its options."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from kantoku_kafka.errors import UsageError

__all__ = ["Jaas", "jaas_text", "parse_jaas"]

_TOKEN = re.compile(
    r"(?P<skip>\s+|//[^\n]*|/\*.*?\*/)"
    r"|\"(?P<double>(?:\\.|[^\"\\\n])*)\"|'(?P<single>(?:\\.|[^'\\\n])*)'"
    r"|(?P<mark>[=;])|(?P<word>[^\s\"'=;]+)",
    re.DOTALL,
)
_ESCAPE = re.compile(r"\\([0-3]?[0-7]{1,2}|.)", re.DOTALL)
_ESCAPED = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_FLAGS = {"required", "requisite", "sufficient", "optional"}


class Jaas(NamedTuple):
    """A login module by the last part of its class name, which survives shading, and its options."""

    module: str
    options: Mapping[str, str]


def parse_jaas(text: str, where: str) -> Jaas:
    """Read ``a.b.LoginModule required name="value" ...;``. Raises UsageError, which quotes nothing of it."""
    tokens = _tokens(text, where)

    def wanted(what: str, *kinds: str) -> str:
        kind, value = next(tokens, ("end", ""))
        if kind not in kinds:
            raise UsageError(f"{where}: the JAAS text has no {what} where one is wanted.")
        return value

    module = wanted("login module", "word")
    if wanted("control flag (required)", "word").lower() not in _FLAGS:
        raise UsageError(f"{where}: the control flag of a JAAS text is 'required'.")
    options = {}
    while (name := wanted("option or ';'", "word", "mark")) != ";":
        if name == "=" or wanted("'='", "mark") != "=":
            raise UsageError(f"{where}: in the JAAS text, options are NAME=\"VALUE\" and a ';' ends them.")
        options[name] = wanted("value", "word", "text")
    if next(tokens, None) is not None:
        raise UsageError(f"{where}: the JAAS text goes on behind its ';'. Kafka takes one login module.")
    return Jaas(module.rpartition(".")[2], options)


def jaas_text(module: str, options: Mapping[str, str]) -> str:
    """The text of which :func:`parse_jaas` makes these."""
    quoted = (f'{name}="{_quoted(value)}"' for name, value in options.items())
    return f"{' '.join([module, 'required', *quoted])};"


def _tokens(text: str, where: str) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise UsageError(f"{where}: a quote in the JAAS text is not closed.")
        at, kind = match.end(), match.lastgroup
        if kind in ("double", "single"):
            yield "text", _ESCAPE.sub(_character, match[kind])
        elif kind in ("mark", "word"):
            yield kind, match[kind]


def _character(match: re.Match[str]) -> str:
    code = match[1]
    return chr(int(code, 8)) if code[0] in "01234567" else _ESCAPED.get(code, code)


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    for name, character in _ESCAPED.items():
        escaped = escaped.replace(character, f"\\{name}")
    return escaped
