"""All that fuzzing found worth keeping, and every crash it ever found, runs through its target."""

from __future__ import annotations

import pytest

from tests.fuzz.targets import CORPUS, TARGETS, seeds


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_survives_its_corpus(name: str) -> None:
    kept = [path.read_bytes() for path in (CORPUS / name).iterdir()]
    assert kept, f"no corpus of {name}"
    for data in (*seeds(name), *kept):
        TARGETS[name](data)
