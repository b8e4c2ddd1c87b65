"""What a Java client's properties become for librdkafka."""

from __future__ import annotations

from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from hypothesis import given
from hypothesis import strategies as st

from kantoku_kafka.configuration.java import JAVA_KEYS, Setting, translated
from kantoku_kafka.configuration.known import LIBRDKAFKA_KEYS
from kantoku_kafka.configuration.sources import read_file
from kantoku_kafka.errors import UsageError

KAFKA = "org.apache.kafka.common.security"
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\nAAAA\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n"
LOCKED_KEY = KEY.replace("MIIE", "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0A\n\nMIIE")


def read(tmp_path: Path, *lines: str) -> dict[str, object]:
    path = tmp_path / "client.properties"
    path.write_text("\n".join(lines), "utf-8")
    return {key: setting.value for key, setting in read_file(path).kafka.items()}


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            [f'sasl.jaas.config={KAFKA}.plain.PlainLoginModule required username="u" password="p";'],
            {"sasl.username": "u", "sasl.password": "p"},
        ),
        (
            [
                f"sasl.jaas.config={KAFKA}.scram.ScramLoginModule required \\",
                '  username="u" \\',
                '  password="a\\\\"b\\\\\\\\c";',
                "security.protocol=SASL_SSL",
                "sasl.mechanism=SCRAM-SHA-512",
            ],
            {
                "sasl.username": "u",
                "sasl.password": 'a"b\\c',
                "security.protocol": "SASL_SSL",
                "sasl.mechanism": "SCRAM-SHA-512",
            },
        ),
        (
            ["sasl.jaas.config=shaded.org.apache.kafka.PlainLoginModule required username='${env:U}' password='p';"],
            {"sasl.username": "${env:U}", "sasl.password": "p"},
        ),
        (
            [
                f"sasl.jaas.config={KAFKA}.oauthbearer.OAuthBearerLoginModule required clientId='i' clientSecret='s' "
                "scope='a b' extension_logicalCluster='lkc-1' extension_pool='p';",
                f"sasl.login.callback.handler.class={KAFKA}.oauthbearer.secured.OAuthBearerLoginCallbackHandler",
                "sasl.oauthbearer.token.endpoint.url=https://idp/token",
                "sasl.login.refresh.window.factor=0.8",
                "sasl.oauthbearer.sub.claim.name=azp",
            ],
            {
                "sasl.oauthbearer.client.id": "i",
                "sasl.oauthbearer.client.secret": "s",
                "sasl.oauthbearer.scope": "a b",
                "sasl.oauthbearer.extensions": "logicalCluster=lkc-1,pool=p",
                "sasl.oauthbearer.method": "oidc",
                "sasl.oauthbearer.token.endpoint.url": "https://idp/token",
                "sasl.oauthbearer.sub.claim.name": "azp",
            },
        ),
        (
            [
                f"sasl.jaas.config={KAFKA}.oauthbearer.OAuthBearerLoginModule required;",
                f"sasl.oauthbearer.jwt.retriever.class={KAFKA}.oauthbearer.JwtBearerJwtRetriever",
                "sasl.oauthbearer.token.endpoint.url=https://idp/token",
                "sasl.oauthbearer.client.credentials.client.id=i",
                "sasl.oauthbearer.assertion.private.key.file=/k.pem",
                "sasl.oauthbearer.assertion.template.file=/t.json",
            ],
            {
                "sasl.oauthbearer.grant.type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
                "sasl.oauthbearer.method": "oidc",
                "sasl.oauthbearer.token.endpoint.url": "https://idp/token",
                "sasl.oauthbearer.client.id": "i",
                "sasl.oauthbearer.assertion.private.key.file": "/k.pem",
                "sasl.oauthbearer.assertion.jwt.template.file": "/t.json",
            },
        ),
        (
            [f"sasl.jaas.config={KAFKA}.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub='a';"],
            {"enable.sasl.oauthbearer.unsecure.jwt": "true", "sasl.oauthbearer.config": "principal=a"},
        ),
        (
            ["sasl.jaas.config=com.sun.Krb5LoginModule required useKeyTab=true keyTab='/k' principal='a@B';"],
            {"sasl.kerberos.keytab": "/k", "sasl.kerberos.principal": "a@B"},
        ),
        (
            ["ssl.truststore.type=PEM", "ssl.truststore.location=/ca.pem", "ssl.endpoint.identification.algorithm="],
            {"ssl.ca.location": "/ca.pem", "ssl.endpoint.identification.algorithm": "none"},
        ),
        (
            ["ssl.endpoint.identification.algorithm="],
            {"ssl.endpoint.identification.algorithm": "none"},
        ),
        (
            ["ssl.truststore.type=PEM", "ssl.truststore.certificates=" + PEM.replace("\n", " \\\n ")],
            {"ssl.ca.pem": PEM},
        ),
        (
            [
                "ssl.keystore.type=PEM",
                "ssl.keystore.certificate.chain=" + 2 * PEM.replace("\n", "\\n"),
                "ssl.keystore.key=" + KEY.replace("\n", "\\n"),
                "ssl.key.password= a b ",
            ],
            {"ssl.certificate.pem": 2 * PEM, "ssl.key.pem": KEY, "ssl.key.password": "a b "},
        ),
        (
            ["ssl.keystore.key=" + LOCKED_KEY.replace("\n", "\\n")],
            {"ssl.key.pem": LOCKED_KEY.strip()},
        ),
        (
            ["ssl.keystore.type=PEM", "ssl.keystore.location=/c.pem", "ssl.key.password=p"],
            {"ssl.certificate.location": "/c.pem", "ssl.key.location": "/c.pem", "ssl.key.password": "p"},
        ),
        (
            ["ssl.keystore.type=PKCS12", "ssl.keystore.location=/c.p12", "ssl.keystore.password=p"],
            {"ssl.keystore.location": "/c.p12", "ssl.keystore.password": "p"},
        ),
        (
            ["key.serializer=a.B", "value.deserializer=a.B", "default.api.timeout.ms=1", "ssl.cipher.suites=TLS_X"],
            {},
        ),
        (
            ["buffer.memory=33554432", "send.buffer.bytes=-1", "fetch.max.wait.ms=500 ", "max.request.size=1048576"],
            {
                "queue.buffering.max.kbytes": "32768",
                "socket.send.buffer.bytes": "0",
                "fetch.wait.max.ms": "500",
                "message.max.bytes": "1048576",
            },
        ),
        (
            [
                "partition.assignment.strategy=org.apache.kafka.clients.consumer.CooperativeStickyAssignor, "
                "org.apache.kafka.clients.consumer.RangeAssignor"
            ],
            {"partition.assignment.strategy": "cooperative-sticky,range"},
        ),
        (["partition.assignment.strategy=org.apache.kafka.clients.consumer.StickyAssignor"], {}),
        (
            ["config.providers=env", "config.providers.env.class=org.apache.kafka.X", "sasl.username=${env:U}"],
            {"sasl.username": "${env:U}"},
        ),
        (
            ["bootstrap.servers=h:1", "schema.registry.url=http://r", "basic.auth.user.info=u:p"],
            {"bootstrap.servers": "h:1"},
        ),
        (
            ["sasl.mechanisms=PLAIN", r"sasl.password=a\tb\u12\ "],
            {"sasl.mechanism": "PLAIN", "sasl.password": r"a\tb\u12" + "\\"},
        ),
    ],
)
def test_translation(tmp_path: Path, lines: list[str], expected: dict[str, object]) -> None:
    assert read(tmp_path, *lines) == expected
    assert expected.keys() <= LIBRDKAFKA_KEYS


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["ssl.truststore.location=/ca.jks"], ["f:1", "JKS", "keytool", "ssl.ca.location"]),
        (["ssl.truststore.type=PKCS12", "ssl.truststore.location=/ca.p12"], ["PKCS12", "openssl"]),
        (["ssl.keystore.type=JKS", "ssl.keystore.location=/c.jks"], ["JKS", "keytool", "ssl.key.location"]),
        (["key.serializer=x", "ssl.keystore.location=/c.jks"], ["JKS", "keytool"]),
        (["ssl.truststore.type=PEM", "ssl.truststore.certificates=nonsense"], ["-----BEGIN"]),
        (["sasl.mechanisms=AWS_MSK_IAM"], ["f:1", "oauth_cb"]),
        (["key.serializer=x", "sasl.mechanism=AWS_MSK_IAM"], ["f:2", "oauth_cb", "aws-msk-iam-sasl-signer-python"]),
        (["sasl.jaas.config=software.amazon.msk.auth.iam.IAMLoginModule required;"], ["oauth_cb"]),
        (["sasl.client.callback.handler.class=a.B"], ["oauth_cb"]),
        (["sasl.login.callback.handler.class=a.B"], ["oauth_cb"]),
        (["sasl.oauthbearer.jwt.retriever.class=a.FileJwtRetriever"], ["FileJwtRetriever", "oauth_cb"]),
        (["sasl.jaas.config=a.OtherLoginModule required;"], ["OtherLoginModule"]),
        (["sasl.jaas.config=a.ScramLoginModule required tokenauth=true;"], ["tokenauth"]),
    ],
)
def test_what_has_no_counterpart_names_the_way_out(tmp_path: Path, lines: list[str], words: list[str]) -> None:
    with pytest.raises(UsageError) as raised:
        read(tmp_path, *lines)
    for word in words:
        assert word.replace("f:", "client.properties:") in str(raised.value)


