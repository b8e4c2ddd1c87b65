"""A namespace of its own for each test, on the broker of the session."""

from __future__ import annotations

import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import task_app
from confluent_kafka.admin import AdminClient

from kantoku_kafka import Kantoku
from kantoku_kafka.executor import ExecutorProcess
from kantoku_kafka.kafka import topics
from kantoku_kafka.settings import ExecutorSettings
from kantoku_kafka.testing.broker import BrokerHandle

TYPES = ("echo", "work", "note", "nap", "outcome", "effects", "side")


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """Ctrl-C reaches what tests start, though a shell made these tests ignore it: a job in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def bootstrap(kantoku_broker: BrokerHandle) -> str:
    return kantoku_broker.bootstrap_servers


@pytest.fixture
def namespace(bootstrap: str) -> Iterator[str]:
    """A namespace whose topics exist, all of 4 partitions; deleted after the test."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    kan = Kantoku(name, bootstrap_servers=bootstrap)
    topics.create(kan.clients, topics.plan(kan.topics, TYPES))
    yield name
    admin = AdminClient({"bootstrap.servers": bootstrap})
    mine = [topic for topic in admin.list_topics(timeout=10).topics if topic.startswith(f"{name}.")]
    for future in admin.delete_topics(mine).values():
        future.result(10)


@pytest.fixture
def kan(bootstrap: str, namespace: str) -> Iterator[Kantoku]:
    """The spawning side."""
    client = Kantoku(namespace, bootstrap_servers=bootstrap)
    yield client
    client.close()


@pytest.fixture
def app(bootstrap: str, namespace: str) -> Iterator[Kantoku]:
    """The executing side, with the tasks of ``task_app``."""
    executing = Kantoku(namespace, bootstrap_servers=bootstrap)
    executing._task_types.update(task_app.kan.task_types)
    yield executing
    executing.close()


Running = Callable[..., AbstractContextManager[ExecutorProcess]]


@pytest.fixture
def running(app: Kantoku) -> Running:
    """An executor in a thread of the test; its errors become the test's."""

    @contextmanager
    def run(settings: ExecutorSettings | None = None, **more: object) -> Iterator[ExecutorProcess]:
        process = ExecutorProcess(app, settings, **more)  # type: ignore[arg-type]  # passed through
        failed: list[BaseException] = []

        def target() -> None:
            try:
                process.run()
            except BaseException as error:  # noqa: BLE001 - raised again in the test's own thread
                failed.append(error)

        thread = threading.Thread(target=target, name="executor")
        thread.start()
        try:
            yield process
        finally:
            process.stop()
            thread.join(60)
            assert not thread.is_alive(), "the executor did not end"
            if failed:
                raise failed[0]

    return run
