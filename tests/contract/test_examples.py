"""The examples of own parts keep the contract, too."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kantoku_kafka.testing.contract import OutputsContract, OutputsRig

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from sqlite_outputs import SqliteOutputs


class TestSqlite(OutputsContract):
    @pytest.fixture
    def rig(self, tmp_path: Path) -> Iterator[OutputsRig]:
        outputs = SqliteOutputs(str(tmp_path / "results.db"))
        yield OutputsRig(outputs, commit=lambda: None, read=outputs.all)
        outputs.close()
