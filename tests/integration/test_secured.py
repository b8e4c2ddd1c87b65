"""On a secured cluster: files of Java clients, credentials that change meanwhile, secrets that nobody tells."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import task_app
from executors import ExecutorUnderTest, until
from granting import grant
from securing import HOST, MODES, SecuredCluster, TokenEndpoint, password_of, secured_cluster
from test_cli import cli

from kantoku_kafka import Kantoku, Task
from kantoku_kafka.executor import ExecutorProcess
from kantoku_kafka.kafka import topics
from kantoku_kafka.kafka.rights import Role, rights_of
from kantoku_kafka.names import Topics
from kantoku_kafka.observability.health import PROBES

NAMESPACE = "secured"
TOPICS = Topics(namespace=NAMESPACE)
INPUT = TOPICS.of_type("echo")
APP = "task_app:kan"
ROTATED = "rotated"
TOKENS = "tokens"
USERS = {
    "spawner": Role.SPAWNER,
    "executor": Role.EXECUTOR,
    "observer": Role.OBSERVER,
    ROTATED: Role.EXECUTOR,
    TOKENS: Role.EXECUTOR,
}
REAUTHENTICATE_SECONDS = 5


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredCluster]:
    """Connections are asked for their credentials again every few seconds."""
    more = {"connections.max.reauth.ms": str(1000 * REAUTHENTICATE_SECONDS)}
    with secured_cluster(tmp_path_factory.mktemp("secured"), tuple(USERS), more) as running:
        servers = running.super_user["bootstrap.servers"]
        with closing(Kantoku(NAMESPACE, bootstrap_servers=servers)) as kan:
            topics.create(kan.clients, topics.plan(TOPICS, ["echo"]))
        for user, role in USERS.items():
            grant(servers, user, rights_of(role, TOPICS, [INPUT]))
        yield running


def spawner(cluster: SecuredCluster, mode: str = "scram") -> Kantoku:
    settings = cluster.client(mode, "spawner")
    return Kantoku(NAMESPACE, bootstrap_servers=settings.pop("bootstrap.servers"), config=settings)


def executor(cluster: SecuredCluster, file: Path, mode: str, *options: str) -> ExecutorUnderTest:
    more = ("-F", str(file), "--types", "echo", *options)
    return ExecutorUnderTest(cluster.servers[mode], NAMESPACE, *more, log=file.with_suffix(".log"))


def librdkafka_file(settings: dict[str, str], path: Path) -> Path:
    path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    return path


# --- files of Java clients


def java_file(cluster: SecuredCluster, mode: str, user: str, folder: Path) -> Path:
    """What a platform team hands out for its Java clients: JAAS, and everything in PEM."""
    lines = {
        "bootstrap.servers": cluster.servers[mode],
        "security.protocol": "SSL" if mode == "mtls" else "SASL_SSL",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(cluster.authority.file),
    }
    module = "org.apache.kafka.common.security"
    quoted = json.dumps(password_of(user))
    match mode:
        case "mtls":
            certificate, key = cluster.authority.issue(f"{user}-java", subject=user)
            store = folder / f"{user}.pem"
            store.write_bytes(key.read_bytes() + certificate.read_bytes())
            lines |= {"ssl.keystore.type": "PEM", "ssl.keystore.location": str(store)}
        case "oauth":
            lines |= {
                "sasl.mechanism": "OAUTHBEARER",
                "sasl.oauthbearer.token.endpoint.url": f"{cluster.tokens.url}/token",
                "sasl.login.callback.handler.class": f"{module}.oauthbearer.OAuthBearerLoginCallbackHandler",
                "sasl.jaas.config": f"{module}.oauthbearer.OAuthBearerLoginModule required "
                f'clientId="{user}" clientSecret="{cluster.tokens.SECRET}";',
            }
        case "plain" | "scram":
            name = "plain.PlainLoginModule" if mode == "plain" else "scram.ScramLoginModule"
            lines |= {
                "sasl.mechanism": "PLAIN" if mode == "plain" else "SCRAM-SHA-256",
                "sasl.jaas.config": f'{module}.{name} required username="{user}" password={quoted};',
            }
    path = folder / f"{user}-{mode}.properties"
    escaped = {name: value.replace("\\", "\\\\") for name, value in lines.items()}
    path.write_text("# of the platform team\n" + "".join(f"{name} = {value}\n" for name, value in escaped.items()))
    return path


@pytest.mark.parametrize("mode", MODES)
def test_the_file_of_a_java_client_is_taken_as_it_is(
    cluster: SecuredCluster, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an executor, a spawner, an observer; and Kafka's own tool takes it too."""
    common = ("-n", NAMESPACE)
    of_spawner = ("-F", str(java_file(cluster, mode, "spawner", tmp_path)), *common)
    of_observer = ("-F", str(java_file(cluster, mode, "observer", tmp_path)), *common)
    spawned = cli(*of_spawner, "spawn", "echo", f"by {mode}")
    assert spawned.returncode == 0, spawned.stderr
    with executor(cluster, java_file(cluster, mode, "executor", tmp_path), mode) as running:
        result = cli(*of_spawner, "result", spawned.stdout.decode().strip(), "-t", "60")
        assert (result.returncode, result.stdout.decode().strip()) == (0, f"by {mode}"), (
            result.stderr + running.log().encode()
        )
    shown = cli(*of_observer, "tasks", "show", spawned.stdout.decode().strip())
    assert shown.returncode == 0, shown.stderr
    monkeypatch.setenv(
        "JDK_JAVA_OPTIONS", f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={cluster.tokens.url}/token"
    )
    options = ("--bootstrap-server", cluster.servers[mode], "--command-config", of_observer[1], "--list")
    listed = cluster.broker.run_tool("org.apache.kafka.tools.TopicCommand", *options)
    assert INPUT in listed.stdout.splitlines(), listed.stderr


