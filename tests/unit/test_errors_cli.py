"""What an error becomes on the command line, and where global options may stand."""

from __future__ import annotations

import inspect
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from kantoku_kafka import errors
from kantoku_kafka.cli import main as cli
from kantoku_kafka.cli.output import one_line, printable, table
from kantoku_kafka.cli.reload import watch_files
from kantoku_kafka.cli.tasks import data_of
from kantoku_kafka.configuration.sources import command_line
from kantoku_kafka.errors import KantokuError, UsageError
from kantoku_kafka.loading import load_app

CODES = {
    "KantokuError": 1,
    "UsageError": 2,
    "SlotTaken": 2,
    "BrokerUnavailable": 3,
    "RegistryUnavailable": 3,
    "AccessDenied": 4,
    "NotFound": 5,
    "WaitTimeout": 6,
    "TopicMismatch": 7,
    "EnvelopeError": 7,
    "SignatureError": 7,
    "SpawnError": 1,
    "QueueFull": 1,
    "TaskTooLarge": 1,
}
KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, KantokuError)]


def exit_code(*arguments: str) -> object:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    return ended.value.code


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_has_its_documented_code(
    kind: type[KantokuError], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise kind("Say what to do.")

    monkeypatch.setattr(cli, "app", fail)
    assert exit_code() == kind.exit_code == CODES[kind.__name__]
    assert capsys.readouterr() == ("", "error: Say what to do.\n")


@pytest.mark.parametrize(("raised", "code"), [(KeyboardInterrupt(), 130), (typer.Abort(), 130)])
def test_an_interrupt_is_130(raised: BaseException, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(cli, "app", interrupt)
    assert exit_code() == code


@pytest.mark.parametrize("code", [0, 1, 143])
def test_a_commands_own_code_is_kept(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "app", lambda *_, **__: code)
    assert exit_code() == code
    monkeypatch.setattr(cli, "app", lambda *_, **__: None)
    assert exit_code() == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["spawn"],
        ["spawn", "t", "--no-such-option"],
        ["spawn", "t", "-X", "no-equals"],
        ["--log-level", "loud", "spawn", "t"],
        ["-b", "nowhere", "spawn", "t"],
        ["run-executor", "nonsense"],
        ["run-executor", "no_such_module:kan"],
        ["run-executor", "json:dumps"],
        ["demo", "-o", "xml"],
        ["spawn", "t", "@/no/such/file"],
    ],
    ids=" ".join,
)
def test_wrong_use_is_2_and_says_so_on_stderr(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(*arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.strip()
    assert "Traceback" not in shown.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["tasks", "show", "\udcff"],
        ["tasks", "list", "--text", "\udcff"],
        ["-n", "\udcff", "tasks", "list"],
        ["schedules", "add", "\udcff", "t", "--every", "1s"],
        ["spawn", "t", "a\udcffb"],
        ["-X", "sasl.password=hunter2\udcff", "lag"],
    ],
    ids=ascii,
)
def test_an_argument_that_is_not_utf_8_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(*arguments) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert "is not UTF-8" in shown.err and ("\\udcff" in shown.err or "sasl.password=" in shown.err)
    assert "hunter2" not in shown.err


def test_a_payload_may_be_any_bytes_by_file_or_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "payload").write_bytes(b"a\xffb")
    assert data_of(f"@{tmp_path / 'payload'}") == b"a\xffb"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\xffb")))
    assert data_of("-") == b"a\xffb"


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        (["spawn", "t", "-b", "h:1"], ["-b", "h:1", "spawn", "t"]),
        (["spawn", "t", "--namespace=shop", "-k", "7"], ["--namespace=shop", "spawn", "t", "-k", "7"]),
        (["-b", "h:1", "spawn", "-X", "a=b", "t", "-X", "c=d"], ["-b", "h:1", "-X", "a=b", "-X", "c=d", "spawn", "t"]),
        (["spawn", "t", "--", "-b", "data"], ["spawn", "t", "--", "-b", "data"]),
        (["spawn", "-n", "shop", "--", "-n"], ["-n", "shop", "spawn", "--", "-n"]),
        (["spawn", "t", "-b"], ["-b", "spawn", "t"]),
        ([], []),
    ],
)
def test_globals_first(given_: list[str], expected: list[str]) -> None:
    assert cli._globals_first(given_) == expected


