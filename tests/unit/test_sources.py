"""Which of several places counts, and what each of them may say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kantoku_kafka import Kantoku
from kantoku_kafka.configuration.references import resolved
from kantoku_kafka.configuration.sources import Configuration, command_line, load, read_file
from kantoku_kafka.errors import UsageError
from kantoku_kafka.names import Topics
from kantoku_kafka.registry.client import Registry
from kantoku_kafka.registry.envelopes import RegistryCodec
from kantoku_kafka.settings import Connection

OWN = Connection(bootstrap_servers="app:1", config={"client.id": "app"})
TOML = """
[profiles.default]
bootstrap_servers = "default:1"

[profiles.prod]
bootstrap_servers = "prod:1"
namespace = "prod"
topics.results = "other.results"
topics.tasks.resize = "other.resize"
[profiles.prod.kafka]
client.id = "prod"
"sasl.password" = "${env:PW}"
socket.keepalive.enable = true
reconnect.backoff.ms = 5
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("client.properties").write_text("bootstrap.servers=file:1\nclient.id=file\n")


def servers_and_id(
    *,
    given: Configuration | None = None,
    config_file: str | None = None,
    profile: str | None = None,
    **environment: str,
) -> tuple[str, object]:
    found = load(given, config_file=config_file, profile=profile, environment=environment).connection(OWN)
    return found.bootstrap_servers, found.config["client.id"]


def of_command(*pairs: str, bootstrap_servers: str | None = None) -> Configuration:
    return command_line(pairs, bootstrap_servers=bootstrap_servers, namespace=None)


FILE = "client.properties"
SERVERS = {"KANTOKU_BOOTSTRAP_SERVERS": "env:1"}
ORDER = [
    ({}, ("app:1", "app")),
    ({"toml": True}, ("default:1", "app")),
    ({"toml": True, "KANTOKU_PROFILE": "prod"}, ("prod:1", "prod")),
    ({"toml": True, "KANTOKU_PROFILE": "prod", "KANTOKU_CONFIG": FILE}, ("file:1", "file")),
    ({"KANTOKU_CONFIG": FILE, **SERVERS}, ("env:1", "file")),
    ({"KANTOKU_CONFIG": FILE, **SERVERS, "KANTOKU_KAFKA_CLIENT_ID": "env"}, ("env:1", "env")),
    ({"KANTOKU_CONFIG": "", "KANTOKU_BOOTSTRAP_SERVERS": "", "KANTOKU_PROFILE": ""}, ("app:1", "app")),
    ({"config_file": FILE, **SERVERS, "KANTOKU_KAFKA_CLIENT_ID": "env"}, ("file:1", "file")),
    ({"toml": True, "profile": "prod", **SERVERS, "KANTOKU_KAFKA_CLIENT_ID": "env"}, ("prod:1", "prod")),
    ({"toml": True, "profile": "prod", "config_file": FILE}, ("file:1", "file")),
    ({"config_file": FILE, "given": of_command("client.id=X")}, ("file:1", "X")),
    ({"config_file": FILE, "given": of_command("client.id=X", "bootstrap.servers=x:1")}, ("x:1", "X")),
    ({"given": of_command("metadata.broker.list=x:1", bootstrap_servers="b:1"), **SERVERS}, ("b:1", "app")),
]


@pytest.mark.parametrize(("places", "expected"), ORDER)
def test_the_order(places: dict[str, object], expected: tuple[str, str]) -> None:
    """What a command is told counts more than its environment: else it might work on another cluster than was said."""
    places = dict(places)
    if places.pop("toml", False):
        Path("kantoku.toml").write_text(TOML)
    assert servers_and_id(**places) == expected  # type: ignore[arg-type]


def test_a_profile() -> None:
    Path("kantoku.toml").write_text(TOML)
    found = load(profile="prod", environment={})
    assert dict(found.connection(OWN).config) == {
        "client.id": "prod",
        "sasl.password": "${env:PW}",
        "socket.keepalive.enable": "true",
        "reconnect.backoff.ms": 5,
    }
    topics = found.topic_names(Topics(namespace="app", overrides={"events": "kept"}))
    assert (topics.events, topics.results, topics.of_type("resize")) == ("kept", "other.results", "other.resize")
    assert topics.timers == "prod.timers"
    assert found.connection(OWN).origins["client.id"] == "kantoku.toml [profiles.prod]"


