"""Accepted means acknowledged by the broker; everything else is a typed error within a bounded time."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any

import pytest
from access import as_user, super_user
from accounting import read_all
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from executors import ExecutorUnderTest, until

from kantoku_kafka import Kantoku, Plugin, Status, Task, labels
from kantoku_kafka.errors import (
    BrokerUnavailable,
    KantokuError,
    QueueFull,
    TaskTooLarge,
    TopicMismatch,
    UsageError,
    WaitTimeout,
)
from kantoku_kafka.kafka import reachability
from kantoku_kafka.kafka.clients import Clients
from kantoku_kafka.kafka.producer import Producer as SpawningProducer
from kantoku_kafka.settings import Connection

NOBODY = "127.0.0.1:9"  # the discard port: nothing listens there


def test_accepted_means_that_it_stands_in_the_topic(kan: Kantoku, bootstrap: str) -> None:
    spawned = kan.spawn(Task("echo", b"one"))
    (record,) = read_all(bootstrap, kan.topics.of_type("echo"))
    assert (record.partition(), record.offset()) == (spawned.partition, spawned.offset)
    assert (record.key() or b"").decode() == spawned.id


def test_nowait_is_accepted_by_flush(kan: Kantoku, bootstrap: str) -> None:
    spawned = [kan.spawn_nowait(Task("echo", b"%d" % n)) for n in range(3000)]
    kan.flush()
    assert all(task.offset is not None for task in spawned)
    assert len(read_all(bootstrap, kan.topics.of_type("echo"))) == 3000


def test_a_transaction_is_all_or_nothing(kan: Kantoku, bootstrap: str) -> None:
    with kan.transaction():
        kept = [kan.spawn(Task("echo", b"kept")), *kan.spawn_many([Task("work", b"kept")] * 5)]
    with pytest.raises(ZeroDivisionError), kan.transaction():
        kan.spawn_many([Task("echo", b"gone")] * 10)
        raise ZeroDivisionError
    assert [m.value()[-40:-10] for m in read_all(bootstrap, kan.topics.of_type("echo")) if b"gone" in m.value()] == []
    topics = ("echo", "work")
    found = {(m.key() or b"").decode() for t in topics for m in read_all(bootstrap, kan.topics.of_type(t))}
    assert found == {task.id for task in kept}
    logged = {(m.key() or b"").split(b"/")[0].decode() for m in read_all(bootstrap, kan.topics.events)}
    assert logged == found


def test_threads_have_transactions_of_their_own(kan: Kantoku, bootstrap: str) -> None:
    """A spawn outside, in another thread, is not caught up in a transaction that is given up."""
    outside: list[str] = []
    with pytest.raises(ZeroDivisionError), kan.transaction():
        kan.spawn(Task("echo", b"inside"))
        thread = threading.Thread(target=lambda: outside.append(kan.spawn(Task("echo", b"outside")).id))
        thread.start()
        thread.join()
        raise ZeroDivisionError
    assert [(m.key() or b"").decode() for m in read_all(bootstrap, kan.topics.of_type("echo"))] == outside


def test_async_forms(kan: Kantoku, running: Any) -> None:
    async def go() -> list[bytes]:
        one = await kan.spawn_async(Task("echo", b"0"))
        more = await kan.spawn_many_async([Task("echo", b"1"), Task("echo", b"2")])
        first = await kan.wait_async(one.id, timeout_seconds=30)
        rest = await kan.gather_async(more, timeout_seconds=30)
        with pytest.raises(WaitTimeout):
            await kan.wait_async("nobody", timeout_seconds=0.1)
        return [first.data, *(result.data for result in rest)]

    with running():
        assert asyncio.run(go()) == [b"0", b"1", b"2"]


def test_results_as_they_come(kan: Kantoku, running: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    gate = tmp_path / "gate"
    with running():
        slow, fast = kan.spawn(Task("note", bytes(gate))), kan.spawn(Task("echo", b"fast"))
        results = kan.as_completed([slow, fast], timeout_seconds=30)
        assert next(results).task_id == fast.id
        gate.touch()
        assert [result.task_id for result in results] == [slow.id]
        assert slow.result(timeout_seconds=1).status is Status.OK
        with pytest.raises(WaitTimeout, match="executor"):
            kan.wait(kan.spawn(Task("side")).id, timeout_seconds=0.2)


def test_an_old_result_is_found_by_a_new_client(kan: Kantoku, bootstrap: str, running: Any) -> None:
    with running():
        spawned = kan.spawn_many([Task("echo", b"%d" % n) for n in range(50)])
        kan.gather(spawned, timeout_seconds=30)
    late = Kantoku(kan.namespace, **as_user(bootstrap))
    try:
        assert late.wait(spawned[7].id, timeout_seconds=10).data == b"7"
        assert len(late.find_results([task.id for task in spawned])) == 50
        assert late.find_results(["no-such-task"]) == {}
    finally:
        late.close()


def test_a_missing_topic_is_named(kan: Kantoku) -> None:
    with pytest.raises(TopicMismatch, match="topics create"):
        kan.spawn(Task("never-created"))


def test_a_task_too_large_is_refused_and_its_neighbours_are_not(kan: Kantoku, bootstrap: str) -> None:
    with pytest.raises(TaskTooLarge):
        kan.spawn(Task("echo", b"x" * 3_000_000))
    assert kan.spawn(Task("echo", b"small")).offset is not None
    assert len(read_all(bootstrap, kan.topics.of_type("echo"))) == 1


def test_nobody_answers() -> None:
    lonely = Kantoku("x", bootstrap_servers=NOBODY, events="off", delivery_timeout_seconds=1.0)
    started = time.monotonic()
    with pytest.raises(BrokerUnavailable, match="dev broker"):
        lonely.spawn(Task("echo"))
    assert time.monotonic() - started < 20
    lonely.close()


def test_what_is_in_the_way_is_looked_for_as_one_begins_and_not_in_the_time_of_callers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[object] = []
    monkeypatch.setattr(reachability, "obstacle", looks.append)
    with closing(Kantoku("x", bootstrap_servers=NOBODY, events="off", delivery_timeout_seconds=3.5)) as lonely:
        lonely.spawn_nowait(Task("echo"))
        assert len(looks) == 1
        with pytest.raises(BrokerUnavailable, match="dev broker"):
            lonely.flush()
        assert len(looks) == 1
    with pytest.raises(BrokerUnavailable):
        Clients(Connection(bootstrap_servers=NOBODY, timeout_seconds=2.0)).check()
    assert len(looks) == 1


@pytest.mark.unsecured("against a broker that speaks no TLS")
@pytest.mark.parametrize("block", [Kantoku.transaction, nullcontext])
def test_who_spawns_first_is_told_of_a_mistake_at_once(
    bootstrap: str, block: Callable[[Kantoku], AbstractContextManager[None]]
) -> None:
    config = {"security.protocol": "SSL"}
    with (
        closing(
            Kantoku("x", bootstrap_servers=bootstrap, config=config, events="off", delivery_timeout_seconds=600.0)
        ) as mistaken,
        pytest.raises(UsageError, match="does not speak TLS"),
        block(mistaken),
    ):
        mistaken.spawn(Task("echo"))


def test_a_full_queue_is_an_error_and_not_a_drop() -> None:
    settings = {"queue.buffering.max.messages": 10}
    full = Kantoku(
        "x",
        bootstrap_servers=NOBODY,
        config=settings,
        events="off",
        queue_timeout_seconds=0.2,
        delivery_timeout_seconds=3.0,
    )
    with pytest.raises(QueueFull):
        for _ in range(11):
            full.spawn_nowait(Task("echo"))
    with pytest.raises(BrokerUnavailable):
        full.flush()
    full.close()


def test_a_veto_spawns_nothing(bootstrap: str, namespace: str) -> None:
    class Veto(Plugin):
        def before_scheduled(self, ctx: Any) -> None:
            if ctx.data == b"bad":
                raise PermissionError("not this one")

    kan = Kantoku(namespace, **as_user(bootstrap), plugins=[Veto()])
    with pytest.raises(PermissionError):
        kan.spawn(Task("echo", b"bad"))
    good = kan.spawn(Task("echo", b"good"))
    kan.close()
    assert [(m.key() or b"").decode() for m in read_all(bootstrap, kan.topics.of_type("echo"))] == [good.id]


def test_a_child_process_must_make_its_own_client(kan: Kantoku) -> None:
    kan.spawn(Task("echo"))
    pid = os.fork()
    if pid == 0:
        try:
            kan.spawn(Task("echo"))
        except KantokuError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_foreign_commit_metadata_are_not_trusted(kan: Kantoku, bootstrap: str, tmp_path: Path) -> None:
    """Somebody else committed offsets for our group, with a note of his own: work begins there."""
    from confluent_kafka import TopicPartition

    spawned = kan.spawn_many([Task("work", b"x")] * 40)
    topic = kan.topics.of_type("work")
    consumer = Consumer({**super_user(bootstrap), "group.id": kan.topics.group})
    places = [TopicPartition(topic, p, 0, metadata="deployed by hand") for p in range(4)]
    consumer.commit(offsets=places, asynchronous=False)
    consumer.close()
    with ExecutorUnderTest(bootstrap, kan.namespace, "--types", "work", log=tmp_path / "log") as executor:
        assert all(result.ok for result in kan.gather(spawned, timeout_seconds=30))
        executor.kill(signal.SIGTERM)
        assert executor.wait(30) == 0
        assert "not ours or damaged" in executor.log()


def test_a_tombstone_on_an_input_is_a_dead_letter(kan: Kantoku, bootstrap: str, running: Any) -> None:
    producer = Producer(super_user(bootstrap))
    producer.produce(kan.topics.of_type("echo"), None, b"k")
    producer.flush(10)
    with running():
        kan.gather(kan.spawn_many([Task("echo")] * 20), timeout_seconds=30)
        until(lambda: read_all(bootstrap, kan.topics.dlq), 20, "the dead letter")
    (dead,) = read_all(bootstrap, kan.topics.dlq)
    assert dead.key() == b"k"


def test_nowait_within_a_transaction_belongs_to_it(kan: Kantoku, bootstrap: str) -> None:
    with pytest.raises(ZeroDivisionError), kan.transaction():
        kan.spawn_nowait(Task("echo", b"gone"))
        raise ZeroDivisionError
    with kan.transaction():
        kept = kan.spawn_nowait(Task("echo", b"kept"))
    assert [m.key() for m in read_all(bootstrap, kan.topics.of_type("echo"))] == [kept.id.encode()]


def test_transactions_do_not_nest(kan: Kantoku, bootstrap: str) -> None:
    with pytest.raises(UsageError), kan.transaction():
        kan.spawn(Task("echo"))
        with kan.transaction():
            kan.spawn(Task("echo"))
    assert read_all(bootstrap, kan.topics.of_type("echo")) == []


def test_a_task_is_accepted_though_its_event_is_not(
    kan: Kantoku, bootstrap: str, caplog: pytest.LogCaptureFixture
) -> None:
    topic = f"{kan.namespace}.copy"  # who spawns here may write to it
    admin = AdminClient(super_user(bootstrap))
    (created,) = admin.create_topics([NewTopic(topic, 4, config={"max.message.bytes": "500"})]).values()
    created.result(10)
    client = Kantoku(kan.namespace, **as_user(bootstrap), topics={"events": topic})
    try:
        spawned = client.spawn(Task("echo").with_(labels(long="x" * 1000)))
        client.spawn(Task("echo"))
    finally:
        client.close()
    assert spawned.offset is not None
    assert len(read_all(bootstrap, kan.topics.of_type("echo"))) == 2
    assert "the event that a task was spawned is missing" in caplog.text


def test_who_waits_learns_that_the_client_is_closed(kan: Kantoku) -> None:
    spawned = kan.spawn(Task("echo"))
    failures: list[BaseException] = []
    waiting = threading.Event()

    def wait() -> None:
        try:
            for _ in kan.as_completed(iter_and_tell(), timeout_seconds=60):
                pass
        except KantokuError as error:
            failures.append(error)

    def iter_and_tell() -> Any:
        yield spawned
        waiting.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert waiting.wait(30)
    until(lambda: kan._reader is not None and kan._reader._waiters, 10, "the wait is registered")
    kan.close()
    thread.join(10)
    assert [str(failure) for failure in failures] == ["The client was closed while somebody waited for a result."]


def test_a_transaction_that_nobody_confirmed_may_have_been_accepted(
    kan: Kantoku, bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client claims that it has to be aborted though it was committed: the broker's name was unknown meanwhile."""

    def commit(producer: SpawningProducer, timeout_seconds: float) -> None:
        real(producer, timeout_seconds)
        raise KafkaException(KafkaError(KafkaError._RESOLVE, "no such host", False, False, True))

    real = Producer.commit_transaction
    monkeypatch.setattr(SpawningProducer, "commit_transaction", commit)
    with pytest.raises(BrokerUnavailable, match="all of them or none"), kan.transaction():
        spawned = kan.spawn(Task("echo", b"there"))
    monkeypatch.undo()
    with kan.transaction():
        later = kan.spawn(Task("echo", b"later"))
    there = {record.key() for record in read_all(bootstrap, kan.topics.of_type("echo"))}
    assert there == {spawned.id.encode(), later.id.encode()}


