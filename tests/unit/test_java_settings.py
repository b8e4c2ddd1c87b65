"""What a Java client's properties become for librdkafka."""

from __future__ import annotations

from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException
from confluent_kafka.admin import AdminClient
from hypothesis import given
from hypothesis import strategies as st

from kantoku_kafka.configuration.java import JAVA_KEYS, RENAMED, Setting, translated
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
            ["! Java's", "bootstrap.servers: a:9092,\\", "  b:9092", "client.id x", "fetch.min.bytes=0"],
            {"bootstrap.servers": "a:9092,b:9092", "client.id": "x", "fetch.min.bytes": "1"},
        ),
        (["bootstrap.servers=a:9092, ,b:9092,"], {"bootstrap.servers": "a:9092,b:9092"}),
        (
            ["auto.register.schemas=false", "specific.avro.reader=true", "value.subject.name.strategy=a.B", "a=b\\c"],
            {"a": "b\\c"},
        ),
        (["key.serializer=x", "use.latest.version=true", "json.fail.invalid.schema=true"], {}),
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
    assert expected.keys() <= LIBRDKAFKA_KEYS | {"a"}


@pytest.mark.parametrize("line", ["[kafka]", "{", "sasl.pasword", "=b"])
def test_a_line_that_is_none_is_told(tmp_path: Path, line: str) -> None:
    with pytest.raises(UsageError, match=r"line 2 of .*client\.properties is not KEY=VALUE"):
        read(tmp_path, "bootstrap.servers=h:1", line)


BEYOND = {
    "batch.size": (0, 1),
    "connections.max.idle.ms": (-1, 0),
    "fetch.max.bytes": (2**31 - 1, 2**31 - 513),
    "fetch.max.wait.ms": (2**31 - 1, 300_000),
    "fetch.min.bytes": (0, 1),
    "linger.ms": (2**63 - 1, 900_000),
    "max.partition.fetch.bytes": (0, 1),
    "max.poll.interval.ms": (2**31 - 1, 86_400_000),
    "max.request.size": (2**31 - 1, 10**9),
    "metadata.max.age.ms": (604_800_000, 86_400_000),
    "receive.buffer.bytes": (2**31 - 1, 10**8),
    "reconnect.backoff.max.ms": (2**63 - 1, 3_600_000),
    "reconnect.backoff.ms": (2**31 - 1, 3_600_000),
    "request.timeout.ms": (1_200_000, 900_000),
    "retry.backoff.max.ms": (0, 1),
    "retry.backoff.ms": (0, 1),
    "sasl.kerberos.min.time.before.relogin": (604_800_000, 86_400_000),
    "send.buffer.bytes": (2**31 - 1, 10**8),
    "socket.connection.setup.timeout.ms": (1, 1_000),
}


@pytest.mark.parametrize("key", BEYOND)
def test_a_value_that_only_java_takes_becomes_the_nearest_one(key: str, tmp_path: Path) -> None:
    given, taken = BEYOND[key]
    path = tmp_path / "f"
    path.write_text(f"max.block.ms=1\n{key}={given}\n")
    found = read_file(path)
    name = RENAMED.get(key, key)
    assert {one: setting.value for one, setting in found.kafka.items()} == {name: str(taken)}
    assert f"{name}={taken}, not {given} ({path}:2)" in found.notices[1]
    own = {"group.id": "g", "reconnect.backoff.max.ms": "3600000"}
    Consumer({**own, name: str(taken)}).close()
    with pytest.raises(KafkaException):
        Consumer({**own, name: str(given)})


@pytest.mark.parametrize("value", ["1", "x", "9" * 5_000, "${env:N}", "\u0664"])
def test_a_value_that_is_no_number_or_in_the_range_stays(value: str) -> None:
    settings = {"fetch.min.bytes": Setting(value, "f:1"), "buffer.memory": Setting("9" * 5_000, "f:2")}
    found = translated(settings)
    assert found.settings["fetch.min.bytes"].value == value and not found.notices


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
        (["sasl.jaas.config=${directory:/mnt/x:jaas}"], ["refers to 'directory'", "${file:/path:key}"]),
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
