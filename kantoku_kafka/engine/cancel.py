"""What a person tells executors by commands, and which tasks were cancelled. Pure; each loop keeps its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache

from kantoku_kafka.avro.control import encode_command
from kantoku_kafka.job import Message
from kantoku_kafka.model import Command, ErrorInfo, TaskEnvelope

__all__ = ["CANCEL", "CANCELLED_REASON", "QUIET", "STOP", "Cancellations", "cancelled_error", "command_message"]

CANCEL, QUIET, STOP = "cancel", "quiet", "stop"
"""Kinds of commands."""
CANCELLED_REASON = "cancelled"
_MOST_IDS, _MOST_CHOICES = 1_000_000, 10_000


class Cancellations:
    """One thread uses it; false as long as nothing was ever cancelled, so that asking costs nothing then.

    Kept are the last million of ids, and of commands that choose by type and labels the last of each choice, ten
    thousand at most.
    """

    def __init__(self) -> None:
        self._by_id: dict[str, Command] = {}
        self._rules: dict[str, Command] = {}

    def __bool__(self) -> bool:
        return bool(self._by_id or self._rules)

    def add(self, commands: Iterable[Command]) -> list[Command]:
        """Take note of those that cancel, and answer them."""
        added = [command for command in commands if command.kind == CANCEL]
        for command in added:
            if command.task_id is None:
                _keep(self._rules, _choice(command), command, _MOST_CHOICES)
            else:
                _keep(self._by_id, command.task_id, command, _MOST_IDS)
        return added

    def match(self, task_id: str, task_type: str, envelope: Callable[[], TaskEnvelope]) -> Command | None:
        """The command that cancels this task; the envelope is asked for only if id or type speak for it."""
        envelope = cache(envelope)  # read once, however many ask
        named = self._by_id.get(task_id)
        if named is not None and covers(named, task_id, task_type, envelope):
            return named
        return next((rule for rule in self._rules.values() if covers(rule, task_id, task_type, envelope)), None)


def _keep(commands: dict[str, Command], key: str, command: Command, most: int) -> None:
    """As the last one; the first one has to go if there are too many."""
    commands.pop(key, None)
    commands[key] = command
    if len(commands) > most:
        del commands[next(iter(commands))]


def covers(command: Command, task_id: str, task_type: str, envelope: Callable[[], TaskEnvelope]) -> bool:
    """Whether one command means this task: what it names must fit, and the task be older than the command."""
    if command.task_id not in (None, task_id) or command.type not in (None, task_type):
        return False
    if command.task_id is None and command.type is None and not command.labels:
        return False
    task = envelope()
    return task.created_at_us <= command.at_us and command.labels.items() <= task.labels.items()


def cancelled_error(command: Command | None) -> ErrorInfo:
    """What a cancelled task's result says; None: the command is forgotten by now."""
    return ErrorInfo("cancelled", (command and command.reason) or "The task was cancelled.")


def command_message(topic: str, command: Command) -> Message:
    """A command as a record. A later one for the same task, executor or choice has its key, and replaces it."""
    key = command.task_id or command.executor_id or _choice(command)
    return Message(topic, key.encode(), encode_command(command))


def _choice(command: Command) -> str:
    """What a command chooses tasks by."""
    labels = "&".join(f"{name}={value}" for name, value in sorted(command.labels.items()))
    return f"{command.kind}/{command.type or ''}/{labels}"
