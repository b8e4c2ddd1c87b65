"""The client in ``schemas/README.md``, run as it stands there, against an executor."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from executors import ExecutorUnderTest

pytestmark = pytest.mark.unsecured("a client of an open broker")

ROOT = Path(__file__).parent.parent.parent


def test_a_client_that_knows_only_the_schemas(bootstrap: str, namespace: str, tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "schemas" / "README.md").read_text(encoding="utf-8"), re.S)
    client = tmp_path / "client.py"
    client.write_text(code, encoding="utf-8")
    command = [sys.executable, str(client), bootstrap, namespace, "echo", "grüße"]
    with ExecutorUnderTest(bootstrap, namespace, log=tmp_path / "log"):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "OK grüße\n", "")
