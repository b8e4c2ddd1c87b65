"""What ``acls`` and ``topics`` print without a broker, and what they cannot be told."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from kantoku_kafka.cli import main as cli

APP = "as_code_app:kan"


@pytest.fixture(autouse=True)
def _app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = 'from kantoku_kafka import Kantoku\nkan = Kantoku("shop")\n@kan.task("resize")\ndef resize(data): ...\n'
    (tmp_path / "as_code_app.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "as_code_app", raising=False)


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    streams = capsys.readouterr()
    assert ended.value.code == code, streams.err
    return streams.out if code == 0 else streams.err


def test_a_principal_with_two_roles_is_one_user(capsys: pytest.CaptureFixture[str]) -> None:
    both = ["--principal", "spawner=User:web", "--principal", "observer=User:web"]
    (user,) = yaml.safe_load_all(
        printed(capsys, "acls", "plan", APP, *both, "--emit", "strimzi", "--cluster", "prod", "-n", "team")
    )
    operations = {acl["resource"]["name"]: acl["operations"] for acl in user["spec"]["authorization"]["acls"]}
    assert operations["team.tasks.resize"] == ["DescribeConfigs", "Read", "Write"]
    assert operations["team.executors"] == ["Describe"]
    assert user["metadata"]["labels"] == {"strimzi.io/cluster": "prod"}


def test_topics_are_printed_without_a_broker(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "topics", "plan", APP, "-p", "6", "--emit", "strimzi", "-b", "127.0.0.1:1")
    (first, *_) = yaml.safe_load_all(text)
    assert (first["spec"]["topicName"], first["spec"]["partitions"], first["spec"]["replicas"]) == (
        "shop.tasks.resize",
        6,
        3,
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--emit", "terraform"], "--principal spawner=User:NAME"),
        (["--principal", "worker"], "not 'worker'"),
        (["--principal", "boss=User:x"], "roles spawner, executor"),
        (["--principal", "executor=x"], "ROLE=User:NAME"),
        (["--principal", "executor=User:a\nb"], "ROLE=User:NAME"),
        (["--reads", "no topic"], "--reads takes TOPIC"),
        (["--writes", "boss=topic"], "--writes takes TOPIC"),
        (["--principal", "executor=User:X", "--emit", "strimzi"], "no user of Strimzi's"),
    ],
)
def test_what_cannot_be_meant(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = printed(capsys, "acls", "plan", APP, *arguments, code=2)
    assert words in told and told.count("\n") == 1
