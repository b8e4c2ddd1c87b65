"""The programs that check what stands in deploy/: this machine's, else fetched once into the cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from kantoku_kafka.dev.distribution import default_cache_dir, locked

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
_FETCH_SECONDS = 240

_DEBIAN = {"prometheus": "prometheus", "promtool": "prometheus"}
_GO = {
    "compose-spec": "github.com/compose-spec/compose-go/v2/cmd@v2.16.2",
    "hclfmt": "github.com/hashicorp/hcl/v2/cmd/hclfmt@v2.25.0",
    "kustomize": "sigs.k8s.io/kustomize/kustomize/v5@v5.7.1",
}


def tool(name: str) -> str:
    """The path of a program. Without it the test is skipped, or with CI set fails."""
    found = shutil.which(name)
    try:
        return found or str(_fetched(name))
    except (OSError, subprocess.SubprocessError, KeyError) as error:
        if os.environ.get("CI"):
            pytest.fail(f"{name} is not here and could not be fetched: {error!r}")
        pytest.skip(f"needs {name}")


def check(*command: str | Path, **more: object) -> str:
    """Run a command to its end; answers what it printed, fails with all of it."""
    done = subprocess.run(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
        **more,  # type: ignore[call-overload]  # passed through
    )
    assert done.returncode == 0, f"{command[0]}: {done.stdout}"
    return str(done.stdout)


def _fetched(name: str) -> Path:
    folder = default_cache_dir() / "tools"
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / name
    with locked(folder / "lock"):
        if not program.exists():
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                source = _from_debian(name, Path(scratch)) if name in _DEBIAN else _from_go(name, Path(scratch))
                source.replace(program)
    return program


def _from_debian(name: str, scratch: Path) -> Path:
    download = ["apt-get", "-q", "download", _DEBIAN[name]]
    if subprocess.run(download, cwd=scratch, capture_output=True, timeout=_FETCH_SECONDS, check=False).returncode:
        subprocess.run(["apt-get", "-q", "update"], capture_output=True, timeout=_FETCH_SECONDS, check=True)
        subprocess.run(download, cwd=scratch, capture_output=True, timeout=_FETCH_SECONDS, check=True)
    (package,) = scratch.glob("*.deb")
    subprocess.run(["dpkg", "-x", package, scratch], capture_output=True, check=True)
    return scratch / "usr" / "bin" / name


def _from_go(name: str, scratch: Path) -> Path:
    environment = {**os.environ, "GOBIN": str(scratch), "GOFLAGS": ""}
    subprocess.run(
        ["go", "install", _GO[name]], env=environment, capture_output=True, timeout=_FETCH_SECONDS, check=True
    )
    (program,) = scratch.iterdir()
    return program