def test_a_jaas_text_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "jaas").write_text("jaas=a.PlainLoginModule required username='u' password='p';\n")
    found = read(tmp_path, f"sasl.jaas.config=${{file:{tmp_path}/jaas:jaas}}")
    assert found == {"sasl.username": "u", "sasl.password": "p"}


def test_what_was_left_out_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("bootstrap.servers=h:1\nkey.serializer=x\nmax.block.ms=1")
    (notice,) = read_file(path).notices
    assert f"key.serializer ({path}:2)" in notice and f"max.block.ms ({path}:3)" in notice


WORDS = ["", "-1", "PEM", "JKS", "${env:HOME}", "${x:y}", f"{KAFKA}.X", "a.PlainLoginModule required username=u;", PEM]


@given(st.lists(st.tuples(st.sampled_from(sorted(JAVA_KEYS | LIBRDKAFKA_KEYS)), st.sampled_from(WORDS)), max_size=6))
def test_any_settings_are_translated_or_refused(pairs: list[tuple[str, str]]) -> None:
    given = {key: Setting(value, "f:1") for key, value in pairs}
    try:
        found = translated(given)
    except UsageError as error:
        assert str(error).startswith("f:1: ") or "sasl.jaas.config refers to" in str(error)
    else:
        assert not found.settings.keys() & JAVA_KEYS


def test_no_name_is_of_both_clients() -> None:
    """By such a name a file would be taken for Java's."""
    assert not JAVA_KEYS & LIBRDKAFKA_KEYS


def test_the_names_are_those_of_the_librdkafka_installed() -> None:
    for key in sorted(LIBRDKAFKA_KEYS - {"oauth_cb"}):
        with pytest.raises(KafkaException) as raised:
            AdminClient({key: "\x01", "no-such-setting": "1"})
        assert raised.value.args[0].str() != f'No such configuration property: "{key}"'
