"""Timers change hands while somebody's transaction is open in their partition: none fires twice."""

from __future__ import annotations

from access import super_user
from accounting import Account, read_all
from confluent_kafka import Producer
from conftest import Running
from executors import until

from kantoku_kafka import Kantoku, Spawned, Task, delay
from kantoku_kafka.ids import new_task_id
from kantoku_kafka.kafka.partitioner import partition_of

PARTITIONS, FAR = 4, 40


def test_what_has_fired_behind_an_open_transaction_does_not_fire_again(
    kan: Kantoku, bootstrap: str, running: Running
) -> None:
    """The mark that it has fired stands where nobody sees it yet: behind the last stable offset."""
    far = kan.spawn_many([Task("echo", b"far").with_(delay(seconds=3600))] * FAR)  # the next owner reads from there
    blocking = Producer({**super_user(bootstrap), "transactional.id": f"{kan.namespace}.blocking"})
    blocking.init_transactions(10)
    with running():
        warm = kan.spawn_many([Task("echo", b"warm").with_(delay(seconds=0.5))] * FAR)
        kan.gather(warm, timeout_seconds=60)  # timers of all partitions fire: it has read them to their ends
        spawned = kan.spawn(Task("echo", b"once").with_(delay(seconds=4)))
        until(lambda: spawned.id in _keys(bootstrap, kan.topics.timers), 4, "its timer stands there")
        blocking.begin_transaction()
        number = partition_of(spawned.id.encode(), PARTITIONS)
        blocking.produce(kan.topics.timers, None, new_task_id().encode(), partition=number)
        assert blocking.flush(10) == 0
        assert kan.wait(spawned.id, timeout_seconds=30).ok
    with running():
        others: list[Spawned] = []

        def timers_fire() -> bool:
            others.append(kan.spawn(Task("echo", b"x").with_(delay(seconds=0.1))))
            seen = kan.find_results([task.id for task in others])
            return any(partition_of(task_id.encode(), PARTITIONS) != number for task_id in seen)

        until(timers_fire, 30, "timers of other partitions fire: the next owner has read what it may see")
        blocking.abort_transaction(10)
        kan.cancel(*(task.id for task in far))
        kan.gather([*others, *far], timeout_seconds=30)
    Account.of(bootstrap, kan.namespace).check({task.id for task in (spawned, *warm, *others, *far)})


def _keys(bootstrap: str, topic: str) -> set[str]:
    return {(record.key() or b"").decode() for record in read_all(bootstrap, topic)}
