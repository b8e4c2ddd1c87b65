"""What becomes of dead letters: no task id ever gets a second result, whatever events and results still tell."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fake_kafka import FakeKafka, app_on, made_for

from kantoku_kafka import Kantoku
from kantoku_kafka.errors import WaitTimeout
from kantoku_kafka.ids import new_task_id, restarted_id
from kantoku_kafka.job import Message
from kantoku_kafka.model import Event, EventName, Result, Source, Status, TaskEnvelope
from kantoku_kafka.replay.fold import LoggedEvent
from kantoku_kafka.replay.letters import REDRIVEN, LetterFilter, letters, redrive
from kantoku_kafka.replay.store import TaskStore

INPUT = "shop.tasks.resize"
TASK = TaskEnvelope(new_task_id(), "resize", b"x", 1)
ANEW = restarted_id("shop", TASK.id)
PLACE = Source(INPUT, 2, 17)


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> FakeKafka:
    return made_for(monkeypatch, shop_dlq=2, shop_results=1, shop_events=1, **{INPUT: 4})


@pytest.fixture
def kan(kafka: FakeKafka) -> Kantoku:
    return app_on(kafka)


@pytest.fixture
def store() -> Iterator[TaskStore]:
    made = TaskStore(None, "t")
    yield made
    made.close()


def bury(kan: Kantoku, kafka: FakeKafka, error: str, task: TaskEnvelope = TASK, place: Source | None = PLACE) -> None:
    cause = {"error-type": error, "source-topic": INPUT}
    if place is not None:
        cause |= {"source-partition": str(place.partition), "source-offset": str(place.offset)}
    headers = tuple((f"kantoku-{name}", text.encode()) for name, text in cause.items())
    kafka.put(Message(kan.topics.dlq, b"k", kan.codec.encode_task(task), headers))


def end(kan: Kantoku, kafka: FakeKafka, task_id: str, source: Source = PLACE) -> None:
    """The task of this id has a result."""
    result = Result(task_id, "resize", Status.REJECTED, b"", None, 1, "host", None, 1, source)
    kafka.put(Message(kan.topics.results, task_id.encode(), kan.codec.encode_result(result)))


def log(store: TaskStore, *names: str, source: Source | None = None, task_id: str = TASK.id, **attributes: str) -> None:
    events = [Event(task_id, "resize", name, 1, 1, None, source, None, attributes) for name in names]
    with store.writing():
        store.add([LoggedEvent(event, 0, offset) for offset, event in enumerate(events)], {})


def fates(kan: Kantoku, store: TaskStore) -> list[tuple[str | None, bool]]:
    found = redrive(kan, store, letters(kan, LetterFilter()), dry_run=True)
    return [(fate.task_id, fate.known) for fate in found]


@pytest.mark.parametrize("names", [(), ("spawned",), ("spawned", "received_task"), ("spawned", "sent_outputs")])
def test_a_task_that_ran_goes_on_under_another_id_whatever_the_log_says(
    kan: Kantoku, kafka: FakeKafka, store: TaskStore, names: tuple[str, ...]
) -> None:
    bury(kan, kafka, "OSError")
    if names:
        log(store, *names)
    assert fates(kan, store) == [(ANEW, False)]


@pytest.mark.parametrize("spawned", [True, False])
def test_a_record_that_never_had_a_result_goes_back_under_its_own_id(
    kan: Kantoku, kafka: FakeKafka, store: TaskStore, spawned: bool
) -> None:
    bury(kan, kafka, "EnvelopeError")
    end(kan, kafka, new_task_id())
    if spawned:
        log(store, "spawned")
    assert fates(kan, store) == [(TASK.id, False)]
    log(store, "spawned", REDRIVEN)
    assert fates(kan, store) == [(TASK.id, True)]


def test_a_task_that_was_refused_has_a_result(kan: Kantoku, kafka: FakeKafka, store: TaskStore) -> None:
    """Its options could not be read: the letter says EnvelopeError as well."""
    bury(kan, kafka, "EnvelopeError")
    end(kan, kafka, TASK.id)
    assert fates(kan, store) == [(ANEW, False)]
    log(store, EventName.SENT_OUTPUTS, source=PLACE)
    kafka.logs.pop((kan.topics.results, 0))
    assert fates(kan, store) == [(ANEW, False)]


def test_options_that_no_task_can_have_were_refused_with_a_result(
    kan: Kantoku, kafka: FakeKafka, store: TaskStore
) -> None:
    bury(kan, kafka, "EnvelopeError", TASK._replace(max_attempts=0))
    assert fates(kan, store) == [(ANEW, False)]


@pytest.mark.parametrize("logged", [True, False])
def test_what_was_put_back_and_has_ended_since_is_left_alone(
    kan: Kantoku, kafka: FakeKafka, store: TaskStore, logged: bool
) -> None:
    bury(kan, kafka, "EnvelopeError")
    if logged:
        log(store, REDRIVEN, EventName.SENT_OUTPUTS, source=PLACE._replace(offset=99))
    else:
        end(kan, kafka, TASK.id, PLACE._replace(offset=99))
    assert fates(kan, store) == [(TASK.id, True)]


def test_a_letter_without_a_place_is_told_from_its_redrive_by_the_log(
    kan: Kantoku, kafka: FakeKafka, store: TaskStore
) -> None:
    bury(kan, kafka, "EnvelopeError", place=None)
    end(kan, kafka, TASK.id)
    assert fates(kan, store) == [(ANEW, False)]
    log(store, REDRIVEN)
    assert fates(kan, store) == [(TASK.id, True)]


def test_a_second_letter_of_what_was_put_back_is_redriven_too(kan: Kantoku, kafka: FakeKafka, store: TaskStore) -> None:
    again = PLACE._replace(offset=99)
    bury(kan, kafka, "EnvelopeError")
    bury(kan, kafka, "OSError", place=again)
    bury(kan, kafka, "OSError", place=again)
    log(store, REDRIVEN, EventName.SENT_OUTPUTS, source=again)
    assert fates(kan, store) == [(TASK.id, True), (ANEW, False), (ANEW, True)]


@pytest.mark.parametrize("forgotten", [True, False])
def test_what_was_spawned_anew_before_is_left_alone(
    kan: Kantoku, kafka: FakeKafka, store: TaskStore, forgotten: bool
) -> None:
    """Also where the log has forgotten both tasks, and only the result of the new one is there."""
    bury(kan, kafka, "OSError")
    if forgotten:
        end(kan, kafka, ANEW)
    else:
        log(store, "spawned", task_id=ANEW, restarted_from=TASK.id)
    assert fates(kan, store) == [(ANEW, True)]


def test_a_result_that_cannot_be_read_is_a_result(kan: Kantoku, kafka: FakeKafka, store: TaskStore) -> None:
    bury(kan, kafka, "OSError")
    kafka.put(Message(kan.topics.results, ANEW.encode(), b"of a later version"))
    assert fates(kan, store) == [(ANEW, True)]


def test_results_that_do_not_come_are_not_taken_for_none(kan: Kantoku, kafka: FakeKafka, store: TaskStore) -> None:
    bury(kan, kafka, "EnvelopeError")
    end(kan, kafka, TASK.id)
    kafka.stable[kan.topics.results, 0] = 0
    with pytest.raises(WaitTimeout):
        fates(kan, store)


def test_results_are_not_read_where_events_tell(kan: Kantoku, kafka: FakeKafka, store: TaskStore) -> None:
    bury(kan, kafka, "OSError")
    log(store, "spawned")
    kafka.put(Message(kan.topics.results, b"k", b"v"))
    kafka.stable[kan.topics.results, 0] = 0
    assert fates(kan, store) == [(ANEW, False)]


def test_letters_that_come_later_than_the_call_are_none_of_it(kan: Kantoku, kafka: FakeKafka) -> None:
    """So whatever is read behind the call knows how the task of each letter had ended."""
    bury(kan, kafka, "OSError")
    found = letters(kan, LetterFilter())
    bury(kan, kafka, "OSError")
    assert len(list(found)) == 1


@pytest.mark.parametrize("decided", [True, False])
def test_letters_of_an_open_transaction_are_waited_for_first(
    kan: Kantoku, kafka: FakeKafka, monkeypatch: pytest.MonkeyPatch, decided: bool
) -> None:
    """Its results and events may not have been written yet."""
    bury(kan, kafka, "OSError")
    kafka.stable[kan.topics.dlq, 0] = 0
    if decided:
        monkeypatch.setattr(kafka, "sleep", lambda _: kafka.stable.clear())
        assert len(list(letters(kan, LetterFilter()))) == 1
    else:
        with pytest.raises(WaitTimeout, match="a transaction has been open for 60 s"):
            letters(kan, LetterFilter())


def test_a_letter_that_nobody_can_run_is_left_alone(kan: Kantoku, kafka: FakeKafka, store: TaskStore) -> None:
    kafka.put(Message(kan.topics.dlq, None, b"no task"))
    bury(kan, kafka, "EnvelopeError", TASK._replace(type="a/b"))
    bury(kan, kafka, "OSError", TASK._replace(type="a/b"))
    assert fates(kan, store) == [(None, False)] * 3
