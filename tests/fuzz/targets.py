"""What is fuzzed: each target takes any bytes, and raises for a bug alone."""

from __future__ import annotations

import base64
import json
import shlex
import tempfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout, suppress
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import Any

import typer

from kantoku_kafka.avro.codec import AvroCodec
from kantoku_kafka.avro.control import (
    decode_command,
    decode_heartbeat,
    decode_schedule,
    decode_schedule_state,
    decode_timer,
)
from kantoku_kafka.cli.main import _ClickException, _globals_first, app
from kantoku_kafka.cli.times import parse_future, parse_time_us
from kantoku_kafka.configuration.sources import command_line, read_file
from kantoku_kafka.engine import doneset
from kantoku_kafka.engine.foreign import ForeignReader
from kantoku_kafka.engine.recurrence import Recurrence
from kantoku_kafka.engine.reply import Replies
from kantoku_kafka.engine.retry import Retry
from kantoku_kafka.errors import EnvelopeError, KantokuError, UsageError
from kantoku_kafka.formats import CloudEvents, Format, Json, Raw
from kantoku_kafka.job import Job, Partition
from kantoku_kafka.kafka.membership import Membership
from kantoku_kafka.model import Result, Schedule, Status
from kantoku_kafka.names import Topics
from kantoku_kafka.settings import Connection

__all__ = ["CORPUS", "TARGETS", "seeds"]

CORPUS = Path(__file__).parent / "corpus"
"""A folder for each target."""

_CODEC = AvroCodec()
_GOLDEN = Path(__file__).parents[2] / "schemas" / "golden"
_PLACE, _OFFSET = "topic/0", 1_000


def _decoder(decode: Callable[[bytes], object]) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        with suppress(EnvelopeError):
            decode(data)

    return run


def _task(data: bytes) -> None:
    """The quick look and the whole one agree."""
    try:
        task_id, kind, payload, attempt, envelope = _CODEC.peek_task(data)
    except EnvelopeError:
        assert not _is_task(data), "the quick look refuses what can be read"
        return
    whole = _CODEC.decode_task(data)
    assert (task_id, kind, payload, attempt) == (whole.id, whole.type, whole.data, whole.attempt)
    assert envelope in (None, whole)
    assert _CODEC.decode_task(_CODEC.encode_task(whole)) == whole
    for raw in whole.options.values():
        with suppress(EnvelopeError):
            Retry.decode(raw)


def _is_task(data: bytes) -> bool:
    try:
        _CODEC.decode_task(data)
    except EnvelopeError:
        return False
    return True


def _metadata(data: bytes) -> None:
    """Behind a right checksum, as only a damaged program could write it; and as it is."""
    rest = b"\0\0\0\0" + data
    checksum = zlib.crc32(rest, zlib.crc32(f"{_PLACE}@{_OFFSET}".encode())).to_bytes(4, "big")
    for text in (base64.b85encode(b"\1" + checksum + rest).decode(), data.decode("latin-1")):
        done = doneset.decode(text, _PLACE, _OFFSET)
        if done is not None:
            with suppress(ValueError):
                Membership.parse(done.writer)


def _policy(data: bytes) -> None:
    with suppress(EnvelopeError):
        Retry.decode(data)


def _cron(data: bytes) -> None:
    with suppress(UsageError):
        cron = data.decode("utf-8", "replace")
        recurrence = Recurrence(Schedule(name="s", changed_at_us=0, topic="t", task=b"", cron=cron))
        due_us = recurrence.next_after(0)
        assert due_us is None or recurrence.text


def _times(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    for parse in (parse_time_us, parse_future):
        with suppress(UsageError):
            parse(text, "--since")


def _configuration(data: bytes) -> None:
    """A file of settings, its first line also as -X, and what comes of them."""
    with tempfile.NamedTemporaryFile() as file, suppress(UsageError):
        file.write(data)
        file.flush()
        pairs = data.decode("utf-8", "replace").splitlines()
        command_line(pairs[:1], bootstrap_servers=None, namespace=None)
        repr(read_file(Path(file.name)).connection(Connection(bootstrap_servers="localhost:9092")))


def _arguments(data: bytes) -> None:
    """A command line, up to where its command would begin to do something."""
    try:
        arguments = shlex.split(data.decode("utf-8", "replace").replace("\0", " "))
    except ValueError:
        return
    ends = (KantokuError, _ClickException, typer.Exit, typer.Abort)
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()), suppress(*ends):
        _idle().main(_globals_first(arguments), "kantoku-kafka", standalone_mode=False)


