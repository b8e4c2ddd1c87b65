"""A file of settings in another form."""

from __future__ import annotations

import json
import re
from collections.abc import Container, Mapping
from enum import StrEnum

from kantoku_kafka.configuration.managed import is_managed, overridden
from kantoku_kafka.configuration.masks import REGISTRY_PREFIX, is_secret
from kantoku_kafka.configuration.properties import java_line, literal_line
from kantoku_kafka.configuration.references import has_reference, resolved
from kantoku_kafka.configuration.sources import Configuration
from kantoku_kafka.configuration.to_java import java_settings

__all__ = ["Form", "converted", "profile_text"]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_MOST_PARTS = 20  # as many tables in tables as are read


class Form(StrEnum):
    """What a file of settings may be."""

    LIBRDKAFKA = "librdkafka"
    JAVA = "java"
    TOML = "toml"


def converted(configuration: Configuration, form: Form, profile: str, *, resolve: bool) -> tuple[str, list[str]]:
    """The text of a file with these settings, and notices for people.

    Parameters:
        configuration: the settings.
        form: that of the file.
        profile: the name of the profile; only in TOML.
        resolve: put what references stand for in their place.

    Raises:
        UsageError: the form cannot hold them, or a reference cannot be looked up.
    """
    registry = {f"{REGISTRY_PREFIX}{name}": setting for name, setting in configuration.registry.items()}
    settings = {key: str(setting.value) for key, setting in {**configuration.kafka, **registry}.items()}
    if resolve:
        settings = {key: resolved(key, value) for key, value in settings.items()}
    notices = list(configuration.notices)
    secrets = [key for key, value in settings.items() if is_secret(key) and value and not has_reference(value)]
    if secrets:
        notices.append(
            f"secrets stand in the output as they are: {', '.join(secrets)}. Let nobody else read it (chmod 600), or "
            "refer to them: ${env:NAME}, ${file:/path}"
        )
    namespace = None if configuration.namespace is None else str(configuration.namespace.value)
    topics = {role: str(setting.value) for role, setting in configuration.topics.items()}
    if form is Form.TOML:
        if ignored := overridden(settings):
            notices.append(f"left out, for they do not count here: {', '.join(ignored)}")
        kept = {key: value for key, value in settings.items() if not is_managed(key)}
        return profile_text(profile, kept, namespace=namespace, topics=topics), notices
    if namespace or topics:
        notices.append("left out: namespace and topics stand in profiles only")
    if form is Form.LIBRDKAFKA:
        return "".join(f"{literal_line(key, value)}\n" for key, value in settings.items()), notices
    java, more = java_settings(settings)
    return "".join(f"{java_line(key, value)}\n" for key, value in java.items()), notices + more


def profile_text(
    profile: str, settings: Mapping[str, str], *, namespace: str | None = None, topics: Mapping[str, str] | None = None
) -> str:
    """A profile in TOML, with ``settings`` of librdkafka."""
    kafka = dict(settings)
    texts = {"bootstrap_servers": kafka.pop("bootstrap.servers", None), "namespace": namespace}
    head = f"profiles.{profile if _BARE.fullmatch(profile) else _quoted(profile)}"
    lines = [f"[{head}]", *(f"{key} = {_quoted(value)}" for key, value in texts.items() if value is not None)]
    for name, table in (("topics", topics or {}), ("kafka", kafka)):
        if table:
            lines += [
                "",
                f"[{head}.{name}]",
                *(f"{_key(key, table)} = {_quoted(value)}" for key, value in table.items()),
            ]
    return "\n".join([*lines, ""])


def _key(key: str, table: Container[str]) -> str:
    """Without quotes a dot makes a table: of two keys the one cannot be a value and the other a value in it."""
    parts = key.split(".")
    shorter = (".".join(parts[:count]) for count in range(1, len(parts)))
    bare = len(parts) <= _MOST_PARTS and all(map(_BARE.fullmatch, parts)) and not any(one in table for one in shorter)
    return key if bare else _quoted(key)


def _quoted(text: str) -> str:
    """A basic string of TOML; its escapes are those of JSON, but for one character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
