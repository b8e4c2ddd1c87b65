"""The process pool with real children: outcomes, crashes, cancellation, and that nothing is left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue

import process_app
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kantoku_kafka.errors import UsageError
from kantoku_kafka.executor import ExecutorProcess
from kantoku_kafka.job import Job, Message, Partition
from kantoku_kafka.model import Event, Source, Status, TaskEnvelope
from kantoku_kafka.pools import crew
from kantoku_kafka.pools.frames import FrameBuffer, FrameError, Kind, encode_answer, frame, take_answer
from kantoku_kafka.pools.hello import Hello
from kantoku_kafka.pools.processes import ProcessExecutor

pytestmark = pytest.mark.timeout(60)
PARTITION = Partition("unit.tasks.echo", 3, 7)
REFERENCE = "process_app:kan"
ROOMY_BYTES = 320 << 20  # of memory, for a child that has imported the app


class Pool:
    """A pool and what it delivers."""

    def __init__(self, concurrency: int, hello: Hello | None = None, **options: float) -> None:
        self.executor = ProcessExecutor(hello or _hello(), concurrency, **options)
        self.delivered: SimpleQueue[Job] = SimpleQueue()
        self.executor.start(self.delivered.put)

    def run(self, task_type: str, data: bytes = b"") -> Job:
        self.executor.submit([job(task_type, data)])
        return self.delivered.get(timeout=20)

    def echoes(self) -> bool:
        return self.run("echo", b"still works").output == b"still works"


def _hello(reference: str = REFERENCE) -> Hello:
    return Hello.of(process_app.kan, reference, process_app.kan.task_types)


def job(task_type: str, data: bytes = b"", offset: int = 11) -> Job:
    envelope = TaskEnvelope(f"id-{offset}", task_type, data, 1, attempt=2, labels={"colour": "blue"})
    headers = [("traceparent", b"00-1"), ("empty", None)]
    made = Job(PARTITION, offset, b"key", process_app.kan.codec.encode_task(envelope), headers)
    made.read(process_app.kan.codec.peek_task)
    return made


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool(1)
    yield made
    made.executor.close(5.0)


@pytest.fixture
def pids(tmp_path: Path) -> Callable[[], list[int]]:
    """What a task has written to ``tmp_path/pids``, once it is there."""

    def read() -> list[int]:
        _until((tmp_path / "pids").exists, "the task did not start")
        return [int(word) for word in (tmp_path / "pids").read_text().split()]

    return read


# --- outcomes


def test_heartbeats_arrive_and_harm_no_answer(pool: Pool) -> None:
    done = pool.run("beats")
    assert (done.status, done.output, done.progress) == (Status.OK, b"done", {"step": "last"})
    assert done.beat_at_us is not None and pool.echoes()


def test_bytes_in_bytes_out(pool: Pool) -> None:
    done = pool.run("echo", b"\x00\xff")
    assert (done.status, done.output, done.error) == (Status.OK, b"\x00\xff", None)
    assert done.effects is None and done.events is None
    assert done.started_at_us is not None and 0 < done.started_at_us <= done.finished_at_us


def test_the_context_is_complete_and_what_it_stages_arrives(pool: Pool) -> None:
    done = pool.run("context", b"d")
    source = ("unit.tasks.echo", 3, 11, 7)
    headers = (("traceparent", b"00-1"), ("empty", None))
    assert done.output == repr(("id-11", 2, b"key", headers, source, {"colour": "blue"}, "unit")).encode()
    assert done.effects is not None and done.events is not None
    child, side = done.effects
    spawned = process_app.kan.codec.decode_task(child.value)
    assert (child.topic, spawned.data, spawned.parent_id) == ("unit.tasks.echo", b"child of d", "id-11")
    assert side == Message("side", None, b"effect", (("h", None), ("g", b"\x00")))
    assert [event.name for event in done.events] == ["spawned", "image.loaded"]
    assert done.events[0].task_id == spawned.id
    assert done.events[1] == Event(
        "id-11",
        "context",
        "image.loaded",
        2,
        done.events[1].at_us,
        None,
        Source(*source),
        None,
        {"width": "10", "title": "größe"},
    )


@pytest.mark.parametrize("task_type", ["async", "seen"])
def test_tasks_run_one_after_the_other_without_seeing_each_others_variables(pool: Pool, task_type: str) -> None:
    first, second = pool.run(task_type), pool.run(task_type)
    assert first.output.startswith(b"nothing ") and first.output == second.output


def test_coroutines_stage_and_end_as_functions_do(pool: Pool) -> None:
    first = pool.run("async")
    assert [event.name for event in first.events or ()] == ["image.awaited"]
    cancelled = pool.run("async-cancelled")
    assert cancelled.error is not None and cancelled.error.type == "CancelledError"
    assert pool.echoes()


@pytest.mark.parametrize(
    ("data", "status", "error"),
    [
        (b"", Status.FAILED, ("LookupError", "no such picture", False)),
        (b"retryable", Status.FAILED, ("Retryable", "later \\ud800", True)),
        (b"reject", Status.REJECTED, ("Reject", "never", False)),
    ],
)
def test_an_exception_is_the_result_and_its_effects_are_withheld(
    pool: Pool, data: bytes, status: Status, error: tuple[str, str, bool]
) -> None:
    done = pool.run("fail", data)
    assert done.status is status and done.error is not None
    assert (done.error.type, done.error.message, done.error.retryable) == error
    assert done.error.detail is not None and "process_app.py" in done.error.detail
    assert not done.effects


def test_an_exception_that_cannot_be_looked_at_is_a_result_too(pool: Pool) -> None:
    before = pool.run("pid").output
    done = pool.run("fail", b"strict")
    assert done.status is Status.FAILED and done.error is not None
    assert (done.error.type, done.error.message, done.error.retryable) == ("Strict", "strict", False)
    assert pool.run("pid").output == before


@pytest.mark.parametrize(
    ("task_type", "data", "error_type"),
    [
        ("not-bytes", b"", "unserialisable_result"),
        ("bad-effect", b"", "UsageError"),
        ("blow-up", b"x" * 68, "result_too_large"),
    ],
)
def test_what_cannot_be_answered_fails_the_task_and_not_the_process(
    pool: Pool, task_type: str, data: bytes, error_type: str
) -> None:
    before = pool.run("pid").output
    done = pool.run(task_type, data)
    assert (done.status, done.output, done.effects) == (Status.FAILED, b"", None)
    assert done.error is not None and done.error.type == error_type
    assert pool.run("pid").output == before


def test_large_payloads_both_ways_at_once() -> None:
    pool = Pool(3)
    jobs = [job("echo", bytes([n]) * 5_000_000, offset=n) for n in range(40)]
    pool.executor.submit(jobs)
    done = [pool.delivered.get(timeout=40) for _ in jobs]
    assert {d.offset for d in done} == set(range(40))
    assert all(d.output == bytes([d.offset]) * 5_000_000 for d in done)
    pool.executor.close(5.0)


def test_as_many_children_as_needed_and_no_more() -> None:
    pool = Pool(3)
    assert len({pool.run("pid").output for _ in range(20)}) == 1, "one child is enough for one job at a time"
    pool.executor.submit([job("nap", offset=n) for n in range(100)])
    assert len({pool.delivered.get(timeout=20).output for _ in range(100)}) == 3
    pool.executor.close(5.0)


# --- crashes


@pytest.mark.parametrize(
    ("task_type", "data", "sentence"),
    [
        ("end", b"exit", "ended with exit code 3"),
        ("end", b"segfault", "was killed by SIGSEGV"),
        ("end", b"kill", "was killed by SIGKILL"),
        ("end", b"close", "closed the connection"),
        ("end", b"fork-and-die", "ended with exit code 4"),
        ("garbage", b"GET / HTTP/1.1\r\n\r\n", "said what it cannot have meant"),
        ("garbage", b"\xff\xff\xff\xff\x07", "said what it cannot have meant"),
        ("garbage", frame(Kind.ANSWER, b"\x02"), "said what it cannot have meant"),
        ("garbage", frame(Kind.ANSWER, b"\x02\x04OK"), "said what it cannot have meant"),
        ("garbage", frame(Kind.READY), "said what it cannot have meant"),
    ],
)
def test_a_crash_is_the_tasks_result_and_the_next_one_runs(
    pool: Pool, task_type: str, data: bytes, sentence: str
) -> None:
    done = pool.run(task_type, data)
    assert done.status is Status.CRASHED and done.error is not None
    assert done.error.type == "process_crashed" and sentence in done.error.message
    assert done.started_at_us is not None and done.output == b""
    assert pool.echoes()


@pytest.mark.parametrize(("number", "rest"), [(2, b""), (1, b"\0")])
def test_a_forged_answer_must_at_least_be_one(pool: Pool, number: int, rest: bytes) -> None:
    forged = job("echo")
    forged.started_at_us = 1
    forged.succeed(b"forged")
    done = pool.run("garbage", frame(Kind.ANSWER, encode_answer(number, forged) + rest))
    assert (done.status, done.output) == (Status.CRASHED, b"")


def test_what_a_crashed_task_had_started_is_gone(pool: Pool, tmp_path: Path, pids: Callable[[], list[int]]) -> None:
    assert pool.run("orphan", bytes(tmp_path / "pids")).status is Status.CRASHED
    _until(lambda: not _alive(*pids()), "the grandchild is left")


def test_a_crash_takes_nobody_else_with_it() -> None:
    pool = Pool(2)
    pool.executor.submit([job("end" if n % 5 == 0 else "echo", b"exit", offset=n) for n in range(50)])
    done = {d.offset: d.status for d in (pool.delivered.get(timeout=40) for _ in range(50))}
    assert done == {n: Status.CRASHED if n % 5 == 0 else Status.OK for n in range(50)}
    pool.executor.close(5.0)


def test_a_child_that_dies_between_two_jobs_fails_neither(pool: Pool) -> None:
    child = int(pool.run("deaf").output)
    _until(lambda: not _alive(child), "the child did not end")
    assert pool.echoes()


def test_sigterm_from_outside_does_not_end_a_task(pool: Pool) -> None:
    done = pool.run("sigterm")
    assert done.output == f"still here, the fork ended by {signal.SIGTERM:d}".encode(), done.error


@pytest.mark.parametrize("task_type", ["fork", "fork-async"])
@pytest.mark.parametrize(("data", "code"), [("return", 0), ("exit", 3), ("raise", 1), ("interrupt", 1)])
def test_a_copy_that_leaves_the_function_ends_as_a_script_does(
    capfd: pytest.CaptureFixture[str], task_type: str, data: str, code: int
) -> None:
    pool = Pool(1)
    done = pool.run(task_type, data.encode())
    assert (done.status, done.output) == (Status.OK, str(code).encode())
    assert pool.echoes()
    pool.executor.close(5.0)
    captured = capfd.readouterr().err
    assert captured.count(f"a copy will {data}") == 1
    assert ("LookupError: of the copy" in captured) == (data == "raise")


# --- cancellation


def test_a_cancelled_job_ends_with_all_that_it_started(tmp_path: Path, pids: Callable[[], list[int]]) -> None:
    pool = Pool(1, grace_seconds=100)  # SIGTERM has to be enough
    running, waiting = job("sleep", bytes(tmp_path / "pids")), job("echo")
    pool.executor.submit([running, waiting])
    own, grandchild = pids()
    pool.executor.cancel([waiting], "revoked")
    assert pool.delivered.get(timeout=10) is waiting
    pool.executor.cancel([running], "revoked")
    assert pool.delivered.get(timeout=10) is running
    for ended in (running, waiting):
        assert (ended.status, ended.error, ended.cancelled) == (None, None, "revoked")
    _until(lambda: not _alive(own, grandchild), "processes are left")
    assert pool.echoes()
    pool.executor.close(5.0)


def test_what_ignores_sigterm_is_killed(tmp_path: Path, pids: Callable[[], list[int]]) -> None:
    pool = Pool(1, grace_seconds=0.2)
    stubborn = job("stubborn", bytes(tmp_path / "pids"))
    pool.executor.submit([stubborn])
    (own,) = pids()
    pool.executor.cancel([stubborn], "stopping")
    assert pool.delivered.get(timeout=10).status is None
    assert not _alive(own)
    pool.executor.close(5.0)


def test_cancelling_what_has_ended_does_nothing(pool: Pool) -> None:
    done = pool.run("echo", b"1")
    before = pool.run("pid").output
    pool.executor.cancel([done], "revoked")
    assert done.status is Status.OK
    assert pool.run("pid").output == before
    with pytest.raises(Empty):
        pool.delivered.get_nowait()


# --- nothing is left behind


def test_close_ends_idle_and_busy_children_and_the_thread(tmp_path: Path, pids: Callable[[], list[int]]) -> None:
    pool = Pool(2)
    idle = int(pool.run("pid").output)
    pool.executor.submit([job("sleep", bytes(tmp_path / "pids"))])
    family = [idle, *pids()]
    assert _alive(*family)
    pool.executor.close(5.0)
    _until(lambda: not _alive(*family), "processes are left")
    assert not [thread for thread in threading.enumerate() if thread.name == "kantoku-processes"]
    pool.executor.close(5.0)
    pool.executor.submit([job("echo")])
    pool.executor.cancel([job("echo")], "stopping")


def test_close_without_start() -> None:
    executor = ProcessExecutor(_hello(), 1)
    executor.close(1.0)
    executor.close(1.0)


@pytest.mark.parametrize("task_type", ["busy", "sleep"])
@pytest.mark.parametrize("forks", [False, True], ids=["alone", "with a helper"])
def test_children_die_with_their_parent(
    tmp_path: Path, pids: Callable[[], list[int]], task_type: str, forks: bool
) -> None:
    program = (
        "import os, sys, time; sys.path.insert(0, sys.argv[1]);"
        "from test_process_pool import Pool, job; pool = Pool(2); print(pool.run('pid').output.decode(), flush=True);"
        "pool.executor.submit([job(sys.argv[2], sys.argv[3].encode()), job('pid')]); pool.delivered.get();"
        "helper = os.fork() if len(sys.argv) > 4 else None; print(helper, flush=True) if helper != 0 else os.close(1);"
        "time.sleep(30); os._exit(0)"
    )
    options = ["helper"] if forks else []
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(Path(__file__).parent), task_type, str(tmp_path / "pids"), *options],
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    family = [int(parent.stdout.readline()), *pids()]
    helper = parent.stdout.readline()
    assert _alive(*family)
    parent.kill()
    parent.communicate()
    try:
        _until(lambda: not _alive(*family), "processes have outlived their parent")
    finally:
        if forks:  # it holds the parent's ends of the sockets all the while
            os.kill(int(helper), signal.SIGKILL)


def test_ctrl_c_does_not_reach_the_children(pool: Pool) -> None:
    child = int(pool.run("pid").output)
    assert os.getsid(child) == child != os.getsid(0)


# --- limits


def test_a_child_that_retires_may_take_its_time_and_keeps_no_job_waiting(tmp_path: Path) -> None:
    pool = Pool(1, _hello()._replace(max_tasks=1))
    first = pool.run("bye", bytes(tmp_path)).output.decode()
    assert pool.echoes(), "another child runs it"
    assert _alive(int(first))
    (tmp_path / "go").touch()
    _until((tmp_path / f"gone-{first}").exists, "its hook was not let end")
    pool.executor.close(5.0)


def test_those_that_retire_are_no_more_than_those_that_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive = []
    start_worker = crew.Crew.start_worker

    def counted(self: crew.Crew) -> None:
        start_worker(self)
        alive.append(len(self.workers))

    monkeypatch.setattr(crew.Crew, "start_worker", counted)
    pool = Pool(1, _hello()._replace(max_tasks=1))
    pool.executor.submit([job("bye", bytes(tmp_path), offset=n) for n in range(4)])
    gone = [pool.delivered.get(timeout=20).output for _ in range(2)]
    (tmp_path / "go").touch()
    gone += [pool.delivered.get(timeout=20).output for _ in range(2)]
    assert len(set(gone)) == 4 and max(alive) == 2
    pool.executor.close(5.0)


def test_a_child_that_does_not_retire_is_killed_and_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(crew, "_RETIRING_SECONDS", 0.2)
    pool = Pool(1, _hello()._replace(max_tasks=1))
    stays = int(pool.run("bye", bytes(tmp_path)).output)
    _until(lambda: not _alive(stays), "it was not killed")
    assert pool.echoes()
    pool.executor.close(5.0)
    assert f"process {stays} is killed" in caplog.text


def test_what_the_parent_once_needed_does_not_count_for_its_children() -> None:
    peak = b"x" * (ROOMY_BYTES - (20 << 20))
    del peak
    pool = Pool(1, _hello()._replace(max_memory_bytes=ROOMY_BYTES))
    assert pool.run("pid").output == pool.run("pid").output
    pool.executor.close(5.0)


def test_memory_that_is_only_reserved_counts_as_the_limit_counts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Pool(1, _hello()._replace(max_memory_bytes=ROOMY_BYTES))
    assert pool.run("reserve", b"1").output == pool.run("pid").output
    assert pool.run("reserve", b"240").output != pool.run("pid").output, "there is a new one"
    pool.executor.close(5.0)
    (tmp_path / "large_app.py").write_text("from process_app import kan, reserve\nreserve(b'300')")
    monkeypatch.syspath_prepend(tmp_path)
    executor = ProcessExecutor(_hello("large_app:kan")._replace(max_memory_bytes=ROOMY_BYTES), 1)
    with pytest.raises(UsageError, match="MiB once it is imported"):
        executor.start(lambda _: None)


# --- starting


def test_a_default_timeout_of_sockets_is_none_for_ours() -> None:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30.0)
    try:
        pool = Pool(1)
        assert pool.echoes()
        pool.executor.close(5.0)
    finally:
        socket.setdefaulttimeout(before)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("", "'kan' in broken_app is missing"),
        ("import nowhere_to_be_found", "broken_app does not import: no module 'nowhere_to_be_found'"),
        ("raise ValueError('half\\n done')", "broken_app does not import: ValueError: half done"),
        ("raise SystemExit(9)", "ends the program with 9"),
        ("import os; os._exit(5)", "ended with exit code 5"),
        ("import time; time.sleep(60)", "was not ready within 1 s"),
        ("from kantoku_kafka import Kantoku\nkan = Kantoku('unit')", "the app has no task type echo"),
        (
            "import process_app, test_process_pool\nkan = process_app.kan\ntest_process_pool.Pool(1)",
            "put that under `if __name__ == '__main__':`",
        ),
    ],
)
def test_an_app_that_does_not_import_is_an_error_of_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, sentence: str
) -> None:
    (tmp_path / "broken_app.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    ready_seconds = 1.0 if "sleep" in source else 30.0
    executor = ProcessExecutor(_hello("broken_app:kan"), 2, ready_seconds=ready_seconds)
    with pytest.raises(UsageError) as caught:
        executor.start(lambda _: None)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)
    assert not [thread for thread in threading.enumerate() if thread.name == "kantoku-processes"]
    assert not _children()


def test_an_app_that_stops_importing_makes_jobs_wait_and_not_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    module = tmp_path / "changing_app.py"
    module.write_text("from process_app import kan")
    monkeypatch.syspath_prepend(tmp_path)
    executor = ProcessExecutor(_hello("changing_app:kan"), 1)
    delivered: SimpleQueue[Job] = SimpleQueue()
    executor.start(delivered.put)
    module.write_text("from process_app import kan, is_not_there")
    executor.submit([job("end", b"exit"), job("echo", b"in the end")])
    assert delivered.get(timeout=10).status is Status.CRASHED
    _until(lambda: "Trying again" in caplog.text, "the import did not fail")
    module.write_text("from process_app import kan")
    assert delivered.get(timeout=20).output == b"in the end"
    executor.close(5.0)


def test_the_child_uses_the_parents_namespace_and_connection_and_no_secret_is_in_its_command_line() -> None:
    hello = _hello()._replace(
        namespace="other",
        topics={"results": "elsewhere"},
        bootstrap_servers="broker:1",
        config={"sasl.username": "me", "socket.keepalive.enable": True},
    )
    executor = ProcessExecutor(hello, 1)
    delivered: SimpleQueue[Job] = SimpleQueue()
    executor.start(delivered.put)
    executor.submit([job("connection"), job("context", b"x"), job("pid")])
    used, spawned, pid = (delivered.get(timeout=10) for _ in range(3))
    config = {"sasl.password": "of-the-app", "sasl.username": "me", "socket.keepalive.enable": True}
    assert used.output == repr(("broker:1", config, "elsewhere")).encode()
    assert spawned.effects is not None and spawned.effects[0].topic == "other.tasks.echo"
    for name in ("cmdline", "environ"):
        assert b"of-the-app" not in Path(f"/proc/{int(pid.output)}/{name}").read_bytes()
    assert "of-the-app" not in repr(_hello())
    executor.close(5.0)


def test_pool_process_needs_a_reference() -> None:
    with pytest.raises(UsageError, match="reference='module:attribute'"):
        ExecutorProcess(process_app.kan)


def test_what_a_task_prints_goes_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    pool = Pool(1)
    pool.run("pid")
    pool.executor.close(5.0)
    captured = capfd.readouterr()
    assert "printed by a task" in captured.err and not captured.out


# --- frames


@given(st.lists(st.tuples(st.sampled_from(Kind), st.binary(max_size=30)), max_size=5), st.integers(1, 20))
def test_frames_arrive_whole_however_they_are_cut(frames: list[tuple[Kind, bytes]], size: int) -> None:
    stream = b"".join(frame(kind, body) for kind, body in frames)
    buffer = FrameBuffer()
    assert [f for pos in range(0, len(stream), size) for f in buffer.feed(stream[pos : pos + size])] == frames


@given(st.data())
@settings(max_examples=500)
def test_a_damaged_answer_is_an_answer_or_a_frame_error_and_nothing_else(data: st.DataObject) -> None:
    answered = job("echo")
    answered.effects = [Message("side", None, b"effect", (("h", None),))]
    answered.events = [Event(answered.task_id, answered.type, "image.loaded", 1, 5, "me", answered.source)]
    answered.succeed(b"output")
    body = bytearray(encode_answer(1, answered))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    received = job("echo")
    try:
        take_answer(bytes(body[: data.draw(st.integers(0, len(body)))]), 1, received)
    except FrameError:
        assert received.status is None and received.effects is None
    else:
        assert received.status is not None


def _children() -> list[str]:
    """Processes of ours that run the child's program."""
    found = subprocess.run(["ps", "-o", "args=", "--ppid", str(os.getpid())], capture_output=True, text=True)
    return [line for line in found.stdout.splitlines() if "kantoku_kafka.pools.child" in line or "defunct" in line]


def _alive(*pids: int) -> bool:
    """Whether any of them runs; a zombie does not."""
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state not in "ZX":
            return True
    return False


def _until(condition: Callable[[], bool], complaint: str, timeout_seconds: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.01)
