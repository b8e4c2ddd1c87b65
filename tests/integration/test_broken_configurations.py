"""Configurations that cannot work. Each ends soon, by a sentence that says what to do and the right exit code."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from granting import grant
from relays import silence, slow_relay
from securing import HOST, Authority, SecuredCluster, TokenEndpoint, secured_cluster

from kantoku_kafka import Kantoku, Task
from kantoku_kafka.kafka import topics
from kantoku_kafka.kafka.rights import Operation, Resource, Right, Role, rights_of
from kantoku_kafka.names import Topics

HERE = Path(__file__).parent
LIMIT_SECONDS = 15.0
AT_ONCE = 4
NAMESPACE = "broken"


class World:
    """What the configurations are about: a secured cluster, and what else listens or lies around."""

    def __init__(
        self, cluster: SecuredCluster, folder: Path, *, web: str, slow: str, silent: str, expired: TokenEndpoint
    ) -> None:
        self.cluster = cluster
        self.folder = folder
        self.web = web
        self.slow = slow
        self.silent = silent
        self.expired = expired
        self.foreign = Authority(folder / "foreign", "foreign-ca")
        self.foreign_certificate = self.foreign.issue("executor")
        self.old_certificate = cluster.authority.issue("old", days=-1)
        self.other_key = cluster.authority.issue("other")[1]
        self.truststore = folder / "truststore.jks"
        self.truststore.write_bytes(bytes.fromhex("feedfeed00000002") + b"\x00" * 40)

    def scram(self, **changes: str | None) -> dict[str, str]:
        return _changed(self.cluster.client("scram", "executor"), changes)

    def plain(self, **changes: str | None) -> dict[str, str]:
        return _changed(self.cluster.client("plain", "executor"), changes)

    def mtls(self, **changes: str | None) -> dict[str, str]:
        return _changed(self.cluster.client("mtls", "executor"), changes)

    def less(self, user: str) -> dict[str, str]:
        return self.cluster.client("scram", user)

    def oauth(self, **changes: str | None) -> dict[str, str]:
        return _changed(self.cluster.client("oauth", "executor"), changes)


def _changed(config: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    """Names with ``_`` for ``.``; None takes one away."""
    renamed = {name.replace("_", "."): value for name, value in changes.items()}
    return {name: value for name, value in {**config, **renamed}.items() if value is not None}


@dataclass(frozen=True)
class Broken:
    """One of them: how it comes about, and how the command has to end."""

    settings: Callable[[World], dict[str, str]]
    code: int
    words: tuple[str, ...]
    command: tuple[str, ...] = ("run-executor", "task_app:kan", "--types", "echo", "--no-timers")


TOPICS = Topics(namespace=NAMESPACE)
INPUT = TOPICS.of_type("echo")
# Users who lack some of an executor's rights.
LESS: dict[str, Callable[[Right], bool]] = {
    "no-input": lambda right: (right.name, right.operation) != (INPUT, Operation.READ),
    "no-results": lambda right: (right.name, right.operation) != (TOPICS.results, Operation.WRITE),
    "no-group": lambda right: right.resource is not Resource.GROUP,
    "no-transactions": lambda right: right.resource is not Resource.TRANSACTIONAL_ID,
    "nothing": lambda right: False,
}
BROKEN = {
    "unknown host": Broken(
        lambda w: w.scram(bootstrap_servers="no-such-host.invalid:9092"), 3, ("no-such-host.invalid", "DNS")
    ),
    "closed port": Broken(lambda w: w.scram(bootstrap_servers=f"{HOST}:9"), 3, (f"{HOST}:9", "refused")),
    "port of a web server": Broken(lambda w: {"bootstrap.servers": w.web}, 3, ("does not answer", "is it one")),
    "TLS to the port of a web server": Broken(
        lambda w: w.mtls(bootstrap_servers=w.web), 3, ("does not answer", "is it one")
    ),
    "TLS to a plain-text port": Broken(
        lambda w: w.mtls(bootstrap_servers=w.cluster.broker.bootstrap_servers),
        2,
        ("does not speak TLS", "security.protocol=PLAINTEXT"),
    ),
    "SASL over TLS to a plain-text port": Broken(
        lambda w: w.scram(bootstrap_servers=w.cluster.broker.bootstrap_servers),
        2,
        ("does not speak TLS", "security.protocol=SASL_PLAINTEXT"),
    ),
    "plain text to a TLS port": Broken(
        lambda w: {"bootstrap.servers": w.cluster.servers["tls"]}, 2, ("speaks TLS", "security.protocol=SSL")
    ),
    "states of tasks by plain text to a TLS port": Broken(
        lambda w: {"bootstrap.servers": w.cluster.servers["tls"]}, 2, ("speaks TLS",), ("tasks", "list")
    ),
    "SASL in plain text to a TLS port": Broken(
        lambda w: w.scram(security_protocol="SASL_PLAINTEXT"), 2, ("speaks TLS", "security.protocol=SASL_SSL")
    ),
    "no SASL where it is wanted": Broken(
        lambda w: w.scram(security_protocol="SSL"), 2, ("wants SASL", "SCRAM-SHA-512", "security.protocol=SASL_SSL")
    ),
    "SASL where there is none": Broken(
        lambda w: w.scram(bootstrap_servers=w.cluster.servers["tls"]), 2, ("takes no SASL", "security.protocol=SSL")
    ),
    "wrong SASL mechanism": Broken(
        lambda w: {**w.scram(), "sasl.mechanism": "SCRAM-SHA-1"}, 2, ("offers SASL by", "PLAIN", "sasl.mechanism")
    ),
    "wrong authority": Broken(
        lambda w: w.scram(ssl_ca_location=str(w.foreign.file)), 4, ("not signed by an authority", "ssl.ca.location")
    ),
    "no authority": Broken(
        lambda w: w.scram(ssl_ca_location=None), 4, ("not signed by an authority", "ssl.ca.location")
    ),
    "another host's certificate": Broken(
        lambda w: w.scram(bootstrap_servers=w.cluster.servers["scram"].replace(HOST, "localhost")),
        4,
        ("is not for localhost",),
    ),
    "missing authority file": Broken(
        lambda w: w.scram(ssl_ca_location="/nowhere/ca.pem"), 2, ("ssl.ca.location", "/nowhere/ca.pem", "No such file")
    ),
    "Java truststore": Broken(lambda w: w.scram(ssl_ca_location=str(w.truststore)), 2, ("truststore.jks", "keytool")),
    "unreadable key": Broken(
        lambda w: w.mtls(ssl_key_location="/nowhere/key.pem"), 2, ("ssl.key.location", "/nowhere/key.pem")
    ),
    "key of another certificate": Broken(
        lambda w: w.mtls(ssl_key_location=str(w.other_key), ssl_key_password=None),
        2,
        ("is not that of the certificate",),
    ),
    "wrong key password": Broken(lambda w: w.mtls(ssl_key_password="wrong"), 2, ("ssl.key.password",)),
    "missing key password": Broken(lambda w: w.mtls(ssl_key_password=None), 2, ("ssl.key.password is missing",)),
    "expired client certificate": Broken(
        lambda w: w.mtls(
            ssl_certificate_location=str(w.old_certificate[0]),
            ssl_key_location=str(w.old_certificate[1]),
            ssl_key_password=None,
        ),
        4,
        ("refuses our client certificate", "valid now"),
    ),
    "client certificate of a foreign authority": Broken(
        lambda w: w.mtls(
            ssl_certificate_location=str(w.foreign_certificate[0]),
            ssl_key_location=str(w.foreign_certificate[1]),
            ssl_key_password=None,
        ),
        4,
        ("refuses our client certificate", "an authority that the broker trusts"),
    ),
    "no client certificate": Broken(
        lambda w: w.mtls(ssl_certificate_location=None, ssl_key_location=None, ssl_key_password=None),
        4,
        ("without a client certificate", "ssl.certificate.location"),
    ),
    "unknown user": Broken(lambda w: w.scram(sasl_username="nobody"), 4, ("denied to 'nobody'", "password")),
    "wrong password, SCRAM": Broken(lambda w: w.scram(sasl_password="wrong"), 4, ("denied to 'executor'", "password")),
    "wrong password, PLAIN": Broken(lambda w: w.plain(sasl_password="wrong"), 4, ("denied to 'executor'", "password")),
    "wrong password of who spawns": Broken(
        lambda w: w.scram(sasl_password="wrong"), 4, ("denied to 'executor'", "password"), ("spawn", "echo", "x")
    ),
    "missing password": Broken(lambda w: w.scram(sasl_password=None), 2, ("sasl.password",)),
    "token endpoint is down": Broken(
        lambda w: w.oauth(sasl_oauthbearer_token_endpoint_url=f"http://{HOST}:9/token"), 4, (f"{HOST}:9",)
    ),
    "token endpoint refuses": Broken(lambda w: w.oauth(sasl_oauthbearer_client_secret="wrong"), 4, ("token",)),
    "token endpoint is troubled": Broken(
        lambda w: w.oauth(sasl_oauthbearer_token_endpoint_url=f"http://{w.web}/503"), 3, ("token", "/503 gives")
    ),
    "token endpoint answers by a page": Broken(
        lambda w: w.oauth(sasl_oauthbearer_token_endpoint_url=f"http://{w.web}/403"), 4, ("token endpoint",)
    ),
    "tokens from nowhere": Broken(lambda w: w.oauth(sasl_oauthbearer_method=None), 2, ("oauth_cb", "oidc")),
    "brokers that are reached elsewhere": Broken(
        lambda w: {"bootstrap.servers": w.cluster.servers["astray"]},
        3,
        ("no-such-host.invalid", "advertised.listeners"),
    ),
    "brokers that are reached elsewhere, by who spawns": Broken(
        lambda w: {"bootstrap.servers": w.cluster.servers["astray"]},
        3,
        ("no-such-host.invalid", "advertised.listeners"),
        ("spawn", "echo", "x"),
    ),
    "brokers that are reached elsewhere, by a slow way": Broken(
        lambda w: {"bootstrap.servers": w.slow},
        3,
        ("No broker answers at",),
        ("spawn", "echo", "x"),
    ),
    "brokers that are reached elsewhere, by who fires timers": Broken(
        lambda w: {"bootstrap.servers": w.cluster.servers["astray"]},
        3,
        ("no-such-host.invalid", "advertised.listeners"),
        ("run-scheduler", "task_app:kan"),
    ),
    "token endpoint that is silent": Broken(
        lambda w: w.oauth(sasl_oauthbearer_token_endpoint_url=f"http://{w.silent}/token"),
        3,
        ("is there a token yet",),
        ("topics", "plan", "task_app:kan"),
    ),
    "expired token": Broken(
        lambda w: w.oauth(sasl_oauthbearer_token_endpoint_url=f"{w.expired.url}/token"), 4, ("token",)
    ),
    "registries that accept and stay silent": Broken(
        lambda w: {"schema.registry.url": f"http://{w.silent},http://{w.silent}"},
        3,
        (f"http://{HOST}", "gave no answer", "see that it is well"),
        ("schemas", "check", "task_app:kan"),
    ),
    "unknown setting": Broken(lambda w: w.scram(sasl_pasword="x"), 2, ("sasl.pasword",)),
    "impossible value": Broken(lambda w: w.scram(metadata_max_age_ms="soon"), 2, ("metadata.max.age.ms",)),
    "missing topic": Broken(
        lambda w: w.cluster.super_user,
        7,
        (f"{NAMESPACE}.tasks.nap", "topics create"),
        ("run-executor", "task_app:kan", "--types", "nap", "--no-timers"),
    ),
    "no right to read the input": Broken(lambda w: w.less("no-input"), 4, (f"{NAMESPACE}.tasks.echo", "ACL")),
    "no right to write results": Broken(lambda w: w.less("no-results"), 4, (f"{NAMESPACE}.results", "ACL")),
    "no right to join the group": Broken(lambda w: w.less("no-group"), 4, (f"{NAMESPACE}.executors", "ACL")),
    "no right to transactions": Broken(
        lambda w: w.less("no-transactions"), 4, (f"{NAMESPACE}.executors", "transaction", "ACL")
    ),
    "no right to spawn": Broken(lambda w: w.less("nothing"), 4, (f"{NAMESPACE}.events", "ACL"), ("spawn", "echo", "x")),
    "no right to read results": Broken(
        lambda w: w.less("nothing"),
        4,
        (f"{NAMESPACE}.results", "ACL"),
        ("result", "0199e0a0-0000-7000-8000-000000000000"),
    ),
    "no right to create topics": Broken(
        lambda w: w.less("nothing"), 4, ("creating topic", "ACL"), ("topics", "create", "task_app:kan", "--yes")
    ),
}


@dataclass(frozen=True)
class Outcome:
    code: int
    said: str
    seconds: float


class _Web(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.send_error(int(self.path[1:]))  # of several lines

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer((HOST, 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"{HOST}:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Outcome]]]:
    """What becomes of those that are tested now, some at once: most of the time they wait."""
    names = [item.callspec.params["name"] for item in request.session.items if item.fspath == request.fspath]
    folder = tmp_path_factory.mktemp("broken")
    with (
        secured_cluster(folder, ("executor", *LESS)) as cluster,
        served(_Web) as web,
        slow_relay(cluster.servers["astray"], 0.6) as slow,
        silence() as silent,
        closing(TokenEndpoint()) as expired,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        expired.lifetime_seconds = -10
        _grant(cluster)
        world = World(cluster, folder, web=web, slow=slow, silent=silent, expired=expired)
        yield {name: pool.submit(_run, BROKEN[name], world, folder / name) for name in names}


def _grant(cluster: SecuredCluster) -> None:
    servers = cluster.super_user["bootstrap.servers"]
    with closing(Kantoku(NAMESPACE, bootstrap_servers=servers)) as kan:
        topics.create(kan.clients, topics.plan(TOPICS, ["echo"]))
        kan.spawn(Task("echo"))  # who may not write its result finds out
    for user, has in LESS.items():
        if rights := [right for right in rights_of(Role.EXECUTOR, TOPICS, [INPUT]) if has(right)]:
            grant(servers, user, rights)


def _run(broken: Broken, world: World, file: Path) -> Outcome:
    file.write_text("".join(f"{name}={value}\n" for name, value in broken.settings(world).items()))
    command = [sys.executable, "-m", "kantoku_kafka", "-F", str(file), "-n", NAMESPACE, *broken.command]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE, timeout=60, check=False)
    return Outcome(done.returncode, done.stderr, time.monotonic() - started)


@pytest.mark.parametrize("name", BROKEN)
def test_it_ends_soon_with_a_sentence_and_its_exit_code(outcomes: dict[str, Future[Outcome]], name: str) -> None:
    outcome, broken = outcomes[name].result(120), BROKEN[name]
    assert outcome.code == broken.code, outcome.said
    sentence = outcome.said.splitlines()[-1]
    assert sentence.startswith("error: ")
    assert [words for words in broken.words if words not in sentence] == [], sentence
    assert "Traceback" not in outcome.said
    assert ("events='off'" in sentence) is (name == "no right to spawn"), "nothing else would be better without events"
    limit_seconds = LIMIT_SECONDS * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    assert outcome.seconds < limit_seconds, f"{outcome.seconds:.1f} s; {outcome.said}"
