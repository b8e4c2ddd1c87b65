"""From the Java client's settings to librdkafka's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from kantoku_kafka.configuration.jaas import parse_jaas
from kantoku_kafka.configuration.java_names import BOUNDS, DROPPED, JAVA_KEYS, RENAMED, is_of_serializers
from kantoku_kafka.configuration.references import has_reference, resolved
from kantoku_kafka.errors import UsageError

__all__ = [
    "ASSIGNORS",
    "CLASS",
    "JAVA_KEYS",
    "JWT_BEARER",
    "RENAMED",
    "Setting",
    "Translation",
    "check_mechanism",
    "is_java",
    "translated",
    "untranslated",
]


class Setting(NamedTuple):
    """A value, and where it comes from: ``file:line``, a variable, an option."""

    value: str | int | float | bool
    origin: str

    def __repr__(self) -> str:
        return f"Setting(origin={self.origin!r})"


class Translation(NamedTuple):
    """librdkafka's settings, and what people are told of it."""

    settings: dict[str, Setting]
    notices: list[str]


CLASS = "org.apache.kafka."
# librdkafka has this name too, for OpenSSL's names of the suites.
_DROPPED_WITH_JAVA = {"ssl.cipher.suites"}
_CONFIG_PROVIDER = re.compile(r"config\.providers\..+")
ASSIGNORS = {
    "RangeAssignor": "range",
    "RoundRobinAssignor": "roundrobin",
    "CooperativeStickyAssignor": "cooperative-sticky",
}
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_NUMBER = re.compile(r"-?[0-9]{1,19}")
_RETRIEVERS = {
    "ClientCredentialsJwtRetriever": "client_credentials",
    "DefaultJwtRetriever": "client_credentials",
    "JwtBearerJwtRetriever": JWT_BEARER,
}
_STORE_RECIPE = (
    "librdkafka reads PEM. Make it by: keytool -importkeystore -srckeystore STORE -destkeystore store.p12 "
    "-deststoretype PKCS12, then: openssl pkcs12 -in store.p12 {options} -out {out}, and give {keys}"
)
_MSK = (
    "{origin}: AWS_MSK_IAM is a mechanism of Amazon's Java classes. Use sasl.mechanism=OAUTHBEARER and "
    "oauth_cb=MODULE:FUNCTION, a function that asks aws-msk-iam-sasl-signer-python for a token."
)


def is_java(pairs: Iterable[tuple[str, object]]) -> bool:
    """Whether settings are the Java client's: one has a name that only it knows, or a class of it for a value."""
    return any(key in JAVA_KEYS or str(value).strip().startswith(CLASS) for key, value in pairs)


def translated(settings: Mapping[str, Setting]) -> Translation:
    """The Java client's settings for librdkafka. What changes nothing here is left out with a notice.

    A JAAS text that stands elsewhere is looked up, for it falls into parts; other references stay as they are.

    Raises:
        UsageError: for what has no counterpart; it names the way out.
    """
    return _Translator(settings).translation()


def untranslated(settings: Mapping[str, Setting]) -> Translation:
    """librdkafka's own settings, without those of serializers."""
    dropped = [key for key in settings if is_of_serializers(key)]
    kept = {key: setting for key, setting in settings.items() if key not in dropped}
    return Translation(kept, _left_out(f"{key} ({settings[key].origin})" for key in dropped))


def check_mechanism(settings: Mapping[str, Setting]) -> None:
    """Raise UsageError for Amazon's own mechanism, which librdkafka does not have."""
    for key in ("sasl.mechanism", "sasl.mechanisms"):
        if key in settings and settings[key].value == "AWS_MSK_IAM":
            raise UsageError(_MSK.format(origin=settings[key].origin))


