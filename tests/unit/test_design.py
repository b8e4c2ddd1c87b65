"""The file map of docs/design.md names each module once, and none that is not there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def mapped() -> list[str]:
    """The names of the first column; one without a folder stands in the folder before it."""
    (section,) = re.findall(r"^## File map\n(.*?)^## ", (ROOT / "docs" / "design.md").read_text("utf-8"), re.M | re.S)
    found = []
    for row in re.findall(r"^\| (`.*?`) \|", section, re.M):
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
