"""A Java client's properties, a profile, variables: processes that are told by them do their work on a real Kafka."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from granting import binding

from kantoku_kafka.configuration.java import JAVA_KEYS
from kantoku_kafka.configuration.known import LIBRDKAFKA_KEYS
from kantoku_kafka.configuration.profiles import FILE_NAME
from kantoku_kafka.configuration.properties import java_line
from kantoku_kafka.configuration.sources import read_file
from kantoku_kafka.configuration.writing import profile_text
from kantoku_kafka.kafka.rights import Role, rights_of
from kantoku_kafka.names import Topics
from tests.integration.securing import MODES, SecuredCluster, password_of, secured_cluster

NAMESPACE = "java-file"
USER = "ann"
JAVA_FILE = "client.properties"
# As a platform team hands it out: much of it is for other programs, and some would break a promise of ours.
FILE = r"""
# Kafka, cluster "shop"
bootstrap.servers : {servers}
security.protocol = SASL_SSL
ssl.truststore.type = PEM
ssl.truststore.location = {authority}
sasl.mechanism    = SCRAM-SHA-512
sasl.jaas.config  = org.apache.kafka.common.security.scram.ScramLoginModule required \
                    username="{user}" \
                    password="${{file:{passwords}:shop}}";
config.providers=file
config.providers.file.class=org.apache.kafka.common.config.provider.FileConfigProvider
key.serializer=org.apache.kafka.common.serialization.StringSerializer
value.deserializer=org.apache.kafka.common.serialization.ByteArrayDeserializer
partition.assignment.strategy=org.apache.kafka.clients.consumer.RangeAssignor
delivery.timeout.ms=120000
max.in.flight.requests.per.connection=20
max.block.ms=5000
request.timeout.ms=30000
default.api.timeout.ms=60000
group.id=somebody-elses
enable.auto.commit=true
isolation.level=read_uncommitted
retries=0
ssl.endpoint.identification.algorithm=
metric.reporters=
"""
SPAWNER = """
from kantoku_kafka import Kantoku, Task

kan = Kantoku.from_config()
print(kan.spawn(Task("echo", b"from the library")).result(timeout_seconds=30).data.decode())
kan.close()
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredCluster]:
    with secured_cluster(tmp_path_factory.mktemp("cluster"), (USER,)) as running:
        topics = Topics(namespace=NAMESPACE)
        rights = {right for role in Role for right in rights_of(role, topics, [topics.of_type("echo")])}
        admin = AdminClient(running.super_user)
        for future in admin.create_acls([binding(USER, right) for right in rights]).values():
            future.result(10)
        yield running


@pytest.fixture
def place(cluster: SecuredCluster, tmp_path: Path) -> Path:
    """A directory with the files of a user."""
    (tmp_path / "passwords").write_text(f"other = x\n{java_line('shop', password_of(USER))}\n")
    text = FILE.format(
        servers=cluster.servers["scram"],
        authority=cluster.authority.file,
        user=USER,
        passwords=tmp_path / "passwords",
    )
    (tmp_path / JAVA_FILE).write_text(text)
    (tmp_path / "app.py").write_text(
        f"from kantoku_kafka import Kantoku\nkan = Kantoku({NAMESPACE!r})\n@kan.task('echo')\n"
        "def echo(data: bytes) -> bytes:\n    return data\n"
    )
    (tmp_path / "spawner.py").write_text(SPAWNER)
    return tmp_path


def run(place: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A Python program in that place, with no other settings than these."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("KANTOKU_")}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=place, env={**kept, **variables}, capture_output=True, text=True, timeout=90, check=False
    )


def test_a_java_file_is_enough(place: Path) -> None:
    """Unchanged: topics, tasks, results."""

    def kantoku(*arguments: str) -> subprocess.CompletedProcess[str]:
        done = run(place, "-m", "kantoku_kafka", *arguments, "-F", JAVA_FILE, "-n", NAMESPACE)
        assert done.returncode == 0, done.stderr
        assert password_of(USER) not in done.stdout + done.stderr
        return done

    kantoku("topics", "create", "app:kan", "--yes", "-r", "1")
    task_id = kantoku("spawn", "echo", "by the Java file").stdout.strip()
    executed = kantoku("run-executor", "app:kan", "--burst")
    (ignored,) = {line.partition("not count")[2] for line in executed.stderr.splitlines() if "not count" in line}
    for key in ("group.id", "enable.auto.commit", "isolation.level", "retries", "partition.assignment.strategy"):
        assert key in ignored
    assert "by the Java file" in kantoku("result", task_id).stdout
    assert kantoku("verify").returncode == 0