@lru_cache(1)
def _idle() -> Any:
    """All the commands, none of which does anything."""
    command = typer.main.get_command(app)
    _make_idle(command)
    return command


def _make_idle(command: Any) -> None:
    children = getattr(command, "commands", {})
    if not children:
        command.callback = lambda **_: None
    for child in children.values():
        _make_idle(child)


def _foreign(one: Format) -> Callable[[bytes], None]:
    """The first line is what the headers hold that the format looks at; the rest is the value."""

    def run(data: bytes) -> None:
        head, newline, value = data.partition(b"\n")
        headers = tuple((name, head) for name in ("id", "kind", "ce_id", "ce_source", "ce_type", "reply-to"))
        headers += (("ce_specversion", b"1.0"),) if newline and not value.startswith(b"{") else ()
        headers += (("content-type", b"application/cloudevents+json"),) if value.startswith(b"{") else ()
        topics = Topics(namespace="n")
        job = Job(Partition("orders", 0, 1), 0, None, value, headers)
        try:
            assert ForeignReader("orders", {"t": one}, topics, _CODEC)(job)
        except EnvelopeError:
            assert job.value == value and job.raw_headers == headers
            return
        task = _CODEC.decode_task(job.value)
        result = Result(task.id, task.type, Status.OK, task.data, None, 1, "e", None, 0, job.source, job.headers)
        assert all(isinstance(name, str) and name.encode() for name, _ in one.write(result)[1])
        with suppress(EnvelopeError):
            Replies(topics, {}).of(task.type, task)

    return run


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "task": _task,
    "result": _decoder(_CODEC.decode_result),
    "event": _decoder(_CODEC.decode_event),
    "timer": _decoder(decode_timer),
    "command": _decoder(decode_command),
    "heartbeat": _decoder(decode_heartbeat),
    "schedule": _decoder(decode_schedule),
    "schedule_state": _decoder(decode_schedule_state),
    "metadata": _metadata,
    "policy": _policy,
    "cron": _cron,
    "times": _times,
    "configuration": _configuration,
    "arguments": _arguments,
    "raw_record": _foreign(Raw(id_header="id", reply_header="reply-to", reply_topics=["a*"])),
    "json_record": _foreign(Json(id_field="id")),
    "cloud_event": _foreign(CloudEvents(source="/s", type="t")),
}

_SEEDS: Mapping[str, tuple[bytes, ...]] = {
    "metadata": (b"\1s\0", b"\1s\1\5\6", b"\1s\2\x0a", b"\1s\x80\0\0\0\0\0\0\0\5", b"\1s\x40\0\0\0\0\0\0\0\5"),
    "policy": (Retry(max_attempts=5, on=(ConnectionError,)).encode(),),
    "cron": (b"*/5 * * * *", b"0 9 * * mon-fri", b"@daily", b"0 0 L * *", b"0 0 * * 5#3"),
    "raw_record": (b"a-b\nvalue",),
    "json_record": (b'x\n{"id": 7, "a": [1.5e3, null]}', b'x\n{"id": "\\u00e9"}'),
    "cloud_event": (
        b"x\n[1]",
        b'x\n{"specversion":"1.0","id":"1","source":"/s","type":"t","ext":true,"data":{"a":1.5}}',
        b'x\n{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"text/plain","data":"hi"}',
        b'x\n{"specversion":"1.0","id":"1","source":"/s","type":"t","data_base64":"aGk="}',
    ),
    "times": (b"2h", b"1.5d", b"2026-01-31T08:00:00+00:00"),
    "configuration": (b"# kafka\nbootstrap.servers = a:9092, b:9092\nsasl.password = x=y\n",),
    "arguments": (
        b"-b localhost:9092 tasks list --status FAILED --since 2h -o json",
        b"run-executor app:kan -c 4 --types a,b -X linger.ms=5",
        b"schedules add nightly work --cron '0 3 * * *' --data '{}' --label a=b",
        b"dlq redrive --type work --rate 5 --dry-run",
    ),
}


def seeds(name: str) -> tuple[bytes, ...]:
    """Where a target begins: what is right."""
    golden = _GOLDEN / f"{name}.json"
    if not golden.exists():
        return _SEEDS[name]
    return tuple(bytes.fromhex(vector["bytes"]) for vector in json.loads(golden.read_text()))