def test_profiles_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "home/kantoku-kafka").mkdir(parents=True)
    (tmp_path / "home/kantoku-kafka/kantoku.toml").write_text(TOML)
    assert servers_and_id(XDG_CONFIG_HOME=str(tmp_path / "home")) == ("default:1", "app")


def test_a_file_of_profiles_by_name() -> None:
    Path("kantoku.toml").write_text("nonsense")
    Path("mine.toml").write_text(TOML)
    assert servers_and_id(config_file="mine.toml", profile="prod") == ("prod:1", "prod")
    assert servers_and_id(KANTOKU_CONFIG="mine.toml", **SERVERS) == ("env:1", "app")
    assert servers_and_id(config_file="mine.toml", **SERVERS) == ("default:1", "app")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense", "no TOML"),
        ("profiles = 3", "[profiles.NAME]"),
        ("[profiles]\nprod = 3", "[profiles.NAME]"),
        ("", "has no profile: write one, [profiles.default]"),
        ("[profile.prod]", "did you mean 'profiles'"),
        ("[profiles.a]\n[profiles.b]", "none is chosen: give --profile or KANTOKU_PROFILE, one of: a, b"),
        ("[profiles.default]\nbootstrap-servers = 'h:1'", "did you mean 'bootstrap_servers'"),
        ("[profiles.default]\nnamespace = 3", "namespace is a text"),
        ("[profiles.default]\nkafka = 3", "kafka is a table"),
        ("[profiles.default.kafka]\na = [1]", "a is a list"),
        (f"a = {'[' * 5000}", "nested too deeply"),
        (f"a = {'1' * 5000}", "no TOML"),
        (f"profiles.default.kafka.{'a.' * 900}a = 1", "is a dict"),
        ("[profiles.default.topics]\nresult = 'x'", "did you mean 'results'"),
    ],
)
def test_what_no_profile_can_be(text: str, words: str) -> None:
    Path("kantoku.toml").write_text(text)
    with pytest.raises(UsageError) as raised:
        load(environment={})
    assert "kantoku.toml" in str(raised.value) and words in str(raised.value)


def test_a_profile_that_is_nowhere() -> None:
    with pytest.raises(UsageError, match="profile 'x'"):
        load(profile="x", environment={})
    Path("kantoku.toml").write_text(TOML)
    with pytest.raises(UsageError, match=r"no profile 'x'.*default, prod"):
        load(environment={"KANTOKU_PROFILE": "x"})


@pytest.mark.parametrize("name", ["missing.properties", "missing.toml", "no-pair.properties"])
def test_what_is_wrong_with_a_file_is_told_with_who_named_it(name: str) -> None:
    Path("no-pair.properties").write_text("a=b\nc")
    with pytest.raises(UsageError, match=f"^--config: .*{name}"):
        load(config_file=name, environment={"KANTOKU_CONFIG": "other"})
    with pytest.raises(UsageError, match=f"^KANTOKU_CONFIG: .*{name}"):
        load(environment={"KANTOKU_CONFIG": name})


@given(st.text(max_size=60), st.sampled_from(["f.toml", "f.properties"]))
def test_any_file_is_read_or_refused(text: str, name: str) -> None:
    Path(name).write_text(text, "utf-8")
    try:
        read_file(Path(name)).connection(OWN)
    except UsageError as error:
        assert error.exit_code == 2