class _Translator:
    def __init__(self, settings: Mapping[str, Setting]) -> None:
        self._left = {key: Setting(str(value).strip(), origin) for key, (value, origin) in settings.items()}
        for key in self._left.keys() & {"ssl.key.password", "ssl.keystore.password"}:
            self._left[key] = settings[key]
        self._made: dict[str, Setting] = {}
        self._dropped: list[str] = []

    def translation(self) -> Translation:
        self._handlers()
        self._jaas()
        self._oauth()
        self._truststore()
        self._keystore()
        self._small_things()
        for key in list(self._left):
            if key in DROPPED or _CONFIG_PROVIDER.fullmatch(key) or is_of_serializers(key):
                self._drop(key)
        found = {**self._left, **self._made}
        bounded = {key: _bounded(key, setting) for key, setting in found.items()}
        changed = [
            f"{key}={bounded[key].value}, not {value} ({origin})"
            for key, (value, origin) in found.items()
            if bounded[key].value != value
        ]
        notices = [f"the nearest that librdkafka takes: {', '.join(changed)}"] if changed else []
        return Translation(bounded, [*_left_out(self._dropped), *notices])

    def _take(self, key: str) -> Setting | None:
        return self._left.pop(key, None)

    def _drop(self, key: str) -> None:
        setting = self._take(key)
        if setting is not None:
            self._dropped.append(f"{key} ({setting.origin})")

    def _jaas(self) -> None:
        found = self._take("sasl.jaas.config")
        if found is None:
            return
        text, origin = str(found.value), found.origin
        jaas = parse_jaas(resolved("sasl.jaas.config", text) if text.startswith("${") else text, origin)
        if jaas.module in ("PlainLoginModule", "ScramLoginModule"):
            if jaas.options.get("tokenauth", "").lower() == "true":
                raise UsageError(f"{origin}: librdkafka knows no delegation tokens (tokenauth). Use a SCRAM user.")
            self._from_options(jaas.options, origin, {"username": "sasl.username", "password": "sasl.password"})
        elif jaas.module == "OAuthBearerLoginModule":
            self._oauth_options(jaas.options, origin)
        elif jaas.module == "Krb5LoginModule":
            names = {"principal": "sasl.kerberos.principal", "keyTab": "sasl.kerberos.keytab"}
            self._from_options(jaas.options, origin, names)
        elif jaas.module == "IAMLoginModule":
            raise UsageError(_MSK.format(origin=origin))
        else:
            raise UsageError(
                f"{origin}: the login module {jaas.module} is none of Kafka's own (Plain, Scram, OAuthBearer, Krb5). "
                "For OAUTHBEARER give oauth_cb=MODULE:FUNCTION, which gets the token."
            )

    def _from_options(self, options: Mapping[str, str], origin: str, names: Mapping[str, str]) -> None:
        for option, value in options.items():
            if option in names:
                self._made[names[option]] = Setting(value, origin)

    def _oauth_options(self, options: Mapping[str, str], origin: str) -> None:
        names = {
            "clientId": "sasl.oauthbearer.client.id",
            "clientSecret": "sasl.oauthbearer.client.secret",
            "scope": "sasl.oauthbearer.scope",
        }
        self._from_options(options, origin, names)
        prefix = "extension_"
        extensions = [f"{name.removeprefix(prefix)}={v}" for name, v in options.items() if name.startswith(prefix)]
        if extensions:
            self._made["sasl.oauthbearer.extensions"] = Setting(",".join(extensions), origin)
        subject = options.get("unsecuredLoginStringClaim_sub")
        if subject is not None:
            self._made["enable.sasl.oauthbearer.unsecure.jwt"] = Setting("true", origin)
            self._made["sasl.oauthbearer.config"] = Setting(f"principal={subject}", origin)

    def _handlers(self) -> None:
        for key in ("sasl.client.callback.handler.class", "sasl.login.callback.handler.class"):
            handler = self._take(key)
            if handler is not None and str(handler.value).rpartition(".")[2] != "OAuthBearerLoginCallbackHandler":
                raise UsageError(
                    f"{handler.origin}: {key} runs Java code. Give user and password, or for OAUTHBEARER "
                    "oauth_cb=MODULE:FUNCTION, a Python function that gets the token."
                )

    def _oauth(self) -> None:
        retriever = self._take("sasl.oauthbearer.jwt.retriever.class")
        if retriever is not None:
            name = str(retriever.value).rpartition(".")[2]
            if name not in _RETRIEVERS:
                raise UsageError(
                    f"{retriever.origin}: librdkafka has nothing like {name}. Give oauth_cb=MODULE:FUNCTION, a Python "
                    "function that gets the token."
                )
            self._made["sasl.oauthbearer.grant.type"] = Setting(_RETRIEVERS[name], retriever.origin)
        endpoint = self._left.get("sasl.oauthbearer.token.endpoint.url")
        if endpoint is not None:
            self._made["sasl.oauthbearer.method"] = Setting("oidc", endpoint.origin)

    def _truststore(self) -> None:
        kind, location = self._take("ssl.truststore.type"), self._take("ssl.truststore.location")
        certificates = self._take("ssl.truststore.certificates")
        if certificates is not None:
            self._made["ssl.ca.pem"] = _pem(certificates)
        elif location is not None:
            if kind is None or str(kind.value).upper() != "PEM":
                recipe = _STORE_RECIPE.format(
                    options="-nokeys", out="ca.pem", keys="ssl.ca.location=ca.pem (in Java: ssl.truststore.type=PEM)"
                )
                raise UsageError(f"{location.origin}: the truststore is {_kind(kind)}. {recipe}.")
            self._made["ssl.ca.location"] = location
        self._drop("ssl.truststore.password")

    def _keystore(self) -> None:
        kind, location = self._take("ssl.keystore.type"), self._left.get("ssl.keystore.location")
        chain, key = self._take("ssl.keystore.certificate.chain"), self._take("ssl.keystore.key")
        if chain is not None:
            self._made["ssl.certificate.pem"] = _pem(chain)
        if key is not None:
            self._made["ssl.key.pem"] = _pem(key)
        if location is None or _kind(kind) == "PKCS12":  # which librdkafka reads, under the same names
            return
        if _kind(kind) != "PEM":
            recipe = _STORE_RECIPE.format(
                options="-nodes", out="client.pem", keys="ssl.certificate.location and ssl.key.location=client.pem"
            )
            raise UsageError(f"{location.origin}: the keystore is {_kind(kind)}. {recipe}, or the .p12 as type PKCS12.")
        for name in ("ssl.certificate.location", "ssl.key.location"):
            self._made[name] = location
        del self._left["ssl.keystore.location"]
        self._drop("ssl.keystore.password")

    def _small_things(self) -> None:
        for key in _DROPPED_WITH_JAVA:
            self._drop(key)
        for java, name in RENAMED.items():
            setting = self._take(java)
            if setting is not None:
                self._made[name] = _scaled(java, setting)
        assignors = self._left.get("partition.assignment.strategy")
        if assignors is not None and CLASS in str(assignors.value):
            classes = [name.strip().rpartition(".")[2] for name in str(assignors.value).split(",")]
            known = [ASSIGNORS[name] for name in classes if name in ASSIGNORS]
            if known:
                self._left["partition.assignment.strategy"] = assignors._replace(value=",".join(known))
            else:
                self._drop("partition.assignment.strategy")
        lookup = self._left.get("client.dns.lookup")
        if lookup is not None and lookup.value == "default":  # of clients before 3.0
            self._drop("client.dns.lookup")


