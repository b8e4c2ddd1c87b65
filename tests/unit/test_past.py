"""What results and events tell after the group was set back."""

from __future__ import annotations

from collections.abc import Sequence

from kantoku_kafka.avro.codec import AvroCodec
from kantoku_kafka.engine import doneset
from kantoku_kafka.engine.intake import Intake
from kantoku_kafka.engine.past import NO_PAST, Past, Recollection
from kantoku_kafka.ids import idempotent_id, packed_id
from kantoku_kafka.job import Offset, Place, place_name
from kantoku_kafka.model import Event, Result, Source, Status, Trail

CODEC = AvroCodec()
KEY = idempotent_id("ns", "t", "key")
PLACE = ("ns.tasks.t", 0)


def result(task_id: str, offset: int, partition: int = 0) -> bytes:
    source = Source(PLACE[0], partition, offset, 1)
    return CODEC.encode_result(Result(task_id, "t", Status.OK, b"", None, 1, "host", 1, 2, source, ()))


def event(name: str, offset: int) -> tuple[bytes, bytes]:
    logged = Event(KEY, "t", name, 1, 1, "host", source=Source(*PLACE, offset, 1))
    (value,) = CODEC.encode_trails([Trail.of(logged)])
    return f"{KEY}/1/{name}".encode(), value


def test_it_is_gathered_from_results_and_from_events_that_say_where_a_task_went() -> None:
    recollection = Recollection(CODEC, [PLACE, ("ns.tasks.t", 7)])
    for value in (result(KEY, 9), result(KEY, 5), result("other", 12), result(KEY, 90, partition=1), b"junk"):
        recollection.result(value)
    for key, value in (event("delayed", 3), event("duplicate", 20), event("received_task", 30), (b"x/1/delayed", b"")):
        recollection.event(key, value)
    assert recollection.pasts == {
        PLACE: Past({packed_id(KEY): 9, packed_id("other"): 12}, {(packed_id(KEY), 3), (packed_id(KEY), 20)}, 3, 21)
    }


def test_a_later_spawn_of_the_same_id_is_not_told() -> None:
    past = Past({packed_id(KEY): 9}, {(packed_id(KEY), 20)}, 5, 100)
    assert [past.tells_of(KEY, offset) for offset in (5, 9, 10, 20, 50)] == [True, True, False, True, False]
    assert not past.tells_of("other", 5)
    assert not past.tells_of("other", 20), "in a mirror, or a topic that was created anew, something else stands there"


def test_ids_from_before_the_reset_are_read_again() -> None:
    """Else a spawn of them that is still to come would be a new one."""
    past = Past({packed_id(KEY): 40}, frozenset(), 40, 58)
    intake = Intake(100, 1 << 20, lambda places: dict.fromkeys(places, past))
    (partition,) = intake.open([Offset(*PLACE, 50, "")])
    window = intake.windows[partition]
    assert partition.begin == 40
    assert [window.admit(offset) for offset in (40, 49, 50)] == [False, False, True]


def test_the_past_does_not_grow_with_each_owner() -> None:
    """A successor hears of what has ended since as well, which is not the past of the reset."""
    asked: list[object] = []

    def history(places: Sequence[Place]) -> dict[Place, Past]:
        asked.append(places)
        return dict.fromkeys(places, Past({packed_id(KEY): 90}, frozenset(), 10, 91))

    intake = Intake(100, 1 << 20, history)
    metadata = doneset.encode("writer", place_name(*PLACE), 10, [], past_end=58)
    (partition,) = intake.open([Offset(*PLACE, 10, metadata)])
    assert intake.windows[partition].past_end == 58
    metadata = doneset.encode("writer", place_name(*PLACE), 60, [], past_end=58)
    (partition,) = intake.open([Offset(*PLACE, 60, metadata)])
    assert intake.windows[partition].memory.past == NO_PAST
    assert asked == [[PLACE], []]
