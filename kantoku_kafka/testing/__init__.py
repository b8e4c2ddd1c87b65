"""For tests of tasks and of own parts: tasks without a broker, a broker for pytest, the contract of every part.

::

    from kantoku_kafka.testing import run_tasks

    def test_resize():
        assert run_tasks(kan, [Task("resize", photo)]).results[0].ok

The fixture ``kantoku_broker`` (:mod:`.pytest_plugin`) is a real Kafka; :mod:`.contract` checks implementations of
:mod:`kantoku_kafka.protocols`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kantoku_kafka.testing.memory import (
        InMemoryEvents,
        InMemoryInputs,
        InMemoryLog,
        InMemoryOutputs,
        InMemoryTransaction,
        Record,
    )
    from kantoku_kafka.testing.runner import Run, run_tasks

__all__ = [
    "InMemoryEvents",
    "InMemoryInputs",
    "InMemoryLog",
    "InMemoryOutputs",
    "InMemoryTransaction",
    "Record",
    "Run",
    "run_tasks",
]


def __getattr__(name: str) -> Any:
    """Load a name at first use: the pytest plugin beside this must stay quick for those who only have it installed."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from kantoku_kafka.testing import memory, runner

    return getattr(runner if name in runner.__all__ else memory, name)
