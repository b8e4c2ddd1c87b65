"""Which of several settings counts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unsecured("has settings of its own")

NOBODY = "127.0.0.1:9"  # the discard port: nothing listens there


@pytest.mark.parametrize(
    ("options", "environment", "is_reached"),
    [
        ((), "broker", True),
        (("-X", f"bootstrap.servers={NOBODY}"), "broker", False),
        (("-F", "nobody.properties"), "broker", False),
        (("-F", "nobody.properties", "-X", "bootstrap.servers=BROKER"), NOBODY, True),
        (("-b", "BROKER", "-X", f"bootstrap.servers={NOBODY}"), NOBODY, True),
    ],
)
def test_what_is_said_of_a_command_counts_more_than_the_environment(
    bootstrap: str, tmp_path: Path, options: tuple[str, ...], environment: str, is_reached: bool
) -> None:
    """Else `dlq purge` would empty another cluster than the one that was named."""
    (tmp_path / "nobody.properties").write_text(f"bootstrap.servers={NOBODY}\n")
    given = [option.replace("BROKER", bootstrap) for option in options]
    variables = {**os.environ, "KANTOKU_BOOTSTRAP_SERVERS": environment.replace("broker", bootstrap)}
    command = [sys.executable, "-m", "kantoku_kafka", *given, "-n", "nothing-there", "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=variables, timeout=60)
    assert (done.returncode != 3) is is_reached, done.stdout + done.stderr
