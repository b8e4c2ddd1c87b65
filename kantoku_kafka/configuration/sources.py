"""All places that settings come from, in one order: what counts, and where it comes from."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType

from kantoku_kafka.configuration.java import Setting, check_mechanism, is_java, translated, untranslated
from kantoku_kafka.configuration.known import LIBRDKAFKA_KEYS, canonical, left_open
from kantoku_kafka.configuration.profiles import find_profiles, is_toml, read_profile
from kantoku_kafka.configuration.properties import java_entries, literal_entries, raw_java_entries, text_of
from kantoku_kafka.configuration.references import resolved
from kantoku_kafka.errors import UsageError
from kantoku_kafka.names import Topics
from kantoku_kafka.settings import Connection

__all__ = ["Configuration", "command_line", "load", "read_file"]

_log = logging.getLogger(__name__)
_PREFIX = "KANTOKU_KAFKA_"
# Kubernetes sets these in every pod beside a Service that is named kantoku-kafka.
_SERVICE_LINK = re.compile(r"SERVICE_(HOST|PORT)(_.*)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?")
_VARIABLES = {key.upper().replace(".", "_"): key for key in LIBRDKAFKA_KEYS}
_NAMES = "BOOTSTRAP_SERVERS", "CONFIG", "HTTP", "LOG_FORMAT", "LOG_LEVEL", "NAMESPACE", "OTEL", "PROFILE", "SEAL"
_NEAR = 0.85  # as get_close_matches counts: one or two characters, or KAFKA_ left out
# Beside the brokers' settings, as the files of Confluent's clients have them.
_REGISTRY = re.compile(r"(?:schema\.registry\.)?((?:basic|bearer)\.auth\..+)|schema\.registry\.(.+)")
_CREDENTIALS_SOURCE, _USER_INFO = "basic.auth.credentials.source", "basic.auth.user.info"
_INHERITED = "SASL_INHERIT"  # who asks the registry is who speaks to Kafka
_URL_WITH_USER = re.compile(r"://[^/?#]*@")


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """Settings that were given somewhere, each with its origin.

    Parameters:
        kafka: librdkafka's, and ``bootstrap.servers``; references in it are not yet looked up.
        namespace: None: as the app has it.
        topics: topics to use instead of ours.
        registry: of the schema registry: ``url``, and what confluent-kafka's ``SchemaRegistryClient`` takes besides.
        notices: what was left out of a file, for people.
    """

    kafka: Mapping[str, Setting] = field(default_factory=dict)
    namespace: Setting | None = None
    topics: Mapping[str, Setting] = field(default_factory=dict)
    registry: Mapping[str, Setting] = field(default_factory=dict)
    notices: tuple[str, ...] = ()

    def over(self, weaker: Configuration) -> Configuration:
        """These, and what they leave open from ``weaker``."""
        url = self.registry.get("url")
        who = {_USER_INFO, _CREDENTIALS_SOURCE}
        if not (who & self.registry.keys() or (url is not None and _URL_WITH_USER.search(str(url.value)))):
            who = set()
        return Configuration(
            kafka={**left_open(weaker.kafka, self.kafka), **self.kafka},
            namespace=self.namespace or weaker.namespace,
            topics={**weaker.topics, **self.topics},
            registry={**{key: one for key, one in weaker.registry.items() if key not in who}, **self.registry},
            notices=(*weaker.notices, *self.notices),
        )

    def connection(self, own: Connection) -> Connection:
        """The connection of an app with these settings laid over its own. Raises UsageError."""
        config = {key: setting.value for key, setting in self.kafka.items()}
        servers = str(config.pop("bootstrap.servers", own.bootstrap_servers))
        return Connection(
            bootstrap_servers=servers,
            config={**left_open(own.config, config), **config},
            timeout_seconds=own.timeout_seconds,
            origins={**own.origins, **{key: setting.origin for key, setting in self.kafka.items()}},
        )

    def registry_settings(self, connection: Connection) -> dict[str, Setting]:
        """Those of the schema registry; the user may be that of the connection. Raises UsageError."""
        settings = dict(self.registry)
        source = settings.pop(_CREDENTIALS_SOURCE, None)
        if source is not None:
            user, password = (connection.config.get(f"sasl.{name}") for name in ("username", "password"))
            if not (user and password):
                raise UsageError(
                    f"{_CREDENTIALS_SOURCE}={_INHERITED} takes sasl.username and sasl.password, which are not both "
                    f"set: set them, or {_USER_INFO}=USER:PASSWORD instead."
                )
            settings[_USER_INFO] = Setting(f"{user}:{password}", source.origin)
        return settings

    def topic_names(self, own: Topics) -> Topics:
        """The topics of an app with these settings laid over its own. Raises UsageError."""
        overrides = {**own.overrides, **{key: str(setting.value) for key, setting in self.topics.items()}}
        namespace = own.namespace if self.namespace is None else resolved("namespace", self.namespace.value)
        return Topics(namespace=namespace, overrides=MappingProxyType(overrides))


def load(
    given: Configuration | None = None,
    *,
    config_file: str | Path | None = None,
    profile: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Configuration:
    """What counts of all that was given: first ``given`` (the command line), then the environment, then the file found.

    In each of them, single settings count more than the file that is named there, and this more than the profile.

    Parameters:
        given: single settings of the command line.
        config_file: properties (librdkafka's or the Java client's) or, if it ends in ``.toml``, profiles; default:
            ``KANTOKU_CONFIG``. Profiles are looked for in ``kantoku.toml`` otherwise.
        profile: which one; default: ``KANTOKU_PROFILE``, or else ``default``.
        environment: default: that of the process.

    Raises:
        UsageError: a file cannot be read, or says what cannot be.
    """
    variables = os.environ if environment is None else environment
    _warn_of_misspelt(variables)
    named = str(config_file or "") or variables.get("KANTOKU_CONFIG")
    namer = "--config" if config_file else "KANTOKU_CONFIG"
    file = Path(named) if named else None
    profiles = file if file is not None and is_toml(file) else find_profiles(variables)
    chosen = profile or variables.get("KANTOKU_PROFILE")
    files: list[tuple[bool, Configuration]] = []
    if profiles is not None:
        of_command = bool(profile) or (profiles == file and bool(config_file))
        files.append((of_command, _read(profiles, namer if profiles == file else "", chosen)))
    elif chosen:
        raise UsageError(f"There is no kantoku.toml for profile {chosen!r}: write one here, or name it by --config.")
    if file is not None and file != profiles:
        files.append((bool(config_file), _read(file, namer)))
    weakest_first = [
        *(one for of_command, one in files if not of_command),
        _of_environment(variables),
        *(one for of_command, one in files if of_command),
    ]
    found = given or Configuration()
    for weaker in reversed(weakest_first):
        found = found.over(weaker)
    for notice in found.notices:
        _log.info("%s", notice, extra={"action": "configuration"})
    return found


def _read(path: Path, namer: str, profile: str | None = None) -> Configuration:
    """As :func:`read_file`; an error says who named the file."""
    try:
        return read_file(path, profile)
    except UsageError as error:
        raise UsageError(f"{namer}: {error}" if namer else str(error)) from error


def read_file(path: Path, profile: str | None = None) -> Configuration:
    """The settings in a file of properties, or in a profile of a TOML file. Raises UsageError."""
    if is_toml(path):
        found = read_profile(path, profile)
        return replace(_of_kafka(found.kafka), namespace=found.namespace, topics=found.topics)
    text = text_of(path)
    java = is_java((key, value) for key, value, _ in raw_java_entries(text))
    try:
        entries = java_entries(text, path) if java else literal_entries(text, path)
    except UsageError:
        entries, java = java_entries(text, path), True
        if any(not key or (not value and key not in LIBRDKAFKA_KEYS) for key, value, _ in entries):
            raise  # it is not Java's either
    return _of_kafka({key: Setting(value, f"{path}:{line}") for key, value, line in entries}, java=java)


def command_line(pairs: Iterable[str], *, bootstrap_servers: str | None, namespace: str | None) -> Configuration:
    """``-X KEY=VALUE``, and over them ``-b`` and ``-n``. Raises UsageError."""
    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key.strip() and equals):
            raise UsageError("-X takes KEY=VALUE: there is one without a key, or without '='.")
        settings[key.strip()] = Setting(value, "-X")
    found = _of_kafka(settings)
    if bootstrap_servers is not None:
        found = _of_kafka({"bootstrap.servers": Setting(bootstrap_servers, "-b")}).over(found)
    return found if namespace is None else replace(found, namespace=Setting(namespace, "-n"))


def _of_environment(variables: Mapping[str, str]) -> Configuration:
    settings = {}
    for name, value in sorted(variables.items()):
        rest = name.removeprefix(_PREFIX)
        if rest != name and rest and not _SERVICE_LINK.fullmatch(rest):
            settings[_VARIABLES.get(rest, rest.lower().replace("_", "."))] = Setting(value, name)
    servers, namespace = "KANTOKU_BOOTSTRAP_SERVERS", "KANTOKU_NAMESPACE"
    if variables.get(servers):
        settings["bootstrap.servers"] = Setting(variables[servers], servers)
    found = _of_kafka(settings)
    if not variables.get(namespace):
        return found
    return replace(found, namespace=Setting(variables[namespace], namespace))


def _warn_of_misspelt(variables: Mapping[str, str]) -> None:
    """Of variables that nobody reads only those that are near to ours: others are a user's own."""
    known = [*(f"KANTOKU_{name}" for name in _NAMES), *(f"{_PREFIX}{name}" for name in _VARIABLES)]
    for name in variables:
        if name.startswith("KANTOKU_") and not name.startswith(_PREFIX) and name not in known:
            for meant in get_close_matches(name, known, 1, _NEAR):
                extra = {"action": "configuration"}
                _log.warning("the variable %s is read by nobody: did you mean %s?", name, meant, extra=extra)


def _of_kafka(settings: Mapping[str, Setting], *, java: bool = False) -> Configuration:
    """Settings of one place, as librdkafka takes them; ``java``: they are the Java client's, whatever their names."""
    found, registry = {}, {}
    for key, setting in settings.items():
        match = _REGISTRY.fullmatch(key)
        if match is None:
            found[key] = setting
        elif (name := match[1] or match[2]) != _CREDENTIALS_SOURCE or setting.value == _INHERITED:
            registry[name] = setting  # other sources follow from what there is
    check_mechanism(found)
    java = java or is_java((key, setting.value) for key, setting in found.items())
    found, notices = translated(found) if java else untranslated(found)
    identification = "ssl.endpoint.identification.algorithm"
    if identification in found and found[identification].value == "":
        found[identification] = found[identification]._replace(value="none")
    kafka = {canonical(key): setting for key, setting in found.items()}
    servers = kafka.get("bootstrap.servers")
    if servers is not None:  # with a comma behind the last one, too
        addresses = [address for address in str(servers.value).split(",") if address.strip()]
        kafka["bootstrap.servers"] = servers._replace(value=",".join(addresses))
    return Configuration(kafka=kafka, registry=registry, notices=tuple(notices))
