"""Up to where an executor works that is to end when all is done that stood on its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kantoku_kafka.engine.window import Window
from kantoku_kafka.errors import UsageError
from kantoku_kafka.job import Partition
from kantoku_kafka.protocols import Inputs, TableInputs

__all__ = ["Burst"]


class Burst:
    """The loop thread owns it.

    Raises:
        UsageError: the inputs do not tell where they end.
    """

    def __init__(self, inputs: Inputs) -> None:
        if not isinstance(inputs, TableInputs):
            raise UsageError("--burst needs inputs that tell where they end, as Kafka's do.")
        self._inputs = inputs
        self._ends: dict[Partition, int] = {}

    def assigned(self, partitions: Sequence[Partition]) -> None:
        """What stands on them now has to be done."""
        self._ends |= self._inputs.ends_of(partitions)

    def is_done(self, windows: Mapping[Partition, Window]) -> bool:
        """Whether all of it is."""
        return bool(windows) and all(
            not window.unfinished and self._inputs.read_up_to(partition) >= self._ends[partition]
            for partition, window in windows.items()
        )
