"""The names of librdkafka's settings, for hints and masks. What else is given is passed on all the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

__all__ = ["LIBRDKAFKA_KEYS", "canonical", "hints", "left_open"]

T = TypeVar("T")
# Of librdkafka 2.16, which a test compares with the one installed; without its callbacks. ``oauth_cb`` is ours.
# fmt: off
LIBRDKAFKA_KEYS = frozenset({
    "acks", "allow.auto.create.topics", "api.version.fallback.ms", "api.version.request",
    "api.version.request.timeout.ms", "auto.commit.enable", "auto.commit.interval.ms", "auto.offset.reset",
    "batch.num.messages", "batch.size", "bootstrap.servers", "broker.address.family", "broker.address.ttl",
    "broker.version.fallback", "check.crcs", "client.dns.lookup", "client.id", "client.rack", "compression.codec",
    "compression.level", "compression.type", "connections.max.idle.ms", "consume.callback.max.messages",
    "coordinator.query.interval.ms", "debug", "delivery.report.only.error", "delivery.timeout.ms",
    "enable.auto.commit", "enable.auto.offset.store", "enable.gapless.guarantee", "enable.idempotence",
    "enable.metrics.push", "enable.partition.eof", "enable.random.seed", "enable.sasl.oauthbearer.unsecure.jwt",
    "enable.ssl.certificate.verification", "fetch.error.backoff.ms", "fetch.max.bytes", "fetch.message.max.bytes",
    "fetch.min.bytes", "fetch.queue.backoff.ms", "fetch.wait.max.ms", "group.id", "group.instance.id",
    "group.protocol", "group.protocol.type", "group.remote.assignor", "heartbeat.interval.ms", "https.ca.location",
    "https.ca.pem", "internal.termination.signal", "isolation.level", "linger.ms", "log.connection.close",
    "log.queue", "log.thread.name", "log_level", "max.in.flight", "max.in.flight.requests.per.connection",
    "max.partition.fetch.bytes", "max.poll.interval.ms", "max.poll.records", "message.copy.max.bytes",
    "message.max.bytes", "message.send.max.retries", "message.timeout.ms", "metadata.broker.list",
    "metadata.max.age.ms", "metadata.recovery.rebootstrap.trigger.ms", "metadata.recovery.strategy", "oauth_cb",
    "offset.store.method", "offset.store.path", "offset.store.sync.interval.ms", "partition.assignment.strategy",
    "partitioner", "plugin.library.paths", "produce.offset.report", "queue.buffering.backpressure.threshold",
    "queue.buffering.max.kbytes", "queue.buffering.max.messages", "queue.buffering.max.ms",
    "queued.max.messages.kbytes", "queued.min.messages", "queuing.strategy", "receive.message.max.bytes",
    "reconnect.backoff.jitter.ms", "reconnect.backoff.max.ms", "reconnect.backoff.ms", "request.required.acks",
    "request.timeout.ms", "retries", "retry.backoff.max.ms", "retry.backoff.ms", "sasl.kerberos.keytab",
    "sasl.kerberos.kinit.cmd", "sasl.kerberos.min.time.before.relogin", "sasl.kerberos.principal",
    "sasl.kerberos.service.name", "sasl.mechanism", "sasl.mechanisms", "sasl.oauthbearer.assertion.algorithm",
    "sasl.oauthbearer.assertion.claim.aud", "sasl.oauthbearer.assertion.claim.exp.seconds",
    "sasl.oauthbearer.assertion.claim.iss", "sasl.oauthbearer.assertion.claim.jti.include",
    "sasl.oauthbearer.assertion.claim.nbf.seconds", "sasl.oauthbearer.assertion.claim.sub",
    "sasl.oauthbearer.assertion.file", "sasl.oauthbearer.assertion.jwt.template.file",
    "sasl.oauthbearer.assertion.private.key.file", "sasl.oauthbearer.assertion.private.key.passphrase",
    "sasl.oauthbearer.assertion.private.key.pem", "sasl.oauthbearer.client.credentials.client.id",
    "sasl.oauthbearer.client.credentials.client.secret", "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.secret", "sasl.oauthbearer.config", "sasl.oauthbearer.extensions",
    "sasl.oauthbearer.grant.type", "sasl.oauthbearer.metadata.authentication.type", "sasl.oauthbearer.method",
    "sasl.oauthbearer.scope", "sasl.oauthbearer.sub.claim.name", "sasl.oauthbearer.token.endpoint.url",
    "sasl.password", "sasl.username", "security.protocol", "session.timeout.ms", "share.acknowledgement.mode",
    "socket.blocking.max.ms", "socket.connection.setup.timeout.ms", "socket.keepalive.enable", "socket.max.fails",
    "socket.nagle.disable", "socket.receive.buffer.bytes", "socket.send.buffer.bytes", "socket.timeout.ms",
    "ssl.ca.certificate.stores", "ssl.ca.location", "ssl.ca.pem", "ssl.certificate.location", "ssl.certificate.pem",
    "ssl.cipher.suites", "ssl.crl.location", "ssl.curves.list", "ssl.endpoint.identification.algorithm",
    "ssl.engine.id", "ssl.engine.location", "ssl.key.location", "ssl.key.password", "ssl.key.pem",
    "ssl.keystore.location", "ssl.keystore.password", "ssl.providers", "ssl.sigalgs.list", "statistics.interval.ms",
    "sticky.partitioning.linger.ms", "topic.blacklist", "topic.metadata.propagation.max.ms",
    "topic.metadata.refresh.fast.cnt", "topic.metadata.refresh.fast.interval.ms",
    "topic.metadata.refresh.interval.ms", "topic.metadata.refresh.sparse", "transaction.timeout.ms",
    "transactional.id",
})
# fmt: on

_ALIASES = {
    "auto.commit.enable": "enable.auto.commit",
    "compression.codec": "compression.type",
    "fetch.message.max.bytes": "max.partition.fetch.bytes",
    "max.in.flight": "max.in.flight.requests.per.connection",
    "message.send.max.retries": "retries",
    "message.timeout.ms": "delivery.timeout.ms",
    "metadata.broker.list": "bootstrap.servers",
    "queue.buffering.max.ms": "linger.ms",
    "request.required.acks": "acks",
    "sasl.mechanisms": "sasl.mechanism",
    "sasl.oauthbearer.client.credentials.client.id": "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.credentials.client.secret": "sasl.oauthbearer.client.secret",
}


def canonical(key: str) -> str:
    """Of two names for one setting the one that Java has too: else both would count, in some order."""
    return _ALIASES.get(key, key)


# Of each, librdkafka would take all that are there: trust both authorities, refuse two keys, call the callback.
_ALTERNATIVES = (
    {"ssl.ca.location", "ssl.ca.pem"},
    {"ssl.certificate.location", "ssl.certificate.pem", "ssl.keystore.location"},
    {"ssl.key.location", "ssl.key.pem", "ssl.keystore.location"},
    {"https.ca.location", "https.ca.pem"},
    {"oauth_cb", "sasl.oauthbearer.method", "enable.sasl.oauthbearer.unsecure.jwt"},
    {
        "sasl.oauthbearer.assertion.file",
        "sasl.oauthbearer.assertion.private.key.file",
        "sasl.oauthbearer.assertion.private.key.pem",
    },
)


def left_open(weaker: Mapping[str, T], stronger: Iterable[str]) -> dict[str, T]:
    """Of weaker settings those that count beside stronger ones: under no name of theirs, and in no other form."""
    said = {canonical(key) for key in stronger}
    said = said.union(*(alternatives for alternatives in _ALTERNATIVES if said & alternatives))
    return {key: value for key, value in weaker.items() if canonical(key) not in said}


def hints(keys: Iterable[str]) -> list[tuple[str, str]]:
    """Of the keys those that librdkafka does not know, each with a sentence on what may have been meant."""
    found = []
    for key in keys:
        if key not in LIBRDKAFKA_KEYS:
            near = get_close_matches(key, LIBRDKAFKA_KEYS, 1, 0.75)
            found.append((key, f"{key!r} is no setting{f', did you mean {near[0]!r}?' if near else ''}"))
    return found
