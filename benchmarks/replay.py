"""The audit topic read by this program and by a hand-written loop, side by side in one run.

    python -m benchmarks.replay [-b HOST:PORT] [--tasks N] [--rounds N]

Four events a task. Each contestant is a process of its own; they take turns. Printed are medians, and the largest
resident set that any run of the contestant had.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from io import BytesIO

from confluent_kafka import Consumer, Producer, TopicPartition
from fastavro import schemaless_reader

from benchmarks.raw.codec import HEADER_BYTES, load
from kantoku_kafka import Kantoku
from kantoku_kafka.avro.codec import AvroCodec
from kantoku_kafka.dev import EmbeddedBroker
from kantoku_kafka.ids import TaskIds
from kantoku_kafka.kafka import topics
from kantoku_kafka.kafka.outputs import EventWriter
from kantoku_kafka.model import Source, Trail, now_us

PARTITIONS, CHUNK = 4, 2_000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replay", description=__doc__)
    parser.add_argument("-b", "--bootstrap-servers", help="default: an embedded broker is started")
    parser.add_argument("--tasks", type=int, default=250_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--raw", metavar="TOPIC", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.raw:
        raw(options.bootstrap_servers, options.raw)
        return
    with ExitStack() as ending:
        servers = options.bootstrap_servers
        if servers is None:
            servers = ending.enter_context(EmbeddedBroker()).bootstrap_servers
        scratch = ending.enter_context(tempfile.TemporaryDirectory())
        compare(servers, options.tasks, options.rounds, scratch)


def compare(servers: str, tasks: int, rounds: int, scratch: str) -> None:
    """Every contestant in turn, so many times."""
    kan = Kantoku(f"bench-{uuid.uuid4().hex[:8]}", bootstrap_servers=servers)
    topics.create(kan.clients, topics.plan(kan.topics, [], partitions=PARTITIONS))
    preload(kan, tasks)
    ours = [sys.executable, "-m", "kantoku_kafka", "-b", servers, "-n", kan.namespace, "--log-level", "error"]
    library = f"from kantoku_kafka import Kantoku\nfor _ in Kantoku({kan.namespace!r}).events.replay(): pass"
    contestants: dict[str, Sequence[str]] = {
        "raw loop, fastavro": [sys.executable, "-m", "benchmarks.replay", "-b", servers, "--raw", kan.topics.events],
        "kan.events.replay()": [sys.executable, "-c", library],
        "events replay > file": [*ours, "events", "replay", "--out", f"{scratch}/log.jsonl"],
        "events snapshot > file": [*ours, "events", "snapshot", "--out", f"{scratch}/tasks.jsonl"],
        "tasks list, first": [*ours, "tasks", "list"],
        "tasks list, again": [*ours, "tasks", "list"],
    }
    environment = {**os.environ, "KANTOKU_BOOTSTRAP_SERVERS": servers}
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    largest_mb = dict.fromkeys(contestants, 0.0)
    for number in range(rounds):
        environment["XDG_CACHE_HOME"] = f"{scratch}/{number}"
        for name, command in contestants.items():
            started = time.perf_counter()
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            seconds[name].append(time.perf_counter() - started)
            largest_mb[name] = max(largest_mb[name], usage.ru_maxrss / 1024)
            if process.returncode:
                raise SystemExit(f"{name} ended with exit code {process.returncode}")
    show(seconds, largest_mb, tasks, rounds)


def show(seconds: dict[str, list[float]], largest_mb: dict[str, float], tasks: int, rounds: int) -> None:
    """A table; ratios of rates, to the first row."""
    events = 4 * tasks
    reference = statistics.median(next(iter(seconds.values())))
    lines = [f"{events:,} events of {tasks:,} tasks, medians of {rounds} rounds, process start included", ""]
    lines.append(f"{'':24}{'seconds':>9}{'events/s':>12}{'ratio':>8}{'RSS MB':>9}")
    for name, values in seconds.items():
        took = statistics.median(values)
        rate = f"{events / took:>12,.0f}{reference / took:>8.2f}" if "tasks" not in name else f"{'':20}"
        lines.append(f"{name:24}{took:>9.2f}{rate}{largest_mb[name]:>9.0f}")
    sys.stdout.write("\n".join(lines) + "\n")


def preload(kan: Kantoku, tasks: int) -> None:
    """Four events for each task, in transactions as an executor writes them."""
    writer, ids = EventWriter(kan.topics.events, PARTITIONS, AvroCodec()), TaskIds()
    producer = Producer(
        {"bootstrap.servers": kan.connection.bootstrap_servers, "transactional.id": kan.namespace, "linger.ms": 20}
    )
    producer.init_transactions(30)
    start_us = now_us()
    for first in range(0, tasks, CHUNK):
        producer.begin_transaction()
        for number in range(first, min(tasks, first + CHUNK)):
            task_id, at_us = ids.new(), start_us + 10 * number
            source = Source(kan.topics.of_type("echo"), number % PARTITIONS, number // PARTITIONS, 3)
            ended = (
                ("received_task", at_us + 5_000, None, {}),
                ("executed_task", at_us + 9_000, None, {}),
                ("sent_outputs", at_us + 9_000, None, {"status": "FAILED" if number % 100 == 0 else "OK"}),
            )
            spawned = Trail(task_id, "echo", 1, None, None, [("spawned", at_us, None, {"label.shop": "x"})])
            for record in writer.prepare([spawned, Trail(task_id, "echo", 1, "host-123-abcdef", source, ended)]):
                producer.produce(*record)
        producer.commit_transaction(30)


def raw(servers: str, topic: str) -> None:
    """The hand-written loop: consume, decode."""
    schema, _ = load("Event")
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "raw",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "fetch.queue.backoff.ms": 5,
        }
    )
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    left = PARTITIONS
    while left:
        for message in consumer.consume(2_000, 0.1):
            if message.error():
                left -= 1
                continue
            body = BytesIO(message.value())
            body.seek(HEADER_BYTES)
            schemaless_reader(body, schema, None)
    consumer.close()


if __name__ == "__main__":
    main()