WORDS = st.sampled_from(["spawn", "t", "-k", "--wait", "-b", "-n", "-X", "--namespace=x", "--log-level", "--", "a=b"])


@given(st.lists(WORDS, max_size=12))
def test_no_argument_is_lost_or_made_up(arguments: list[str]) -> None:
    moved = cli._globals_first(arguments)
    assert sorted(moved) == sorted(arguments)
    assert any(
        is_subsequence(moved[:split], arguments) and is_subsequence(moved[split:], arguments)
        for split in range(len(moved) + 1)
    ), "what moved and what stayed each keep their order"


def is_subsequence(part: list[str], whole: list[str]) -> bool:
    rest = iter(whole)
    return all(argument in rest for argument in part)


def test_settings_keep_what_follows_the_first_equals() -> None:
    found = command_line(["a=b=c", "d="], bootstrap_servers=None, namespace=None).kafka
    assert {key: setting.value for key, setting in found.items()} == {"a": "b=c", "d": ""}
    with pytest.raises(UsageError, match="KEY=VALUE"):
        command_line(["=x"], bootstrap_servers=None, namespace=None)


def test_nothing_from_a_topic_steers_the_terminal() -> None:
    assert printable("a\x1b[31mb\tc\nd\x00\u202e") == "a\ufffd[31mb\tc\nd\ufffd\ufffd"
    assert one_line("a\n b\r\x1b") == "a  b\ufffd\ufffd"


def test_a_narrow_terminal_still_tells_one_error_from_another(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    identity = "01a227ab-bb85-77a2-ab88-e2511dd8259f"
    row = {"letter": "0:0", "id": identity, "type": "greet", "failed_at": "2026-11-29T14:18:17"}
    table([{**row, "error": "signature_expired: " + "too late " * 20}], "table")
    printed = capsys.readouterr().out
    assert identity in printed
    assert "signature_expir\N{HORIZONTAL ELLIPSIS}" in printed
    assert "too late" not in printed


def test_what_a_list_holds_has_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[dict[str, object]] = [
        {"topic": "a", "problems": ["too\nshort", "lost"], "state": "wrong"},
        {"topic": "b", "problems": [], "state": "ok"},
    ]
    table(rows, "table", wrapped=True)
    shown = ["topic  problems   state", "a      too short  wrong", "       lost", "b                 ok"]
    assert capsys.readouterr().out.splitlines() == shown
    table(rows, "jsonl")
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == rows


@pytest.mark.parametrize("reference", ["", "module", "module:", ":kan", "kantoku_kafka.demo.tasks:no_such"])
def test_what_names_no_app_is_said(reference: str) -> None:
    with pytest.raises(UsageError):
        load_app(reference)


def test_no_app_is_made_by_the_command_line_itself(tmp_path: Path) -> None:
    """An app reads the environment: what is wrong there is told by the commands that need it, and by a sentence."""
    command = [sys.executable, "-m", "kantoku_kafka"]
    environment = {**os.environ, "KANTOKU_SEAL": str(tmp_path / "missing.toml")}
    version = subprocess.run([*command, "--version"], env=environment, capture_output=True, timeout=60)
    assert (version.returncode, version.stderr) == (0, b"")
    spawn = subprocess.run([*command, "spawn", "t"], env=environment, capture_output=True, timeout=60)
    assert spawn.returncode == 2 and spawn.stderr.startswith(b"error: KANTOKU_SEAL: "), spawn.stderr


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(UsageError, match=r"pip install 'kantoku-kafka\[reload\]'"):
        watch_files(lambda: None)
