"""The audit topic as a log: replayed, followed, folded into the state of every task."""

from kantoku_kafka.replay.fold import Fold, LoggedEvent, Phase, TaskState
from kantoku_kafka.replay.log import EventFilter, EventLog, Replay
from kantoku_kafka.replay.query import TaskQuery
from kantoku_kafka.replay.store import TaskStore

__all__ = [
    "EventFilter",
    "EventLog",
    "Fold",
    "LoggedEvent",
    "Phase",
    "Replay",
    "TaskQuery",
    "TaskState",
    "TaskStore",
]
