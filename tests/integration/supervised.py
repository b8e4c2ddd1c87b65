"""Run by the tests of the supervisor: as the one who supervises, ``COUNT BURST WORD...``, or as who is supervised.

A supervised one writes its number and the first line of the file in its last word to stdout, and does as that says.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from pathlib import Path

from kantoku_kafka.cli.lifeline import LIFELINE, Lifeline
from kantoku_kafka.cli.reload import on_hangup
from kantoku_kafka.cli.supervisor import Supervisor


def supervise() -> int:
    logging.basicConfig(level=logging.INFO)
    count, burst, *command = sys.argv[1:]
    supervisor = Supervisor(command, int(count), 0.5, burst=burst == "burst")
    on_hangup(supervisor.reload)
    return supervisor.run()


def tell(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def work() -> int:
    lifeline, word = Lifeline(), Path(sys.argv[-1]).read_text().strip()
    tell(f"{word} {lifeline.number}")
    if word == "hang":
        time.sleep(600)
    lifeline.ready()
    if word == "end":
        return 0
    if word == "fail" and lifeline.number == 0:
        return 1
    signal.signal(signal.SIGUSR1, lambda *_: tell(f"told {lifeline.number}"))
    while True:
        signal.pause()


if __name__ == "__main__":
    sys.exit(work() if LIFELINE in os.environ else supervise())
