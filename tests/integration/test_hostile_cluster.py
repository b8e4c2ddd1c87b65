"""A cluster at its worst: it freezes amid a commit, refuses records, takes small batches only; records that nobody
could read. The results stay exact, and no executor stalls or ends."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest
from access import super_user
from accounting import Account, read_all
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from kantoku_kafka import Context, ExecutorProcess, ExecutorSettings, Kantoku, Task
from kantoku_kafka.dev import EmbeddedBroker
from kantoku_kafka.errors import TopicMismatch
from kantoku_kafka.ids import new_task_id
from kantoku_kafka.kafka import topics
from kantoku_kafka.kafka.transaction import ExactlyOnceTransaction
from kantoku_kafka.settings import GroupProtocol, Guarantee


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    """One that may be frozen."""
    with EmbeddedBroker(short_lived=True) as own:
        yield own


@contextmanager
def executing(kan: Kantoku, settings: ExecutorSettings) -> Iterator[None]:
    process, failed = ExecutorProcess(kan, settings), []

    def target() -> None:
        try:
            process.run()
        except BaseException as error:  # noqa: BLE001 - raised again in the test's own thread
            failed.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    try:
        yield
    finally:
        process.stop()
        thread.join(90)
        assert not thread.is_alive()
        if failed:
            raise failed[0]


def an_app(name: str, bootstrap: str, *, create: bool = True) -> Kantoku:
    kan = Kantoku(name, bootstrap_servers=bootstrap)

    @kan.task("nap")
    def nap(data: bytes) -> bytes:
        time.sleep(0.002)
        return data

    if create:
        topics.create(kan.clients, topics.plan(kan.topics, ["nap"]))
    return kan


@contextmanager
def handshakes_cut(kan: Kantoku) -> Iterator[None]:
    """All the while connections end as amid a handshake: a balancer in front of the brokers cuts them."""
    over = threading.Event()

    def cut() -> None:
        while not over.wait(0.1):
            kan.clients._on_error(KafkaError(KafkaError._SSL, "connection closed by peer"))

    thread = threading.Thread(target=cut)
    thread.start()
    yield
    over.set()
    thread.join()


@pytest.mark.parametrize("cuts", [nullcontext, handshakes_cut], ids=["", "handshakes cut"])
@pytest.mark.parametrize("protocol", GroupProtocol)
def test_a_broker_that_freezes_amid_commits(
    broker: EmbeddedBroker, protocol: GroupProtocol, cuts: Callable[[Kantoku], AbstractContextManager[None]]
) -> None:
    """Longer than a request may take: whether the commit happened is not known at first."""
    kan = an_app(f"freeze-{protocol.value}-{cuts.__name__}", broker.bootstrap_servers)
    with kan.transaction():  # the coordinator of transactions is awake from then on
        spawned = kan.spawn_many([Task("nap", b"x")] * 6000)
    settings = ExecutorSettings(timeout_seconds=1.0, group_protocol=protocol)
    with executing(kan, settings), cuts(kan):
        kan.gather(spawned[:50], timeout_seconds=60)
        for _ in range(4):
            time.sleep(0.7)
            broker.kill(1, signal.SIGSTOP)
            time.sleep(1.8)
            broker.kill(1, signal.SIGCONT)
        kan.gather(spawned, timeout_seconds=90)
    kan.close()
    Account.of(broker.bootstrap_servers, kan.namespace).check({task.id for task in spawned})


# How librdkafka says it: nobody answers; or the coordinator's name is not known when it connects again (its pod has
# gone), or the handshake is cut: then it claims that the transaction has to be aborted, whatever became of it.
UNANSWERED = {
    "timeout": KafkaError(KafkaError._TIMED_OUT, "no answer", False, True, False),
    "name": KafkaError(KafkaError._RESOLVE, "no such host", False, False, True),
    "handshake": KafkaError(KafkaError._SSL, "connection closed by peer", False, False, True),
}


@pytest.mark.parametrize("happened", [True, False])
@pytest.mark.parametrize("how", UNANSWERED)
def test_a_commit_whose_answer_is_lost(
    kan: Kantoku, bootstrap: str, app: Kantoku, monkeypatch: pytest.MonkeyPatch, how: str, happened: bool
) -> None:
    """Once it had happened, once it had not; either way the partitions that only were claimed mislead nobody."""
    lost, commits = [], itertools.count(1)
    real = ExactlyOnceTransaction._connect

    def connect(self: ExactlyOnceTransaction) -> Any:
        producer = real(self)
        return producer if lost else LosesAnAnswer(producer, UNANSWERED[how], happened, lost, commits)

    monkeypatch.setattr(ExactlyOnceTransaction, "_connect", connect)
    spawned = kan.spawn_many([Task("nap", b"0.3")] * 3 + [Task("echo", b"x")] * 300)
    with executing(app, ExecutorSettings()):
        kan.gather(spawned, timeout_seconds=60)
    assert lost
    Account.of(bootstrap, kan.namespace).check({task.id for task in spawned})


class LosesAnAnswer:
    """A real producer; the answer to the third commit is lost, whichever producer makes it."""

    def __init__(
        self, producer: Producer, error: KafkaError, happened: bool, lost: list[bool], commits: Iterator[int]
    ) -> None:
        self._producer, self._error, self._happened, self._lost, self._commits = (
            producer,
            error,
            happened,
            lost,
            commits,
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def commit_transaction(self, timeout_seconds: float) -> None:
        if next(self._commits) != 3:
            self._producer.commit_transaction(timeout_seconds)
            return
        self._lost.append(True)
        if self._happened:
            self._producer.commit_transaction(timeout_seconds)
        raise KafkaException(self._error)


def effects_into(topic: str, size: int = 1, key: bytes | None = b"k") -> Callable[[bytes, Context], bytes]:
    def function(data: bytes, ctx: Context) -> bytes:
        if data == b"bad":
            ctx.produce(topic, key, b"x" * size)
        return data

    return function


@pytest.mark.parametrize("guarantee", Guarantee)
def test_a_record_that_its_topic_refuses_fails_its_own_task_only(
    kan: Kantoku, app: Kantoku, bootstrap: str, guarantee: Guarantee
) -> None:
    """A compacted topic takes no record without a key; no broker takes one of 3 MB."""
    app.task("keyless", pool="inline")(effects_into(kan.topics.events, key=None))
    app.task("huge", pool="inline")(effects_into(kan.topics.of_type("side"), 3_000_000))
    topics.create(kan.clients, topics.plan(kan.topics, ["keyless", "huge"]))
    tasks = [Task(name, b"bad" if n == 7 else b"good") for name in ("keyless", "huge") for n in range(20)]
    with executing(app, ExecutorSettings(guarantee=guarantee)):
        results = kan.gather(kan.spawn_many(tasks), timeout_seconds=90)
    assert [result.ok for result in results] == [task.data == b"good" for task in tasks]
    assert {r.error.type for r in results if r.error} == {"undeliverable"}
    if guarantee is Guarantee.EXACTLY_ONCE:
        Account.of(bootstrap, kan.namespace).check({result.task_id for result in results})


def test_a_topic_that_takes_small_batches_only(kan: Kantoku, app: Kantoku, bootstrap: str) -> None:
    small = f"{kan.namespace}.small"
    admin = AdminClient(super_user(bootstrap))
    (created,) = admin.create_topics([NewTopic(small, 1, config={"max.message.bytes": "30000"})]).values()
    created.result(10)
    app.task("small", pool="inline")(effects_into(small, 10_000))
    topics.create(kan.clients, topics.plan(kan.topics, ["small"]))
    with executing(app, ExecutorSettings()):
        results = kan.gather(kan.spawn_many([Task("small", b"bad")] * 60), timeout_seconds=60)
    assert all(result.ok for result in results)
    assert len(read_all(bootstrap, small)) == 60


def test_headers_that_are_not_text(kan: Kantoku, bootstrap: str, running: Any) -> None:
    """Any program in C can write them, and confluent-kafka cannot read them."""
    envelope = kan.codec.encode_task(an_envelope := _envelope())
    _produce_raw_header(bootstrap, kan.topics.of_type("echo"), envelope)
    with running():
        spawned = kan.spawn_many([Task("echo", b"x")] * 20)
        assert all(result.ok for result in kan.gather(spawned, timeout_seconds=30))
        assert kan.wait(an_envelope.id, timeout_seconds=30).ok


def _envelope() -> Any:
    from kantoku_kafka.ids import new_task_id
    from kantoku_kafka.model import TaskEnvelope, now_us

    return TaskEnvelope(new_task_id(), "echo", b"data", now_us())


def _produce_raw_header(bootstrap: str, topic: str, value: bytes) -> None:
    """By librdkafka's C API, which takes any bytes for a header's name."""
    import ctypes

    from confluent_kafka import cimpl

    rd = ctypes.CDLL(cimpl.__file__)
    pointer, text, size, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int
    for name, result, arguments in (
        ("rd_kafka_conf_new", pointer, ()),
        ("rd_kafka_conf_set", number, (pointer, text, text, text, size)),
        ("rd_kafka_new", pointer, (number, pointer, text, size)),
        ("rd_kafka_flush", number, (pointer, number)),
        ("rd_kafka_destroy", None, (pointer,)),
    ):
        function = getattr(rd, name)
        function.restype, function.argtypes = result, arguments
    conf, servers = rd.rd_kafka_conf_new(), super_user(bootstrap)["bootstrap.servers"]
    why = ctypes.create_string_buffer(512)
    assert rd.rd_kafka_conf_set(conf, b"bootstrap.servers", servers.encode(), why, 512) == 0, why.value
    producer = rd.rd_kafka_new(0, conf, why, 512)
    topic_is, value_is, header_is, that_is_all = 1, 4, 9, 0  # rd_kafka_vtype_t
    record = (number(topic_is), text(topic.encode()), number(value_is), text(value), size(len(value)))
    header = (number(header_is), text(b"\xff\xfe"), text(b"v"), ctypes.c_ssize_t(1))
    rd.rd_kafka_producev(pointer(producer), *record, *header, number(that_is_all))
    assert rd.rd_kafka_flush(producer, 10_000) == 0
    rd.rd_kafka_destroy(producer)


def test_looking_for_topics_does_not_create_them() -> None:
    """Brokers do that by default, with a policy of their own: the audit topic would lose its history."""
    with EmbeddedBroker(short_lived=True, settings={"auto.create.topics.enable": "true"}) as broker:
        kan = an_app("looking", broker.bootstrap_servers, create=False)
        looks: list[Callable[[], object]] = [
            lambda: kan.spawn(Task("nap", b"x")),
            lambda: kan.wait(new_task_id(), timeout_seconds=1),
            lambda: list(kan.events.replay()),
            lambda: ExecutorProcess(kan, ExecutorSettings()).run(),
            lambda: ExecutorProcess(kan, ExecutorSettings(guarantee=Guarantee.AT_LEAST_ONCE)).run(),
        ]
        for look in looks:
            with pytest.raises(TopicMismatch):
                look()
        kan.close()
        admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
        assert [name for name in admin.list_topics(timeout=10).topics if not name.startswith("__")] == []