# --- what changes meanwhile


def test_credentials_that_change_while_an_executor_runs(cluster: SecuredCluster, tmp_path: Path) -> None:
    """A password that is no longer right ends it, with the code for that; a token that expires is fetched anew."""
    rotated = librdkafka_file(cluster.client("scram", ROTATED), tmp_path / "rotated")
    tokens = librdkafka_file(cluster.client("oauth", TOKENS), tmp_path / "tokens")
    cluster.tokens.lifetime_seconds = 10
    with (
        executor(cluster, rotated, "scram", "--slot", "a") as by_password,
        executor(cluster, tokens, "oauth", "--slot", "b") as by_token,
        closing(spawner(cluster)) as kan,
    ):
        for running in (by_password, by_token):
            until(lambda r=running: "assigned" in r.log(), 60, "both work")
        cluster.set_password(ROTATED, "another one")
        began, given = time.monotonic(), len(cluster.tokens.issued)
        assert by_password.wait(150) == 4, by_password.log()
        assert by_password.log().splitlines()[-1].startswith(f"error: Access is denied to {ROTATED!r} while reading")
        assert time.monotonic() - began > 2 * cluster.tokens.lifetime_seconds, "tokens have expired meanwhile"
        assert len(cluster.tokens.issued) > given
        results = kan.gather(kan.spawn_many([Task("echo", b"%d" % n) for n in range(50)]), timeout_seconds=120)
        assert [result.data for result in results] == [b"%d" % n for n in range(50)]
        assert by_token.returncode is None, by_token.log()
    cluster.tokens.lifetime_seconds = 300