def test_variables_are_settings() -> None:
    found = load(
        environment={
            "KANTOKU_KAFKA_SASL_PASSWORD": "p",
            "KANTOKU_KAFKA_LOG_LEVEL": "7",
            "KANTOKU_KAFKA_OAUTH_CB": "a:b",
            "KANTOKU_KAFKA_NO_SUCH": "x",
            "KANTOKU_KAFKA_SERVICE_HOST": "10.0.0.1",
            "KANTOKU_KAFKA_SERVICE_PORT_HTTP": "80",
            "KANTOKU_KAFKA_PORT": "tcp://10.0.0.1:80",
            "KANTOKU_KAFKA_PORT_80_TCP_ADDR": "10.0.0.1",
            "KANTOKU_NAMESPACE": "shop",
        }
    )
    assert {key: setting.value for key, setting in found.kafka.items()} == {
        "sasl.password": "p",
        "log_level": "7",
        "oauth_cb": "a:b",
        "no.such": "x",
    }
    assert found.kafka["sasl.password"].origin == "KANTOKU_KAFKA_SASL_PASSWORD"
    assert found.namespace == ("shop", "KANTOKU_NAMESPACE")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("KANTOKU_BOOTSTRAP_SERVER", "KANTOKU_BOOTSTRAP_SERVERS"),
        ("KANTOKU_CONFG", "KANTOKU_CONFIG"),
        ("KANTOKU_SASL_PASSWORD", "KANTOKU_KAFKA_SASL_PASSWORD"),
        *[(name, None) for name in ("KANTOKU_PORT", "KANTOKU_SERVICE_HOST", "KANTOKU_HTTP", "KANTOKU_LOG_LEVEL")],
    ],
)
def test_a_misspelt_variable_is_told(name: str, meant: str | None, caplog: pytest.LogCaptureFixture) -> None:
    """Else it would be another cluster that is worked on."""
    load(environment={name: "hunter2"})
    told = f"the variable {name} is read by nobody: did you mean {meant}?"
    assert [record.getMessage() for record in caplog.records] == ([told] if meant else [])


def test_settings_of_two_names_count_once() -> None:
    Path("f").write_text("sasl.mechanisms=PLAIN\nmetadata.broker.list=h:1\n")
    found = load(of_command("sasl.mechanism=GSSAPI"), config_file="f", environment={}).connection(OWN)
    assert found.config == {"client.id": "app", "sasl.mechanism": "GSSAPI"}
    assert found.bootstrap_servers == "h:1"
    own = Connection(bootstrap_servers="app:1", config={"sasl.mechanisms": "PLAIN"})
    assert load(of_command("sasl.mechanism=GSSAPI"), environment={}).connection(own).config == {
        "sasl.mechanism": "GSSAPI"
    }


@pytest.mark.parametrize(
    ("weaker", "stronger"),
    [
        ({"ssl.ca.pem": "old"}, {"ssl.ca.location": "new"}),
        (
            {"ssl.certificate.location": "old", "ssl.key.location": "old"},
            {"ssl.certificate.pem": "new", "ssl.key.pem": "new"},
        ),
        ({"ssl.certificate.pem": "old", "ssl.key.pem": "old"}, {"ssl.keystore.location": "new"}),
        ({"ssl.keystore.location": "old"}, {"ssl.certificate.location": "new", "ssl.key.location": "new"}),
        ({"https.ca.location": "old"}, {"https.ca.pem": "new"}),
        ({"oauth_cb": "old:f"}, {"sasl.oauthbearer.method": "oidc"}),
        ({"sasl.oauthbearer.method": "oidc"}, {"enable.sasl.oauthbearer.unsecure.jwt": "true"}),
        ({"enable.sasl.oauthbearer.unsecure.jwt": "true"}, {"oauth_cb": "new:f"}),
        ({"sasl.oauthbearer.assertion.private.key.file": "old"}, {"sasl.oauthbearer.assertion.private.key.pem": "new"}),
        ({"sasl.oauthbearer.assertion.private.key.pem": "old"}, {"sasl.oauthbearer.assertion.file": "new"}),
    ],
)
def test_of_several_ways_to_one_thing_the_stronger_counts(weaker: dict[str, str], stronger: dict[str, str]) -> None:
    """librdkafka would trust both authorities, refuse two keys, and call the callback of the app."""
    Path("f").write_text("".join(f"{key}={value}\n" for key, value in {"client.id": "c", **weaker}.items()))
    given = of_command(*(f"{key}={value}" for key, value in stronger.items()))
    own = Connection(bootstrap_servers="h:1", config=weaker)
    expected = {"client.id": "c", **stronger}
    assert load(given, config_file="f", environment={}).connection(own).config == expected