def test_who_outlives_the_block_that_began_it_spawns_on_its_own(kan: Kantoku, bootstrap: str) -> None:
    """A coroutine that was started within a transaction is no part of it, nor of the next one, once it has ended."""

    async def later(begin: asyncio.Event) -> str:
        await begin.wait()
        return kan.spawn(Task("echo", b"later")).id

    async def go() -> str:
        begin = asyncio.Event()
        with kan.transaction():
            kan.spawn(Task("echo", b"first"))
            background = asyncio.create_task(later(begin))
        with pytest.raises(ZeroDivisionError), kan.transaction():
            begin.set()
            spawned = await background
            raise ZeroDivisionError
        return spawned

    spawned = asyncio.run(go())
    there = {record.key() for record in read_all(bootstrap, kan.topics.of_type("echo"))}
    assert spawned.encode() in there and len(there) == 2


def test_a_producer_that_is_beyond_help_is_replaced(kan: Kantoku, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is, for its whole life, when its first request for an id is refused for want of a right."""
    kan.spawn(Task("echo", b"x"))
    doomed, real = kan._connected_spawner()._producer, SpawningProducer.produce

    def produce(producer: SpawningProducer, *record: Any, **more: Any) -> None:
        if producer is doomed:
            raise KafkaException(KafkaError(KafkaError._FATAL, "Cluster authorization failed", True))
        real(producer, *record, **more)

    monkeypatch.setattr(SpawningProducer, "produce", produce, raising=False)
    with pytest.raises(KantokuError):
        kan.spawn(Task("echo", b"x"))
    assert kan.spawn(Task("echo", b"x")).offset is not None