def _kind(kind: Setting | None) -> str:
    return "JKS" if kind is None else str(kind.value).upper()


def _scaled(java: str, setting: Setting) -> Setting:
    """Bytes of memory are kilobytes in librdkafka, and the system's own size of a socket's buffer is 0, not -1."""
    value = str(setting.value)
    if java == "buffer.memory" and _NUMBER.fullmatch(value):
        return setting._replace(value=str(max(1, int(value) // 1024)))
    return setting._replace(value="0" if value == "-1" else value)


def _bounded(key: str, setting: Setting) -> Setting:
    value = str(setting.value)
    if key not in BOUNDS or not _NUMBER.fullmatch(value):
        return setting
    least, most = BOUNDS[key]
    nearest = min(max(int(value), least), most)
    return setting if nearest == int(value) else setting._replace(value=str(nearest))


def _left_out(dropped: Iterable[str]) -> list[str]:
    told = ", ".join(dropped)
    return [f"left out, for it changes nothing here: {told}"] if told else []


def _pem(setting: Setting) -> Setting:
    """PEM as OpenSSL wants it: Java takes it with blanks where lines end, too."""
    value = str(setting.value)
    if has_reference(value):
        return setting
    blocks = re.findall(r"(-----BEGIN [^-]+-----)(.*?)(-----END [^-]+-----)", value, re.DOTALL)
    if not blocks:
        raise UsageError(f"{setting.origin}: there is no PEM text, which begins with -----BEGIN.")
    if any(":" in body for _, body, _ in blocks):  # it has headers, and then its lines are as they must be
        return setting
    lines = "".join("\n".join([begin, *body.split(), end, ""]) for begin, body, end in blocks)
    return setting._replace(value=lines)
