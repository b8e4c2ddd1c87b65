"""The command line as a whole: one word has one meaning, and help can be read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from kantoku_kafka.cli import main as cli


def commands(command: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """A command and all below it, each with the words by which it is called."""
    yield path, command
    for name, sub in getattr(command, "commands", {}).items():
        yield from commands(sub, *path, name)


ALL = dict(commands(typer.main.get_command(cli.app)))
GROUPS = [path for path, command in ALL.items() if hasattr(command, "commands")]


@pytest.mark.parametrize("path", GROUPS, ids=" ".join)
def test_no_help_of_a_list_is_cut(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        cli.main([*path, "-h"])
    listed = capsys.readouterr().out.partition("Commands:\n")[2].splitlines()
    assert listed and not [line for line in listed if line.endswith("...")]


def test_an_option_has_one_meaning() -> None:
    longs, flags = defaultdict(set), defaultdict(set)
    for command in ALL.values():
        for option in command.params:
            if option.param_type_name == "option":
                (long,) = [name for name in option.opts if name.startswith("--")][:1] or option.opts
                flags[long].add(option.is_flag)
                for short in option.opts:
                    longs[short].add(long)
    assert not {short: names for short, names in longs.items() if len(names) > 1}
    assert not [long for long, kinds in flags.items() if len(kinds) > 1]


def test_a_form_of_output_that_is_none_is_refused_before_anything_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    with_form = [path for path, command in ALL.items() if any("--output" in one.opts for one in command.params)]
    assert len(with_form) > 20
    for path in with_form:
        required = [one for one in ALL[path].params if one.param_type_name == "argument" and one.required]
        with pytest.raises(SystemExit) as ended:
            cli.main([*path, *("no.such:app" for _ in required), "-o", "xml"])
        told = capsys.readouterr().err
        assert ended.value.code == 2 and told.startswith("error: -o takes ") and told.endswith(", not 'xml'.\n"), path
