"""A file of settings in another form: what is read back is the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kantoku_kafka.cli import main as cli
from kantoku_kafka.configuration.java import Setting
from kantoku_kafka.configuration.sources import Configuration, read_file
from kantoku_kafka.configuration.writing import Form, converted
from kantoku_kafka.errors import UsageError

PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
WORDS = st.from_regex(r"[A-Za-z0-9/._-]{1,12}", fullmatch=True)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def again(settings: dict[str, str], form: Form) -> dict[str, object]:
    """Written in a form and read back."""
    given = Configuration(kafka={key: Setting(value, "f:1") for key, value in settings.items()})
    path = Path("f.toml" if form is Form.TOML else "f")
    path.write_text(converted(given, form, "p", resolve=False)[0], "utf-8")
    return {key: setting.value for key, setting in read_file(path, "p").kafka.items()}


PASSWORDS = st.fixed_dictionaries(
    {"sasl.mechanism": st.sampled_from(["PLAIN", "SCRAM-SHA-512"]), "sasl.username": VALUES, "sasl.password": VALUES}
)
KERBEROS = st.fixed_dictionaries({"sasl.kerberos.keytab": WORDS, "sasl.kerberos.principal": VALUES})
OIDC = st.fixed_dictionaries(
    {
        "sasl.mechanism": st.just("OAUTHBEARER"),
        "sasl.oauthbearer.method": st.just("oidc"),
        "sasl.oauthbearer.token.endpoint.url": st.just("https://idp/token"),
    },
    optional={
        "sasl.oauthbearer.client.id": VALUES,
        "sasl.oauthbearer.client.secret": VALUES,
        "sasl.oauthbearer.scope": VALUES,
        "sasl.oauthbearer.extensions": st.just("a=b,c=d"),
        "sasl.oauthbearer.grant.type": st.just("urn:ietf:params:oauth:grant-type:jwt-bearer"),
        "sasl.oauthbearer.assertion.private.key.file": WORDS,
        "sasl.oauthbearer.assertion.jwt.template.file": WORDS,
    },
)
FILES = WORDS.map(lambda path: {"ssl.certificate.location": path, "ssl.key.location": path})
INLINE = st.just({"ssl.certificate.pem": 2 * PEM, "ssl.key.pem": PEM.replace("CERTIFICATE", "PRIVATE KEY")})
STORE = st.fixed_dictionaries({"ssl.keystore.location": WORDS, "ssl.keystore.password": VALUES})
NONE: st.SearchStrategy[dict[str, str]] = st.just({})
SETTINGS = st.tuples(
    st.fixed_dictionaries(
        {"bootstrap.servers": st.just("h:1")},
        optional={
            "client.id": WORDS,
            "ssl.endpoint.identification.algorithm": st.sampled_from(["none", "https"]),
            "fetch.wait.max.ms": st.just("100"),
            "queue.buffering.max.kbytes": st.just("1024"),
            "partition.assignment.strategy": st.sampled_from(["range", "cooperative-sticky,roundrobin"]),
        },
    ),
    PASSWORDS | KERBEROS | OIDC | NONE,
    FILES | INLINE | STORE | NONE,
    st.sampled_from([{"ssl.ca.location": "/ca.pem"}, {"ssl.ca.pem": PEM}, {}]),
    st.fixed_dictionaries({}, optional={"ssl.key.password": VALUES}),
).map(lambda parts: {key: value for part in parts for key, value in part.items()})


@given(SETTINGS)
def test_what_is_written_for_java_is_read_as_it_was(settings: dict[str, str]) -> None:
    assert again(settings, Form.JAVA) == settings


def test_what_java_escapes_is_known_as_java() -> None:
    settings = {"ssl.key.password": "a\\é"}
    assert again(settings, Form.JAVA) == settings


@given(st.dictionaries(VALUES, VALUES, max_size=5))
def test_what_is_written_as_a_profile_is_read_as_it_was(pairs: dict[str, str]) -> None:
    settings = {f"x{key}": value for key, value in pairs.items()}
    assert again(settings, Form.TOML) == settings


@given(st.dictionaries(WORDS, VALUES.map(lambda value: " ".join(value.split())), max_size=5))
def test_what_is_written_for_librdkafka_is_read_as_it_was(pairs: dict[str, str]) -> None:
    settings = {f"x{key}": value for key, value in pairs.items()}
    assert again(settings, Form.LIBRDKAFKA) == settings


def convert(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main(["config", "convert", *arguments])
    shown = capsys.readouterr()
    return ended.value.code, shown.out, shown.err


def test_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW", "hunter2")
    Path("f").write_text(
        "sasl.jaas.config=a.PlainLoginModule required username='u' password='${env:PW}';\nmax.block.ms=1"
    )
    assert convert(capsys, "f") == (
        0,
        "sasl.username=u\nsasl.password=${env:PW}\n",
        "f: left out, for it changes nothing here: max.block.ms (f:2).\n",
    )
    code, text, notices = convert(capsys, "--resolve", "f")
    assert (code, text) == (0, "sasl.username=u\nsasl.password=hunter2\n")
    assert "secrets stand in the output as they are: sasl.password" in notices and "hunter2" not in notices
    code, text, notices = convert(capsys, "--to", "java", "f")
    assert "config.providers=env\n" in text and "EnvVarConfigProvider" in text
    code, text, notices = convert(capsys, "--to", "toml", "--profile", "a b", "f")
    Path("f.toml").write_text(text)
    assert read_file(Path("f.toml"), "a b").kafka["sasl.password"].value == "${env:PW}"


def test_a_profile_is_as_one_would_write_it(capsys: pytest.CaptureFixture[str]) -> None:
    Path("f").write_text(
        "bootstrap.servers=h:1\nacks=1\nenable.idempotence=true\nmax.in.flight=2\nsecurity.protocol=SSL\na.b=1\na.b.c=2\n"
    )
    code, text, notices = convert(capsys, "--to", "toml", "f")
    assert (code, text) == (
        0,
        '[profiles.default]\nbootstrap_servers = "h:1"\n\n[profiles.default.kafka]\nsecurity.protocol = "SSL"\n'
        'a.b = "1"\n"a.b.c" = "2"\n',
    )
    assert "f: left out, for they do not count here: acks (a record counts only " in notices
    assert "max.in.flight" in notices and "enable.idempotence" not in notices
    Path("f.toml").write_text(text)
    found = {key: setting.value for key, setting in read_file(Path("f.toml")).kafka.items()}
    assert found == {"bootstrap.servers": "h:1", "security.protocol": "SSL", "a.b": "1", "a.b.c": "2"}


DOTTED = st.lists(st.sampled_from("abA-_0é"), min_size=1, max_size=30).map(".".join)


@given(st.dictionaries(DOTTED, WORDS, max_size=5), st.dictionaries(DOTTED, WORDS, max_size=2))
def test_keys_of_which_one_begins_as_another(pairs: dict[str, str], more: dict[str, str]) -> None:
    settings = {**pairs, **{f"{key}.{tail}": value for key in pairs for tail, value in more.items()}}
    assert again(settings, Form.TOML) == settings


@pytest.mark.parametrize("form", Form)
def test_the_registry_is_kept(form: Form) -> None:
    Path("g").write_text("schema.registry.url=http://r\nbasic.auth.user.info=u:${env:PW}\nclient.id=a\n")
    given = read_file(Path("g"))
    path = Path("f.toml" if form is Form.TOML else "f")
    path.write_text(converted(given, form, "p", resolve=False)[0])
    registry = read_file(path, "p").registry
    assert {name: setting.value for name, setting in registry.items()} == {
        "url": "http://r",
        "basic.auth.user.info": "u:${env:PW}",
    }


@pytest.mark.parametrize(
    ("settings", "form", "words"),
    [
        ({"ssl.ca.pem": PEM}, Form.LIBRDKAFKA, "--to toml"),
        ({"ssl.certificate.location": "a", "ssl.key.location": "b"}, Form.JAVA, "cat CERTIFICATE KEY"),
    ],
)
def test_what_a_form_cannot_hold(settings: dict[str, str], form: Form, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        again(settings, form)


def test_what_java_does_not_have_is_told() -> None:
    given = Configuration(
        kafka={key: Setting("${file:/x}", "f:1") for key in ("debug", "oauth_cb", "ssl.key.password")},
        namespace=Setting("n", "f"),
    )
    _, notices = converted(given, Form.JAVA, "p", resolve=False)
    assert "left out: namespace and topics stand in profiles only" in notices
    assert "left out, for Java has no such setting: debug, oauth_cb" in notices
    assert any("${file:/path:key}" in notice for notice in notices)