def test_a_spawner_finds_the_same_settings(place: Path) -> None:
    """Variables alone; and a profile, with the password in a variable."""
    run(place, "-m", "kantoku_kafka", "topics", "create", "app:kan", "--yes", "-r", "1", "-F", JAVA_FILE)
    by_file = {"KANTOKU_CONFIG": JAVA_FILE, "KANTOKU_NAMESPACE": NAMESPACE}
    command = [sys.executable, "-m", "kantoku_kafka", "run-executor", "app:kan"]
    executor = subprocess.Popen(command, cwd=place, env={**os.environ, **by_file}, stderr=subprocess.DEVNULL)
    try:
        done = run(place, "spawner.py", **by_file)
        assert done.stdout == "from the library\n", done.stderr
        toml = run(place, "-m", "kantoku_kafka", "config", "convert", "--to", "toml", "--profile", "shop", JAVA_FILE)
        text = toml.stdout.replace("]\n", f']\nnamespace = "{NAMESPACE}"\n', 1)
        (place / FILE_NAME).write_text(re.sub(r"\$\{file:[^}]*\}", "${env:SHOP_PASSWORD}", text))
        done = run(place, "spawner.py", KANTOKU_PROFILE="shop", SHOP_PASSWORD=password_of(USER))
        assert done.stdout == "from the library\n", done.stderr
        done = run(place, "spawner.py", KANTOKU_PROFILE="shop")
        assert "SHOP_PASSWORD, which is not set" in done.stderr
    finally:
        executor.kill()
        executor.wait()


@pytest.mark.parametrize("mode", MODES)
def test_kafkas_own_tools_take_what_we_write_for_java(
    cluster: SecuredCluster, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """User and password, a certificate, tokens: the same connection by Java's own code."""
    settings = cluster.client(mode, USER)
    if mode == "mtls":  # one file, and no password: Java before 19 cannot open a key locked as OpenSSL locks them now
        certificate, key = cluster.authority.issue("java-user")
        (tmp_path / "both.pem").write_bytes(certificate.read_bytes() + key.read_bytes())
        settings |= dict.fromkeys(("ssl.certificate.location", "ssl.key.location"), str(tmp_path / "both.pem"))
        del settings["ssl.key.password"]
    (tmp_path / FILE_NAME).write_text(profile_text("default", settings))
    written = run(tmp_path, "-m", "kantoku_kafka", "config", "convert", "--to", "java", FILE_NAME)
    (tmp_path / JAVA_FILE).write_text(written.stdout)
    read = read_file(tmp_path / JAVA_FILE).kafka
    assert {key: setting.value for key, setting in read.items()} == settings
    monkeypatch.setenv(
        "JDK_JAVA_OPTIONS", f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={cluster.tokens.url}/token"
    )
    options = ["--bootstrap-server", settings["bootstrap.servers"], "--command-config", str(tmp_path / JAVA_FILE)]
    listed = cluster.broker.run_tool("org.apache.kafka.tools.TopicCommand", *options, "--list")
    assert listed.returncode == 0, listed.stderr + written.stdout


@pytest.mark.parametrize("config", ["producer.ProducerConfig", "consumer.ConsumerConfig", "admin.AdminClientConfig"])
def test_every_name_of_the_java_client_is_known(cluster: SecuredCluster, config: str) -> None:
    """Else a file that a Java program reads could end in a refusal here."""
    documented = cluster.broker.run_tool(f"org.apache.kafka.clients.{config}").stdout
    names = set(re.findall(r'<h4><a id="(?:[a-z]+configs_)?([a-z0-9.]+)"', documented))
    assert len(names) > 50
    assert names <= JAVA_KEYS | LIBRDKAFKA_KEYS
