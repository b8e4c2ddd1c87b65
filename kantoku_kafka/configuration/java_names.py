"""The Java client's names, and values that librdkafka does not take."""

from __future__ import annotations

import re

__all__ = ["BOUNDS", "DROPPED", "JAVA_KEYS", "RENAMED", "is_of_serializers"]

# The Java client's own names, as of Kafka 4.3, and what librdkafka has for them, if anything.
RENAMED = {
    "buffer.memory": "queue.buffering.max.kbytes",
    "fetch.max.wait.ms": "fetch.wait.max.ms",
    "max.request.size": "message.max.bytes",
    "receive.buffer.bytes": "socket.receive.buffer.bytes",
    "sasl.oauthbearer.assertion.template.file": "sasl.oauthbearer.assertion.jwt.template.file",
    "send.buffer.bytes": "socket.send.buffer.bytes",
}
TRANSLATED = {
    "sasl.client.callback.handler.class",
    "sasl.jaas.config",
    "sasl.login.callback.handler.class",
    "sasl.oauthbearer.jwt.retriever.class",
    "ssl.keystore.certificate.chain",
    "ssl.keystore.key",
    "ssl.keystore.type",
    "ssl.truststore.certificates",
    "ssl.truststore.location",
    "ssl.truststore.password",
    "ssl.truststore.type",
}
# fmt: off
DROPPED = {
    "auto.include.jmx.reporter", "bootstrap.controllers", "compression.gzip.level", "compression.lz4.level",
    "compression.zstd.level", "config.providers", "default.api.timeout.ms", "exclude.internal.topics",
    "interceptor.classes", "key.deserializer", "key.serializer", "max.block.ms", "metadata.max.idle.ms",
    "metric.reporters", "metrics.num.samples", "metrics.recording.level", "metrics.sample.window.ms",
    "partitioner.adaptive.partitioning.enable", "partitioner.availability.timeout.ms", "partitioner.class",
    "partitioner.ignore.keys", "sasl.kerberos.ticket.renew.jitter", "sasl.kerberos.ticket.renew.window.factor",
    "sasl.login.class", "sasl.login.connect.timeout.ms", "sasl.login.read.timeout.ms",
    "sasl.login.refresh.buffer.seconds", "sasl.login.refresh.min.period.seconds", "sasl.login.refresh.window.factor",
    "sasl.login.refresh.window.jitter", "sasl.login.retry.backoff.max.ms", "sasl.login.retry.backoff.ms",
    "sasl.oauthbearer.clock.skew.seconds", "sasl.oauthbearer.expected.audience", "sasl.oauthbearer.expected.issuer",
    "sasl.oauthbearer.header.urlencode", "sasl.oauthbearer.jwks.endpoint.refresh.ms",
    "sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms", "sasl.oauthbearer.jwks.endpoint.retry.backoff.ms",
    "sasl.oauthbearer.jwks.endpoint.url", "sasl.oauthbearer.jwt.validator.class", "sasl.oauthbearer.scope.claim.name",
    "security.providers", "share.acquire.mode", "socket.connection.setup.timeout.max.ms", "ssl.enabled.protocols",
    "ssl.engine.factory.class", "ssl.keymanager.algorithm", "ssl.protocol", "ssl.provider",
    "ssl.secure.random.implementation", "ssl.trustmanager.algorithm", "transaction.two.phase.commit.enable",
    "value.deserializer", "value.serializer",
}
# fmt: on
JAVA_KEYS = frozenset(DROPPED | TRANSLATED | set(RENAMED))

# librdkafka's least and most where Java takes more, by librdkafka's names.
BOUNDS = {
    "batch.size": (1, 2_147_483_647),
    "connections.max.idle.ms": (0, 2_147_483_647),  # 0: never, as Java's -1
    "fetch.max.bytes": (0, 2_147_483_135),
    "fetch.min.bytes": (1, 100_000_000),
    "fetch.wait.max.ms": (0, 300_000),
    "linger.ms": (0, 900_000),
    "max.partition.fetch.bytes": (1, 1_000_000_000),
    "max.poll.interval.ms": (1, 86_400_000),
    "message.max.bytes": (1_000, 1_000_000_000),
    "metadata.max.age.ms": (1, 86_400_000),
    "reconnect.backoff.max.ms": (0, 3_600_000),
    "reconnect.backoff.ms": (0, 3_600_000),
    "request.timeout.ms": (1, 900_000),
    "retry.backoff.max.ms": (1, 300_000),
    "retry.backoff.ms": (1, 300_000),
    "sasl.kerberos.min.time.before.relogin": (0, 86_400_000),
    "socket.connection.setup.timeout.ms": (1_000, 2_147_483_647),
    "socket.receive.buffer.bytes": (0, 100_000_000),
    "socket.send.buffer.bytes": (0, 100_000_000),
}

# Of Confluent's serializers; those of other languages have some of them, so that they do not tell Java's files.
_OF_SERIALIZERS = re.compile(
    r"(avro|json|protobuf|specific\.avro|specific\.protobuf)\..+"
    r"|((key|value|reference)\.)?subject\.name\.strategy(\.type)?|(key|value)\.schema\.id\.(de)?serializer"
    r"|auto\.register\.schemas|context\.name\.strategy|derive\.type|id\.compatibility\.strict"
    r"|latest\.(cache\.size|cache\.ttl\.sec|compatibility\.strict)|max\.schemas\.per\.subject|normalize\.schemas"
    r"|propagate\.schema\.tags|reference\.lookup\.only|rule\.(actions|executors|service\.loader\.enable)"
    r"|schema\.format|schema\.reflection|skip\.known\.types|type\.property"
    r"|use\.(latest\.version|latest\.with\.metadata|schema\.id)"
)


def is_of_serializers(key: str) -> bool:
    """Whether it is a setting of Confluent's serializers, which are not at work here."""
    return _OF_SERIALIZERS.fullmatch(key) is not None
