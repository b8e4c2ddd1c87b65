"""From librdkafka's settings to the Java client's: the way back of :mod:`kantoku_kafka.configuration.java`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from kantoku_kafka.configuration.jaas import jaas_text
from kantoku_kafka.configuration.java import ASSIGNORS, CLASS, JWT_BEARER, RENAMED, is_java
from kantoku_kafka.configuration.masks import REGISTRY_PREFIX
from kantoku_kafka.errors import UsageError

__all__ = ["java_settings"]

# fmt: off
# librdkafka and Kafka 4.3 have these in common, with one meaning.
_BOTH = frozenset({
    "acks", "allow.auto.create.topics", "auto.commit.interval.ms", "auto.offset.reset", "batch.size",
    "bootstrap.servers", "check.crcs", "client.dns.lookup", "client.id", "client.rack", "compression.type",
    "connections.max.idle.ms", "delivery.timeout.ms", "enable.auto.commit", "enable.idempotence",
    "enable.metrics.push", "fetch.max.bytes", "fetch.min.bytes", "group.id", "group.instance.id", "group.protocol",
    "group.remote.assignor", "heartbeat.interval.ms", "isolation.level", "linger.ms",
    "max.in.flight.requests.per.connection", "max.partition.fetch.bytes", "max.poll.interval.ms", "max.poll.records",
    "metadata.max.age.ms", "metadata.recovery.rebootstrap.trigger.ms", "metadata.recovery.strategy",
    "reconnect.backoff.max.ms", "reconnect.backoff.ms", "request.timeout.ms", "retries", "retry.backoff.max.ms",
    "retry.backoff.ms", "sasl.kerberos.kinit.cmd", "sasl.kerberos.min.time.before.relogin",
    "sasl.kerberos.service.name", "sasl.mechanism", "sasl.oauthbearer.assertion.algorithm",
    "sasl.oauthbearer.assertion.claim.aud", "sasl.oauthbearer.assertion.claim.exp.seconds",
    "sasl.oauthbearer.assertion.claim.iss", "sasl.oauthbearer.assertion.claim.jti.include",
    "sasl.oauthbearer.assertion.claim.nbf.seconds", "sasl.oauthbearer.assertion.claim.sub",
    "sasl.oauthbearer.assertion.file", "sasl.oauthbearer.assertion.private.key.file",
    "sasl.oauthbearer.assertion.private.key.passphrase", "sasl.oauthbearer.sub.claim.name",
    "sasl.oauthbearer.token.endpoint.url", "security.protocol", "session.timeout.ms", "share.acknowledgement.mode",
    "socket.connection.setup.timeout.ms", "ssl.key.password", "ssl.keystore.password", "transaction.timeout.ms",
    "transactional.id",
})
# fmt: on
_SECURITY = f"{CLASS}common.security"
_OAUTH = f"{_SECURITY}.oauthbearer.OAuthBearer"
_PROVIDERS = {"env": "EnvVarConfigProvider", "file": "FileConfigProvider"}
_SAME_FILE = (
    "ssl.certificate.location and ssl.key.location are two files, and Java reads one: join them by "
    "'cat CERTIFICATE KEY > client.pem', and give client.pem for both."
)


def java_settings(settings: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The same for the Java client, and notices of what it does not have.

    Raises:
        UsageError: for a form that Java does not take; it names the one that it does.
    """
    left = dict(settings)
    made = {**_sasl(left), **_oauth(left), **_tls(left)}
    for java, name in RENAMED.items():
        if name in left:
            value = left.pop(name)
            is_memory = java == "buffer.memory" and value.isdecimal()
            made[java] = str(int(value) * 1024) if is_memory else value
    assignors = left.pop("partition.assignment.strategy", None)
    if assignors is not None:
        classes = {name: f"{CLASS}clients.consumer.{java}" for java, name in ASSIGNORS.items()}
        made["partition.assignment.strategy"] = ",".join(classes.get(name, name) for name in assignors.split(","))
    made = {key: left.pop(key) for key in list(left) if key in _BOTH or key.startswith(REGISTRY_PREFIX)} | made
    notices = [f"left out, for Java has no such setting: {', '.join(sorted(left))}"] if left else []
    made |= _providers(made, notices)
    if not is_java(made.items()):  # then nothing tells that the file's escapes are Java's; this is Java's default
        made["default.api.timeout.ms"] = "60000"
    return made, notices


