"""Finished tasks pruned: tombstones for their events, which compaction then removes."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from functools import cache
from typing import TYPE_CHECKING

from kantoku_kafka.kafka.outputs import EventWriter
from kantoku_kafka.kafka.topics import existing_topics
from kantoku_kafka.model import EventName
from kantoku_kafka.replay.again import Recorder
from kantoku_kafka.replay.fold import TaskState
from kantoku_kafka.replay.letters import REDRIVEN, LetterFilter, letters
from kantoku_kafka.replay.query import TaskQuery
from kantoku_kafka.replay.store import TaskStore

if TYPE_CHECKING:
    from kantoku_kafka.app import Kantoku

__all__ = ["at_rest", "prune"]

_CHUNK = 1_000
_BEGINNINGS = frozenset({EventName.SPAWNED, EventName.DELAYED, EventName.RECEIVED_TASK, EventName.RETRY_SCHEDULED})


def prune(kantoku: Kantoku, store: TaskStore, query: TaskQuery, limit: int, *, dry_run: bool = False) -> int:
    """Write a tombstone for every event of these tasks, the oldest first. Returns how many tasks.

    Left alone: one that has not ended, or whose id was spawned again since, as the log has it right before its
    tombstones are written; and what says that a dead letter was redriven, while there is that letter. Repeating it is
    harmless.

    Parameters:
        store: a scratch of the log; it is kept up to date meanwhile.
        limit: so many tasks are looked at.
        dry_run: only count.

    Raises:
        TopicMismatch, SpawnError, AccessDenied, BrokerUnavailable: what came before is written.
        WaitTimeout: a transaction stays open.
    """
    writer = EventWriter.connect(kantoku.clients, kantoku.topics.events, kantoku.codec)
    recorder, pruned = Recorder(kantoku), 0

    @cache
    def buried() -> AbstractSet[str]:
        if kantoku.topics.dlq not in existing_topics(kantoku.clients):
            return frozenset()
        return frozenset(letter.task.id for letter in letters(kantoku, LetterFilter()) if letter.task is not None)

    chosen = [state.task_id for state in store.find(query, limit)]
    for at in range(0, len(chosen), _CHUNK):
        kantoku.events.fold_into(store)
        for state in filter(None, map(store.get, chosen[at : at + _CHUNK])):
            redriven = _redriven(state)
            if not at_rest(state) or (redriven is not None and redriven in buried()):
                continue
            pruned += 1
            for logged in () if dry_run else state.history:
                topic, key, _, headers, partition = writer.message(logged.event)
                recorder.write((topic, key, None, headers, partition))
        recorder.flush()
    return pruned


def _redriven(state: TaskState) -> str | None:
    """The task whose dead letter may have led to this state."""
    put_back = any(logged.event.name == REDRIVEN for logged in state.history)
    return state.task_id if put_back else state.restarted_from


def at_rest(state: TaskState) -> bool:
    """Whether a task has ended and nothing began under its id since: an event ``spawned`` may come late, not later."""
    if state.finished_at_us is None:
        return False
    end = max(logged.offset for logged in state.history if logged.event.name == EventName.SENT_OUTPUTS)
    since = [logged.event for logged in state.history if logged.offset > end]
    return not any(
        event.name in _BEGINNINGS and (event.name != EventName.SPAWNED or event.at_us > state.finished_at_us)
        for event in since
    )
