"""``python -m tests.fuzz --seconds 60``: every target for so long, guided by coverage; what fails is kept.

The corpus grows in ``tests/fuzz/corpus``; what made a target fail is written to ``tests/fuzz/found``, and belongs into
the corpus once it is mended: the unit tests go through all of it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import atheris

FOLDER = Path(__file__).parent
_RUNS = "stat::number_of_executed_units:"


def main() -> int:
    """The exit code is 1 if a target failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("targets", nargs="*", help="default: all")
    parser.add_argument("--seconds", type=int, default=10, help="for each")
    parser.add_argument("--corpus", type=Path, default=FOLDER / "corpus", help="grows")
    parser.add_argument("--smaller", action="store_true", help="then keep of it only what covers something")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments, rest = parser.parse_known_args()
    if arguments.one:
        return _fuzz(arguments.one, [sys.argv[0], *arguments.targets, *rest])
    from tests.fuzz.targets import TARGETS, seeds

    failed = []
    for name in arguments.targets or TARGETS:
        corpus = arguments.corpus / name
        corpus.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds(name)):
            (corpus / f"seed-{number}").write_bytes(seed)
        found = FOLDER / "found"
        found.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "tests.fuzz", "--one", name, str(corpus), f"-artifact_prefix={found}/{name}-"]
        limits = [f"-max_total_time={arguments.seconds}", "-max_len=4096", "-timeout=5", "-verbosity=0"]
        ended = subprocess.run([*command, *limits, "-print_final_stats=1"], capture_output=True, text=True)
        runs = next((line.split()[-1] for line in ended.stderr.splitlines() if line.startswith(_RUNS)), "?")
        print(
            f"{name}: {runs} inputs, {len(list(corpus.iterdir()))} kept: {'ok' if ended.returncode == 0 else 'FAILED'}"
        )
        if ended.returncode != 0:
            print(ended.stderr[-3_000:])
            failed.append(name)
    return 1 if failed else 0


def _fuzz(name: str, options: list[str]) -> int:
    with atheris.instrument_imports(include=["kantoku_kafka", "cronsim"]):
        from tests.fuzz.targets import TARGETS

    atheris.Setup(options, TARGETS[name])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