def test_a_token_endpoint_is_trusted_as_the_system_trusts(
    cluster: SecuredCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """librdkafka's own default is a file that only Red Hat's systems have."""
    monkeypatch.setenv("SSL_CERT_FILE", str(cluster.authority.file))
    with closing(TokenEndpoint(cluster.authority.issue("tokens", hosts=(HOST,)))) as tokens:
        settings = {**cluster.client("oauth", "spawner"), "sasl.oauthbearer.token.endpoint.url": f"{tokens.url}/token"}
        kan = Kantoku(NAMESPACE, bootstrap_servers=settings.pop("bootstrap.servers"), config=settings)
        client = kan.clients.consumer(**{"group.id": "nobody"})
        until(lambda: tokens.issued, 30, "it gets a token")
        client.close()


# --- secrets


@pytest.mark.parametrize("mode", MODES)
def test_no_secret_is_told(cluster: SecuredCluster, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in logs (all that librdkafka says included), errors, what commands print or serve, ``ps``, or a repr."""
    secrets = {password_of("executor"), cluster.tokens.SECRET}
    settings = cluster.client(mode, "executor") | {"debug": "all"}
    (tmp_path / "secret").write_text(password_of("executor"))
    monkeypatch.setenv("SECRET_OF_TESTS", password_of("executor"))
    referring = {
        name: "${env:SECRET_OF_TESTS}" if mode == "plain" else f"${{file:{tmp_path}/secret}}"
        for name in ("sasl.password", "ssl.key.password")
        if name in settings
    }
    literal = librdkafka_file(settings, tmp_path / "literal.properties")
    by_reference = librdkafka_file({**settings, **referring}, tmp_path / "reference.properties")
    java = java_file(cluster, mode, "executor", tmp_path)
    misspelt = librdkafka_file({**settings, "sasl.pasword": password_of("executor")}, tmp_path / "misspelt.properties")
    misplaced = librdkafka_file(
        {**settings, "socket.keepalive.enable": password_of("executor")}, tmp_path / "misplaced.properties"
    )
    told: dict[str, str] = {}
    debug = ("--log-level", "debug")

    cluster.tokens.issued.clear()
    with (
        executor(cluster, by_reference, mode, "--http", f"{HOST}:0", *debug) as running,
        closing(spawner(cluster, mode)) as kan,
    ):
        kan.spawn(Task("echo", b"x")).result(timeout_seconds=90)
        served = re.search(r"listening on (http:\S+)", running.log())
        assert served is not None
        told |= {path: _page(served[1] + path) for path in ("/metrics", *PROBES, "/no-such-page")}
        assert "kantoku_tasks" in told["/metrics"]
        told["ps"] = "\n".join(_command_lines())
        told["repr of a client"] = f"{kan!r} {kan.connection!r} {kan.clients!r} {vars(kan.clients)!r}"
    told["log"] = running.log()
    assert "librdkafka: " in told["log"], "it has much to say"
    show, doctor, spawn = ("config", "show", "-o", "json"), ("doctor", APP), ("spawn", "echo", "x")
    for file, commands in {
        literal: [show, spawn],
        by_reference: [show, doctor],
        java: [show],
        misspelt: [show, spawn],
        misplaced: [spawn],
    }.items():
        for command in commands:
            done = cli("-F", str(file), "-n", NAMESPACE, *debug, *command)
            told[f"{file.name}: {' '.join(command)}"] = (done.stdout + done.stderr).decode()
            assert b"Traceback" not in done.stderr
    told["convert by reference"] = cli("config", "convert", str(by_reference)).stdout.decode() if referring else ""
    told["notices"] = cli("config", "convert", str(java)).stderr.decode()
    owned = Kantoku(NAMESPACE, bootstrap_servers=cluster.servers[mode], config=settings)
    owned.task("echo")(task_app.echo)
    told["repr of an executor"] = f"{owned!r} {ExecutorProcess(owned)!r} {owned.clients!r} {owned.clients.connection!r}"

    secrets |= set(cluster.tokens.issued)
    leaks = [(place, secret) for place, text in told.items() for secret in _forms(secrets) if secret in text]
    assert leaks == []


def _page(url: str) -> str:
    try:
        with urlopen(url, timeout=10) as answer:
            return f"{answer.headers}{answer.read().decode()}"
    except HTTPError as error:
        return f"{error.headers}{error.read().decode()}"


def _forms(secrets: set[str]) -> set[str]:
    """As they are, and as they would be printed."""
    return secrets | {json.dumps(secret)[1:-1] for secret in secrets} | {repr(secret)[1:-1] for secret in secrets}


def _command_lines() -> Iterator[str]:
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line = (process / "cmdline").read_bytes()
            if os.getpid() != int(process.name):
                yield line.replace(b"\0", b" ").decode(errors="replace")
