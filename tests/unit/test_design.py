"""docs/design.md has a place for each module and a reason for each dependency, and for none that is not there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def section(title: str) -> str:
    (found,) = re.findall(rf"^## {title}\n(.*?)(?:^## |\Z)", (ROOT / "docs/design.md").read_text("utf-8"), re.M | re.S)
    return str(found)


def mapped() -> list[str]:
    """The names of the first column; one without a folder stands in the folder before it."""
    found = []
    for row in re.findall(r"^\| (`.*?`) \|", section("File map"), re.M):
        folder = ""
        for name in re.findall(r"`([\w/]+)`", row):
            folder = name[: name.rindex("/") + 1] if "/" in name else folder
            found.append(name if "/" in name else folder + name)
    return found


def test_the_file_map_is_complete() -> None:
    named = mapped()
    whole = tuple(name for name in named if name.endswith("/"))
    package = ROOT / "kantoku_kafka"
    modules = {
        str(path.relative_to(package).with_suffix("")) for path in package.rglob("*.py") if path.stem[:2] != "__"
    }
    assert sorted([*named, *(module for module in modules if module.startswith(whole))]) == sorted({*modules, *whole})


def test_each_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    needed = {"": project["dependencies"], **project["optional-dependencies"]}
    named = set()
    for extra, names in re.findall(r"^\| (?:`(\w+)`: )?(\w[^|`]*) \| ", section("Dependencies"), re.M):
        named |= {(extra, name) for name in names.split(", ")}
    released = {name for extra, name in named if extra != "dev"}
    wanted = {(extra, requirement.partition(">")[0]) for extra, all_ in needed.items() for requirement in all_}
    assert named - {("", "what")} == {(extra, name) for extra, name in wanted if extra != "dev" or name not in released}
