"""Finished tasks pruned, over a Kafka of lists: only what nobody needs any more goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fake_kafka import FakeKafka, app_on, made_for

from kantoku_kafka import Kantoku
from kantoku_kafka.errors import WaitTimeout
from kantoku_kafka.job import Message
from kantoku_kafka.kafka.outputs import EventWriter
from kantoku_kafka.model import Event, Source, TaskEnvelope
from kantoku_kafka.replay import prune as pruning
from kantoku_kafka.replay.again import originals
from kantoku_kafka.replay.letters import REDRIVEN
from kantoku_kafka.replay.prune import prune
from kantoku_kafka.replay.query import TaskQuery
from kantoku_kafka.replay.store import TaskStore

TOPIC = "shop.tasks.t"


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> FakeKafka:
    return made_for(monkeypatch, shop_events=2, shop_dlq=1, **{TOPIC: 1})


@pytest.fixture
def kan(kafka: FakeKafka) -> Kantoku:
    return app_on(kafka)


@pytest.fixture
def store() -> Iterator[TaskStore]:
    made = TaskStore(None, "t")
    yield made
    made.close()


@pytest.fixture
def flushed(kafka: FakeKafka, monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """What is written goes to the lists; the functions that a test puts here are called behind each flush."""
    hooks: list[Callable[[], None]] = []

    class Written:
        def __init__(self, _: Kantoku) -> None: ...

        def write(self, record: tuple[Any, ...]) -> None:
            kafka.put(Message(*record))

        def flush(self) -> None:
            for hook in hooks:
                hook()

    monkeypatch.setattr(pruning, "Recorder", Written)
    return hooks


def log(kan: Kantoku, kafka: FakeKafka, task_id: str, *names: str, at_us: int = 1, **attributes: str) -> None:
    clients: Any = kafka
    writer = EventWriter.connect(clients, kan.topics.events, kan.codec)
    for name in names:
        kafka.put(writer.message(Event(task_id, "t", name, 1, at_us, attributes=attributes)))


def left(kan: Kantoku) -> list[str]:
    with kan.events.snapshot() as store:
        return [state.task_id for state in store.find(TaskQuery())]


def test_what_was_spawned_again_meanwhile_keeps_its_events(
    kan: Kantoku, kafka: FakeKafka, store: TaskStore, flushed: list[Callable[[], None]]
) -> None:
    log(kan, kafka, "a", "spawned", "sent_outputs")
    log(kan, kafka, "b", "spawned", "sent_outputs")
    kan.events.fold_into(store)
    log(kan, kafka, "b", "spawned", at_us=2)
    assert prune(kan, store, TaskQuery(), 10) == 1
    assert left(kan) == ["b"]


def test_so_does_what_is_spawned_again_between_two_chunks(
    kan: Kantoku,
    kafka: FakeKafka,
    store: TaskStore,
    flushed: list[Callable[[], None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pruning, "_CHUNK", 1)
    for task_id in "abc":
        log(kan, kafka, task_id, "spawned", "sent_outputs")
    kan.events.fold_into(store)
    flushed.append(lambda: log(kan, kafka, "c", "received_task", at_us=2))
    assert prune(kan, store, TaskQuery(), 10, dry_run=True) == 2
    assert prune(kan, store, TaskQuery(), 10) == 2
    assert left(kan) == ["c"]


@pytest.mark.parametrize("buried", [True, False])
def test_that_a_letter_was_redriven_is_known_as_long_as_it_is_there(
    kan: Kantoku, kafka: FakeKafka, store: TaskStore, flushed: list[Callable[[], None]], buried: bool
) -> None:
    for task_id in ("failed", "poison", "other") if buried else ("other",):
        kafka.put(Message(kan.topics.dlq, b"k", kan.codec.encode_task(TaskEnvelope(task_id, "t", b"", 1))))
    log(kan, kafka, "failed", "spawned", "sent_outputs")
    log(kan, kafka, "new", "spawned", "sent_outputs", restarted_from="failed")
    log(kan, kafka, "poison", REDRIVEN, "sent_outputs")
    kan.events.fold_into(store)
    assert prune(kan, store, TaskQuery(), 10) == (1 if buried else 3)
    assert left(kan) == (["new", "poison"] if buried else [])


def test_an_input_that_does_not_answer_is_not_taken_for_one_that_has_lost_the_task(
    kan: Kantoku, kafka: FakeKafka, store: TaskStore
) -> None:
    clients: Any = kafka
    writer = EventWriter.connect(clients, kan.topics.events, kan.codec)
    kafka.put(writer.message(Event("a", "t", "sent_outputs", 1, 1, source=Source(TOPIC, 0, 0))))
    kan.events.fold_into(store)
    states = list(store.find(TaskQuery()))
    ((state, task),) = originals(kan, states)
    assert (state.task_id, task) == ("a", None)
    kafka.silent = True
    with pytest.raises(WaitTimeout):
        list(originals(kan, states))
