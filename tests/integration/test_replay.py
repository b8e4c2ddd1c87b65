"""The audit topic replayed and folded, while others write to it; judged by a reader of its own."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from access import super_user
from accounting import read_all
from administration import alter_topic
from confluent_kafka import Message as KafkaMessage
from confluent_kafka import Producer
from conftest import Running
from executors import ExecutorUnderTest, until

from kantoku_kafka import Kantoku, Task, labels
from kantoku_kafka.avro.codec import AvroCodec
from kantoku_kafka.errors import UsageError
from kantoku_kafka.model import Event, now_us
from kantoku_kafka.replay.fold import Fold, LoggedEvent, Phase, TaskState
from kantoku_kafka.replay.log import EventFilter
from kantoku_kafka.replay.query import TaskQuery

CODEC = AvroCodec()
CANARY = b"canary/1/a.canary"


def folded(records: Sequence[KafkaMessage]) -> dict[str, TaskState]:
    histories: defaultdict[str, list[LoggedEvent]] = defaultdict(list)
    for m in records:
        event = CODEC.decode_event(m.value() or b"")
        histories[event.task_id].append(LoggedEvent(event, m.partition() or 0, m.offset() or 0))
    return {task_id: Fold().state(history) for task_id, history in histories.items()}


def an_event(name: str = "spawned", task_id: str = "nobody") -> bytes:
    from kantoku_kafka.model import Trail

    return CODEC.encode_trails([Trail.of(Event(task_id, "t", name, 1, now_us()))])[0]


def test_replay_while_executors_write_and_are_killed(kan: Kantoku, bootstrap: str, tmp_path: Path) -> None:
    """Each replay has exactly the committed events below its ends, which the topic as it is in the end tells."""
    executors = [
        ExecutorUnderTest(bootstrap, kan.namespace, "--types", "work", log=tmp_path / f"{n}.log") for n in range(4)
    ]
    first, *_ = kan.spawn_many([Task("work", b"x")] * 6000)
    kan.wait(first.id, timeout_seconds=60)
    replays: list[tuple[set[tuple[int, int]], dict[int, int]]] = []
    for number in range(5):
        time.sleep(0.4)
        if number in (1, 3):
            executors[number].kill(signal.SIGKILL)
        replay = kan.events.replay()
        seen = [(logged.partition, logged.offset) for batch in replay.batches() for logged in batch]
        assert len(seen) == len(set(seen))
        replays.append((set(seen), replay.offsets))
    until(lambda: len(read_all(bootstrap, kan.topics.results)) == 6000, 60, "all results")
    for executor in executors:
        if executor.returncode is None:
            executor.kill(signal.SIGTERM)
            executor.wait(30)
    committed = {(m.partition() or 0, m.offset() or 0) for m in read_all(bootstrap, kan.topics.events)}
    for seen_then, ends in replays:
        assert seen_then == {place for place in committed if place[1] < ends[place[0]]}
    assert len({len(seen_then) for seen_then, _ in replays}) > 1, "they were taken at different times"


def test_events_of_an_aborted_transaction_do_not_appear(kan: Kantoku, bootstrap: str) -> None:
    producer = Producer({**super_user(bootstrap), "transactional.id": f"{kan.namespace}.rogue"})
    producer.init_transactions(10)
    for commit in (False, True, False):
        producer.begin_transaction()
        for number in range(3):
            producer.produce(kan.topics.events, an_event(task_id=f"{commit}-{number}"), b"k", partition=0)
        producer.flush()
        if commit:
            producer.commit_transaction(10)
        else:
            producer.abort_transaction(10)
    replay = kan.events.replay()
    assert [event.task_id for event in replay] == ["True-0", "True-1", "True-2"]
    assert replay.offsets == {0: 12, 1: 0, 2: 0, 3: 0}, "behind the markers: nothing is read twice"


def test_an_open_transaction_is_waited_for(kan: Kantoku, bootstrap: str) -> None:
    """What was written by the time the replay began is missed neither when it is committed later."""
    producer = Producer({**super_user(bootstrap), "transactional.id": f"{kan.namespace}.slow"})
    producer.init_transactions(10)
    producer.begin_transaction()
    producer.produce(kan.topics.events, an_event(), b"k", partition=0)
    producer.flush()
    timer = threading.Timer(1.0, producer.commit_transaction)
    timer.start()
    assert [event.task_id for event in kan.events.replay()] == ["nobody"]
    timer.join()


def test_a_snapshot_of_the_past_under_compaction(kan: Kantoku, bootstrap: str, running: Running) -> None:
    """The state as of T is that of what a recorder had by T, though the log has been compacted since."""
    _compact_eagerly(bootstrap, kan.topics.events)
    recordings: list[tuple[int, list[KafkaMessage]]] = []
    with running():
        for _ in range(3):
            for task in kan.spawn_many([Task("echo", b"x" * 100).with_(labels(n="1"))] * 2000):
                last = task
            # What is stamped before this moment is in the recording for sure.
            recordings.append((now_us() // 1000, read_all(bootstrap, kan.topics.events)))
            kan.wait(last.id, timeout_seconds=30)
        kan.gather(kan.spawn_many([Task("echo", b"x")] * 500), timeout_seconds=30)
    _await_compaction(kan, bootstrap)
    for as_of_ms, recording in recordings:
        kept = [m for m in recording if m.timestamp()[1] < as_of_ms]
        with kan.events.snapshot(as_of=_at(as_of_ms)) as store:
            states = {state.task_id: state for state in store.find(TaskQuery())}
        assert states == folded(kept)
    with kan.events.snapshot() as store:
        assert store.count(TaskQuery(status="OK")) == 6500
        assert [state.problems for state in store.find(TaskQuery()) if state.problems] == []


def test_a_view_is_kept_up_to_date_and_forgets_what_is_pruned(kan: Kantoku, running: Running, tmp_path: Path) -> None:
    path = tmp_path / "view"
    with kan.events.view(path) as store:
        assert store.count(TaskQuery()) == 0
    with running():
        tasks = kan.spawn_many([Task("echo", b"x")] * 20 + [Task("outcome", b"fail")])
        kan.gather(tasks, timeout_seconds=30)
    with kan.events.view(path) as store:
        assert store.count(TaskQuery(phase=Phase.FINISHED)) == 21
        state = store.get(tasks[0].id)
        assert state is not None
        history = state.history
    _tombstone(kan, history)
    with kan.events.view(path) as store:
        assert (store.get(tasks[0].id), store.count(TaskQuery())) == (None, 20)
    path.write_bytes(path.read_bytes()[:72] + b"damaged" * 1000)
    with kan.events.view(path) as store:
        assert store.count(TaskQuery()) == 20


def test_points_in_time_and_offsets(kan: Kantoku) -> None:
    kan.spawn(Task("echo", b"1"))
    time.sleep(0.05)
    between = datetime.now(UTC)
    time.sleep(0.05)
    kan.spawn(Task("echo", b"2").with_(labels(which="second")))
    both = list(kan.events.replay())
    assert len(both) == 2
    assert len(list(kan.events.replay(until=between))) == len(list(kan.events.replay(since=between))) == 1
    (second,) = kan.events.replay(wanted=EventFilter(labels={"which": "second"}))
    assert list(kan.events.replay(wanted=EventFilter(task_id=second.task_id))) == [second]
    assert list(kan.events.replay(wanted=EventFilter(type="other"))) == []
    replay = kan.events.replay()
    assert len(list(replay)) == 2
    kan.spawn(Task("echo", b"3"))
    assert len(list(kan.events.replay(since=replay.offsets))) == 1
    with pytest.raises(UsageError, match="future"):
        kan.events.replay(since=datetime.now(UTC) + timedelta(hours=1))
    with pytest.raises(UsageError, match="time zone"):
        kan.events.replay(since=datetime(2026, 1, 1))
    with pytest.raises(UsageError, match="no offset 99"):
        kan.events.replay(since={0: 99})


def test_tail_goes_on(kan: Kantoku) -> None:
    live = iter(kan.events.tail().batches())
    assert next(live) == []
    kan.spawn(Task("echo", b"1"))
    deadline = time.monotonic() + 10
    seen: list[LoggedEvent] = []
    while not seen and time.monotonic() < deadline:
        seen += next(live)
    assert [logged.event.name for logged in seen] == ["spawned"]


def test_what_cannot_be_read_is_counted(kan: Kantoku, bootstrap: str) -> None:
    newer = bytearray(an_event())
    newer[3] ^= 255
    producer = Producer(super_user(bootstrap))
    for value in (b"junk", bytes(newer), an_event("their.own"), an_event("never_heard_of")):
        producer.produce(kan.topics.events, value, b"k", partition=0)
    producer.flush()
    replay = kan.events.replay()
    assert [event.name for event in replay] == ["their.own", "never_heard_of"]
    assert replay.unreadable == 2


def _at(ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)


def _compact_eagerly(bootstrap: str, topic: str) -> None:
    alter_topic(
        bootstrap,
        topic,
        segment_ms="300",
        min_cleanable_dirty_ratio="0.01",
        max_compaction_lag_ms="500",
        delete_retention_ms="100",
    )


def _await_compaction(kan: Kantoku, bootstrap: str) -> None:
    """One event again and again, until the first ones of every partition have gone."""
    producer = Producer(super_user(bootstrap))
    deadline = time.monotonic() + 60
    written = 0
    while time.monotonic() < deadline:
        for partition in range(4):
            producer.produce(kan.topics.events, an_event("a.canary", "canary"), CANARY, partition=partition)
        producer.flush()
        written += 1
        time.sleep(0.5)
        left = Counter(m.partition() for m in read_all(bootstrap, kan.topics.events) if m.key() == CANARY)
        if all(left[partition] < written for partition in range(4)):
            return
    pytest.fail("the broker did not compact")


def _tombstone(kan: Kantoku, history: Sequence[LoggedEvent]) -> None:
    producer = Producer(super_user(kan.connection.bootstrap_servers))
    for event, partition, _ in history:
        key = f"{event.task_id}/{event.attempt}/{event.name}".encode()
        producer.produce(kan.topics.events, None, key, partition=partition)
    producer.flush()
