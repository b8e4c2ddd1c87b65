"""What pending timers, remembered ids and the reader of commands cost.

    python -m benchmarks.timers [-b HOST:PORT] [--timers N] [--data-bytes N]

Preloads so many timers that are due tomorrow, starts a scheduler, and measures how long it takes to have read them all
and what memory it has then. Then, in this process, what a million remembered ids take, and how much of a core the
reader of the control topic takes while nobody gives commands.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import ExitStack
from pathlib import Path

from confluent_kafka import Producer

from kantoku_kafka import Kantoku
from kantoku_kafka.avro.control import encode_timer
from kantoku_kafka.dev import EmbeddedBroker
from kantoku_kafka.engine.dedup import Memory
from kantoku_kafka.ids import TaskIds, idempotent_id
from kantoku_kafka.kafka import topics
from kantoku_kafka.kafka.commands import Commands
from kantoku_kafka.model import TaskEnvelope, Timer, now_us

PARTITIONS = 4
DAY_US = 86_400_000_000
IDS = 1_000_000
LISTEN_SECONDS = 20
PULSES = """
import sys, time
from confluent_kafka import Producer
servers, topic, executors = sys.argv[1], sys.argv[2], int(sys.argv[3])
producer = Producer({"bootstrap.servers": servers})
while True:  # each of them every 5 s
    for number in range(executors):
        producer.produce(topic, bytes(300), f"heartbeat/{number}")
        producer.poll(0)
        time.sleep(5 / executors)
    time.sleep(0 if executors else 5)
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.timers", description=__doc__)
    parser.add_argument("-b", "--bootstrap-servers", help="default: an embedded broker is started")
    parser.add_argument("--timers", type=int, default=1_000_000)
    parser.add_argument("--data-bytes", type=int, default=100)
    options = parser.parse_args()
    with ExitStack() as ending:
        servers = options.bootstrap_servers
        if servers is None:
            servers = ending.enter_context(EmbeddedBroker()).bootstrap_servers
        scratch = Path(ending.enter_context(tempfile.TemporaryDirectory()))
        rebuild(servers, options.timers, options.data_bytes, scratch)
        listen(servers)
    remember()


def rebuild(servers: str, timers: int, data_bytes: int, scratch: Path) -> None:
    """A scheduler that takes over so many pending timers."""
    kan = Kantoku(f"bench-{uuid.uuid4().hex[:8]}", bootstrap_servers=servers)
    topics.create(kan.clients, topics.plan(kan.topics, [], partitions=PARTITIONS))
    preload(kan, timers, data_bytes)
    (scratch / "bench_app.py").write_text("from kantoku_kafka import Kantoku\nkan = Kantoku('bench')\n")
    command = [sys.executable, "-m", "kantoku_kafka", "run-scheduler", "bench_app:kan", "-b", servers]
    with (scratch / "log").open("wb") as log:
        process = subprocess.Popen([*command, "-n", kan.namespace], cwd=scratch, stderr=log)
    while b"assigned" not in (scratch / "log").read_bytes():
        time.sleep(0.02)
    began = time.monotonic()
    largest = 0
    while (scratch / "log").read_bytes().count(b"are pending") < PARTITIONS:
        largest = max(largest, resident_bytes(process.pid))
        time.sleep(0.05)
    seconds = time.monotonic() - began
    largest = max(largest, resident_bytes(process.pid))
    process.terminate()
    process.wait()
    sys.stdout.write(
        f"{timers:,} pending timers of {data_bytes} bytes: read in {seconds:.1f} s, "
        f"at most {largest / 2**20:.0f} MiB resident\n"
    )


def preload(kan: Kantoku, timers: int, data_bytes: int) -> None:
    ids, codec, due_at_us = TaskIds(), kan.codec, now_us() + DAY_US
    producer = Producer(
        {"bootstrap.servers": kan.connection.bootstrap_servers, "partitioner": "murmur2_random", "linger.ms": 50}
    )
    data = os.urandom(data_bytes)
    for _ in range(timers):
        task_id = ids.new()
        task = codec.encode_task(TaskEnvelope(task_id, "later", data, due_at_us))
        timer = Timer(task_id, "later", 1, due_at_us, kan.topics.of_type("later"), task_id.encode(), task)
        while True:
            try:
                producer.produce(kan.topics.timers, encode_timer(timer), task_id)
                break
            except BufferError:
                producer.poll(0.1)
    if producer.flush(120):
        raise SystemExit("the broker did not take all timers")


def remember() -> None:
    """The ids of idempotency keys."""
    ids = [idempotent_id("bench", "t", str(n)) for n in range(IDS)]
    before, memory = resident_bytes(os.getpid()), Memory()
    began = time.monotonic()
    for offset, task_id in enumerate(ids):
        memory.is_duplicate(task_id, offset, DAY_US, 0)
    seconds = time.monotonic() - began
    grown = resident_bytes(os.getpid()) - before
    sys.stdout.write(f"{IDS:,} remembered ids: {grown / 2**20:.0f} MiB, {seconds / IDS * 1e6:.1f} µs each\n")


def listen(servers: str) -> None:
    """The reader of commands, beside executors that send heartbeats."""
    kan = Kantoku(f"bench-{uuid.uuid4().hex[:8]}", bootstrap_servers=servers)
    topics.create(kan.clients, topics.plan(kan.topics, []))
    for executors in (0, 100):
        pulses = subprocess.Popen([sys.executable, "-c", PULSES, servers, kan.topics.control, str(executors)])
        with Commands(kan.clients, kan.topics.control, lambda _: None):
            time.sleep(3)
            wall, cpu = time.monotonic(), time.process_time()
            time.sleep(LISTEN_SECONDS)
            share = (time.process_time() - cpu) / (time.monotonic() - wall)
        pulses.terminate()
        pulses.wait()
        sys.stdout.write(f"reader of commands, {executors} executors beside it: {100 * share:.2f} % of a core\n")


def resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        return 0


if __name__ == "__main__":
    main()
