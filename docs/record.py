"""Records what commands print on a terminal of 80 columns, into docs/screens.md: ``make screens``."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kantoku_kafka.dev import EmbeddedBroker

PAGE = Path(__file__).parent / "screens.md"
APP = """
import time

from kantoku_kafka import Kantoku

kan = Kantoku("shop")


@kan.task("resize")
def resize(data: bytes) -> bytes:
    if data == b"broken":
        raise ValueError("this is no picture")
    time.sleep(0.01)
    return data.upper()


@kan.task("report")
def report(data: bytes) -> bytes:
    time.sleep(4)
    return data
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch, EmbeddedBroker() as broker:
        here = Path(scratch)
        (here / "app.py").write_text(APP, "utf-8")
        environment = {
            **os.environ,
            "COLUMNS": "80",
            "KANTOKU_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
            "KANTOKU_NAMESPACE": "shop",
            "KANTOKU_LOG_LEVEL": "error",
            "XDG_CACHE_HOME": scratch,
        }

        def run(*arguments: str) -> str:
            command = [sys.executable, "-m", "kantoku_kafka", *arguments]
            done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=False)
            return done.stdout.strip("\n").replace(f"{PAGE.parents[1]}/", "").replace(f"{scratch}/", "")

        run("topics", "create", "app:kan", "--yes")
        command = [sys.executable, "-m", "kantoku_kafka", "run-executor", "app:kan"]
        executors = [subprocess.Popen(command, cwd=here, env=environment) for _ in range(2)]
        try:
            run("spawn", "resize", "holiday", "--count", "20", "--wait", "-t", "30")
            failed = run("spawn", "resize", "broken", "-l", "customer=7")
            run("result", failed, "-t", "30")
            again = run("tasks", "restart", failed, "-o", "jsonl").split('"')[-2]
            run("result", again, "-t", "30")
            run("spawn", "report", "monthly", "--count", "40")
            run("spawn", "resize", "holiday", "--count", "20000")
            time.sleep(5)  # a heartbeat later
            screens = {
                "top": run("top", "--times", "1"),
                "executors": run("executors"),
                "lag": run("lag"),
                "tasks list --limit 5": run("tasks", "list", "--limit", "5"),
                f"tasks show {again}": run("tasks", "show", again),
            }
        finally:
            for executor in executors:
                executor.terminate()
            for executor in executors:
                executor.wait()
        screens["demo"] = run("demo", "-n", "demo")
    lines = ["# What it looks like", "", "On a terminal of 80 columns; recorded by `make screens`.", ""]
    for command_line, screen in screens.items():
        lines += [f"## {command_line.split()[0]} {command_line.split()[1] if ' ' in command_line else ''}".rstrip(), ""]
        lines += ["```text", f"$ kantoku-kafka -n shop {command_line}", screen, "```", ""]
    PAGE.write_text("\n".join(line.rstrip() for line in "\n".join(lines).split("\n")), "utf-8")


if __name__ == "__main__":
    main()