def _sasl(left: dict[str, str]) -> dict[str, str]:
    """User and password, or a keytab, as JAAS."""
    names = {"sasl.username": "username", "sasl.password": "password"}
    options = {names[key]: left.pop(key) for key in names if key in left}
    if options:
        mechanism = left.get("sasl.mechanism", "").upper()
        module = "scram.ScramLoginModule" if mechanism.startswith("SCRAM") else "plain.PlainLoginModule"
        return {"sasl.jaas.config": jaas_text(f"{_SECURITY}.{module}", options)}
    names = {"sasl.kerberos.keytab": "keyTab", "sasl.kerberos.principal": "principal"}
    options = {names[key]: left.pop(key) for key in names if key in left}
    if options:
        module = "com.sun.security.auth.module.Krb5LoginModule"
        return {"sasl.jaas.config": jaas_text(module, {"useKeyTab": "true", "storeKey": "true", **options})}
    return {}


def _oauth(left: dict[str, str]) -> dict[str, str]:
    if left.pop("enable.sasl.oauthbearer.unsecure.jwt", "false") == "true":
        subject = re.search(r"principal=(\S+)", left.pop("sasl.oauthbearer.config", ""))
        options = {"unsecuredLoginStringClaim_sub": subject[1] if subject else "admin"}
        return {"sasl.jaas.config": jaas_text(f"{_OAUTH}LoginModule", options)}
    if left.pop("sasl.oauthbearer.method", None) != "oidc":
        return {}
    names = {
        "sasl.oauthbearer.client.id": "clientId",
        "sasl.oauthbearer.client.secret": "clientSecret",
        "sasl.oauthbearer.scope": "scope",
    }
    options = {names[key]: left.pop(key) for key in names if key in left}
    for extension in filter(None, left.pop("sasl.oauthbearer.extensions", "").split(",")):
        name, _, value = extension.partition("=")
        options[f"extension_{name}"] = value
    made = {
        "sasl.login.callback.handler.class": f"{_OAUTH}LoginCallbackHandler",
        "sasl.jaas.config": jaas_text(f"{_OAUTH}LoginModule", options),
    }
    if left.pop("sasl.oauthbearer.grant.type", None) == JWT_BEARER:
        made["sasl.oauthbearer.jwt.retriever.class"] = f"{_SECURITY}.oauthbearer.JwtBearerJwtRetriever"
    return made


def _tls(left: dict[str, str]) -> dict[str, str]:
    made: dict[str, str] = {}
    if "ssl.ca.location" in left:
        made |= {"ssl.truststore.type": "PEM", "ssl.truststore.location": left.pop("ssl.ca.location")}
    if "ssl.ca.pem" in left:
        made |= {"ssl.truststore.type": "PEM", "ssl.truststore.certificates": left.pop("ssl.ca.pem")}
    certificate, key = left.pop("ssl.certificate.location", None), left.pop("ssl.key.location", None)
    if certificate != key:
        raise UsageError(_SAME_FILE)
    if certificate is not None:
        made |= {"ssl.keystore.type": "PEM", "ssl.keystore.location": certificate}
    names = {"ssl.certificate.pem": "ssl.keystore.certificate.chain", "ssl.key.pem": "ssl.keystore.key"}
    inline = {names[key]: left.pop(key) for key in names if key in left}
    if inline:
        made |= {"ssl.keystore.type": "PEM", **inline}
    if "ssl.keystore.location" in left:
        made |= {"ssl.keystore.type": "PKCS12", "ssl.keystore.location": left.pop("ssl.keystore.location")}
    if "ssl.endpoint.identification.algorithm" in left:
        checked = left.pop("ssl.endpoint.identification.algorithm") != "none"
        made["ssl.endpoint.identification.algorithm"] = "https" if checked else ""
    return made


def _providers(made: Mapping[str, str], notices: list[str]) -> dict[str, str]:
    """What Java needs for references: it looks none up unless it is told by what."""
    text = "\n".join(made.values())
    used = [name for name in _PROVIDERS if f"${{{name}:" in text]
    if re.search(r"\$\{file:[^:}]*\}", text):
        notices.append("${file:/path} without a key is none of Java's references: use ${file:/path:key}, or --resolve")
    if not used:
        return {}
    classes = {f"config.providers.{name}.class": f"{CLASS}common.config.provider.{_PROVIDERS[name]}" for name in used}
    return {"config.providers": ",".join(used), **classes}
