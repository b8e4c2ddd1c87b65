"""A namespace of its own for each test, on the broker of the session."""

from __future__ import annotations

import importlib
import os
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import task_app
from access import CLIENT, MODE_VARIABLE, as_user, rights, secured_run, super_user
from confluent_kafka.admin import AdminClient
from executors import CONFIG_VARIABLE
from registries import Apicurio, running_registry

from kantoku_kafka import Kantoku
from kantoku_kafka.executor import ExecutorProcess
from kantoku_kafka.kafka import topics
from kantoku_kafka.kafka.rights import Role
from kantoku_kafka.names import Topics
from kantoku_kafka.settings import ExecutorSettings
from kantoku_kafka.testing.broker import BrokerHandle

TYPES = ("echo", "work", "note", "nap", "outcome", "effects", "side")
# Of apps that tests write themselves, and types that nobody has.
OTHERS = ("double", "fragile", "huge", "keyless", "never-created", "no-such-type", "nobody_serves_this", "nowhere")
OTHERS += ("quick", "slow", "small", "version")
APPS = ("dying_app", "hygiene_app", "producing_app", "retry_app", "rogue_app", "sealed_app", "task_app", "tracing_app")


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """Ctrl-C reaches what tests start, though a shell made these tests ignore it: a job in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A secured run is of the tests that share a broker, but for those that say why they cannot be."""
    if MODE_VARIABLE not in os.environ:
        return
    ours = [item for item in items if "bootstrap" in getattr(item, "fixturenames", ())]
    kept = [item for item in ours if not item.get_closest_marker("unsecured")]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


@pytest.fixture(scope="session")
def bootstrap(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the broker of the session answers; :mod:`access` says as whom a client connects."""
    mode = os.environ.get(MODE_VARIABLE)
    if not mode:
        broker: BrokerHandle = request.getfixturevalue("kantoku_broker")
        yield broker.bootstrap_servers
        return
    with secured_run(mode, tmp_path_factory.mktemp("secured")) as run:
        os.environ["KANTOKU_CONFIG"] = run.file(CLIENT)
        os.environ[CONFIG_VARIABLE] = run.file(Role.EXECUTOR)
        with rights("nowhere", ()), rights("no-such-namespace", inputs_of(Topics(namespace="no-such-namespace"))):
            yield run.servers


def inputs_of(names: Topics) -> Iterator[str]:
    """The input topics of all apps here, and of tests that make or miss their own, in one namespace."""
    yield f"{names.namespace}.shared"
    yield from map(names.of_type, (*TYPES, *OTHERS))
    for name in APPS:
        for task in importlib.import_module(name).kan.task_types.values():
            yield from task.inputs(names)


@pytest.fixture(scope="module")
def apicurio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apicurio]:
    """A real schema registry, for the tests of a module."""
    with running_registry(tmp_path_factory.mktemp("apicurio") / "log") as registry:
        yield registry


@pytest.fixture
def namespace(bootstrap: str) -> Iterator[str]:
    """A namespace whose topics exist, all of 4 partitions; deleted after the test."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    kan = Kantoku(name, **as_user(bootstrap))
    with rights(name, inputs_of(kan.topics)):
        topics.create(kan.clients, topics.plan(kan.topics, TYPES))
        yield name
    admin = AdminClient(super_user(bootstrap))
    mine = [topic for topic in admin.list_topics(timeout=10).topics if topic.startswith(f"{name}.")]
    for future in admin.delete_topics(mine).values():
        future.result(10)


@pytest.fixture
def kan(bootstrap: str, namespace: str) -> Iterator[Kantoku]:
    """The spawning side."""
    client = Kantoku(namespace, **as_user(bootstrap))
    yield client
    client.close()


@pytest.fixture
def app(bootstrap: str, namespace: str) -> Iterator[Kantoku]:
    """The executing side, with the tasks of ``task_app``."""
    executing = Kantoku(namespace, **as_user(bootstrap, Role.EXECUTOR))
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
