"""``kantoku.toml``: profiles, one of which is chosen by its name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from kantoku_kafka.configuration.java import Setting
from kantoku_kafka.configuration.properties import toml_of
from kantoku_kafka.errors import UsageError

__all__ = [
    "DEFAULT_PROFILE",
    "FILE_NAME",
    "TOPICS",
    "TOPIC_PREFIXES",
    "Profile",
    "find_profiles",
    "is_toml",
    "read_profile",
]

FILE_NAME = "kantoku.toml"
DEFAULT_PROFILE = "default"
_TEXTS = ("bootstrap_servers", "namespace")
_TABLES = ("kafka", "topics")
TOPICS = ("control", "dlq", "events", "results", "schedules", "timers")
_MOST_DOTS = 20
TOPIC_PREFIXES = ("tasks.", "priority.")


class Profile(NamedTuple):
    """What a profile says."""

    namespace: Setting | None
    topics: Mapping[str, Setting]
    kafka: Mapping[str, Setting]


def is_toml(path: Path) -> bool:
    """Whether a file holds profiles: its name tells."""
    return path.suffix.lower() == ".toml"


def find_profiles(environment: Mapping[str, str]) -> Path | None:
    """``kantoku.toml`` of the current directory, else the user's own in ``~/.config/kantoku-kafka``."""
    home = environment.get("XDG_CONFIG_HOME") or f"{environment.get('HOME', '')}/.config"
    places = (Path(FILE_NAME), Path(home, "kantoku-kafka", FILE_NAME))
    return next((path for path in places if path.is_file()), None)


def read_profile(path: Path, name: str | None) -> Profile:
    """One profile of a file; without a name, ``[profiles.default]``. Raises UsageError."""
    document = toml_of(path)
    _check_names(document, ("profiles",), str(path))
    profiles = document.get("profiles", {})
    if not isinstance(profiles, dict) or not all(isinstance(profile, dict) for profile in profiles.values()):
        raise UsageError(f"{path}: profiles are tables, [profiles.NAME].")
    chosen = name or DEFAULT_PROFILE
    if not profiles:
        raise UsageError(f"{path} has no profile: write one, [profiles.{chosen}].")
    if chosen not in profiles:
        names = ", ".join(sorted(profiles))
        wanted = f"no profile {name!r}" if name else f"no [profiles.{DEFAULT_PROFILE}], and none is chosen"
        raise UsageError(f"{path} has {wanted}: give --profile or KANTOKU_PROFILE, one of: {names}.")
    return _profile(profiles[chosen], f"{path} [profiles.{chosen}]")


def _profile(table: Mapping[str, Any], origin: str) -> Profile:
    _check_names(table, (*_TEXTS, *_TABLES), origin)
    for name in _TEXTS:
        if not isinstance(table.get(name, ""), str):
            raise UsageError(f"{origin}: {name} is a text in quotes.")
    for name in _TABLES:
        if not isinstance(table.get(name, {}), dict):
            raise UsageError(f"{origin}: {name} is a table.")
    kafka = {key: Setting(value, origin) for key, value in _flat(table.get("kafka", {}), "", origin)}
    if "bootstrap_servers" in table:
        kafka["bootstrap.servers"] = Setting(table["bootstrap_servers"], origin)
    topics = dict(_flat(table.get("topics", {}), "", origin))
    _check_names([name for name in topics if not name.startswith(TOPIC_PREFIXES)], TOPICS, f"{origin} topics")
    namespace = table.get("namespace")
    return Profile(
        None if namespace is None else Setting(namespace, origin),
        {key: Setting(str(value), origin) for key, value in topics.items()},
        kafka,
    )


def _flat(table: Mapping[str, Any], prefix: str, origin: str) -> Iterator[tuple[str, str | int | float | bool]]:
    """``security.protocol = ...`` without quotes is a table in a table: the same is meant."""
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and name.count(".") < _MOST_DOTS:
            yield from _flat(value, f"{name}.", origin)
        elif isinstance(value, bool):
            yield name, str(value).lower()
        elif isinstance(value, str | int | float):
            yield name, value
        else:
            raise UsageError(
                f"{origin}: {name} is a {type(value).__name__}, where a text, number or true/false is wanted."
            )


def _check_names(names: Iterable[str], known: tuple[str, ...], where: str) -> None:
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}."
            raise UsageError(f"{where}: {name!r} is unknown; {hint}")