@pytest.mark.parametrize(
    ("file", "command", "user"),
    [
        ("sasl.username=shop\nsasl.password=${env:PW}\n", (), "shop:${env:PW}"),
        ("sasl.username=shop\n", ("sasl.password=x",), "shop:x"),
        ("sasl.username=shop\nsasl.password=x\n", ("basic.auth.user.info=a:b",), "a:b"),
        ("sasl.username=shop\nsasl.password=x\n", ("schema.registry.url=http://a:b@r",), "a:b"),
        ("sasl.username=shop\nsasl.password=x\nbasic.auth.user.info=a:b\n", (), "shop:x"),
        (
            "sasl.jaas.config=a.ScramLoginModule required username='shop' password='x';\n",
            (),
            "shop:x",
        ),
    ],
)
def test_who_asks_the_registry_may_be_who_speaks_to_kafka(file: str, command: tuple[str, ...], user: str) -> None:
    source = "schema.registry.url=http://r\nbasic.auth.credentials.source=SASL_INHERIT\n"
    Path("f").write_text(source + file)
    kan = Kantoku("n")
    kan.configure(load(of_command(*command), config_file="f", environment={}))
    assert kan.registry is not None
    assert kan.registry.settings["schema.registry.basic.auth.user.info"] == user
    assert "schema.registry.basic.auth.credentials.source" not in kan.registry.settings


def test_who_is_to_ask_the_registry_as_nobody_is_told_so() -> None:
    Path("f").write_text("schema.registry.url=http://r\nbasic.auth.credentials.source=SASL_INHERIT\n")
    with pytest.raises(UsageError, match=r"takes sasl\.username and sasl\.password.* basic\.auth\.user\.info="):
        Kantoku("n").configure(load(config_file="f", environment={}))


def test_a_registry_whose_stronger_url_names_a_user_needs_no_weaker_one() -> None:
    Path("f").write_text("schema.registry.url=http://old\nbasic.auth.user.info=old:pw\nschema.registry.timeout=3\n")
    kan = Kantoku("n", codec=RegistryCodec(Registry("http://app")))
    kan.configure(load(of_command("schema.registry.url=http://new:pw@host"), config_file="f", environment={}))
    assert kan.registry is not None and kan.registry.settings == {
        "schema.registry.url": "http://host",
        "schema.registry.basic.auth.user.info": "new:pw",
        "schema.registry.timeout": "3",
    }
    found = load(of_command("schema.registry.url=http://host/@"), config_file="f", environment={})
    assert found.registry["basic.auth.user.info"].value == "old:pw"


def test_an_app_from_the_same_places(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("kantoku.toml").write_text(TOML)
    monkeypatch.setenv("KANTOKU_KAFKA_CLIENT_ID", "env")
    kan = Kantoku.from_config("shop", profile="prod", config={"client.rack": "r"})
    assert (kan.namespace, kan.connection.bootstrap_servers) == ("prod", "prod:1")
    assert kan.connection.config["client.rack"] == "r" and kan.connection.config["client.id"] == "prod"


def test_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW", "a${env:PW}b")
    (tmp_path / "pw").write_bytes(b"secret\r\n\n")
    (tmp_path / "pws").write_text("a = 1\nb: 2\\u0033\n")
    assert resolved("k", "x${env:PW}y") == "xa${env:PW}by"
    assert resolved("k", f"${{file:{tmp_path}/pw}}") == "secret\r\n"
    assert resolved("k", f"${{file:{tmp_path}/pws:b}}") == "23"
    assert resolved("k", "a$b${c}{d:e}$") == "a$b${c}{d:e}$"
    assert resolved("k", 3) == 3
    for wrong in ("${env:NO}", f"${{file:{tmp_path}/pws:c}}", f"${{file:{tmp_path}/no}}", "${vault:x}", "${file:\0}"):
        with pytest.raises(UsageError, match=r"^k"):
            resolved("k", wrong)


def test_the_profiles_of_the_documentation_are_profiles() -> None:
    page = Path(__file__).parents[2] / "docs/howto/configuration.md"
    (text,) = re.findall(r"```toml\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    Path("kantoku.toml").write_text(text)
    found = load(profile="prod", environment={})
    assert found.kafka["sasl.password"].value == "${file:/run/secrets/kafka-password}"
    assert found.topics["results"].value == "platform.shop-results"
