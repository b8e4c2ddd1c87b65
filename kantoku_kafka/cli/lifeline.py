"""What ties an executor process to its supervisor."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Final

__all__ = ["LIFELINE", "MARGIN_SECONDS", "Lifeline"]

LIFELINE: Final = "KANTOKU_LIFELINE"
"""Environment variable of a supervised process: its number, the descriptor of a pipe that closes when the supervisor
is gone, however it went, and that of one which takes the number as a byte when the process is ready."""
MARGIN_SECONDS: Final = 15.0
"""For the last checkpoint, and for leaving the group, once the drain time is over."""


class Lifeline:
    """This process's end of it. Without a supervisor nothing happens.

    Not for the processes that it starts in turn: they inherit neither the variable nor the descriptors.

    Attributes:
        number: of this process among those of its supervisor; None without one.
    """

    def __init__(self) -> None:
        text = os.environ.pop(LIFELINE, None)
        numbers = [int(word) for word in text.split(",")] if text else []
        self.number: int | None = numbers[0] if numbers else None
        self._descriptors = numbers[1:]
        for descriptor in self._descriptors:
            os.set_inheritable(descriptor, False)

    def ready(self) -> None:
        """Tell the supervisor that this process runs."""
        if self.number is not None:
            os.write(self._descriptors[1], bytes([self.number]))

    def watch(self, stop: Callable[[], None], drain_seconds: float) -> None:
        """When the supervisor is gone: stop, and end in any case once the drain time is over."""
        if self.number is None:
            return

        def wait() -> None:
            os.read(self._descriptors[0], 1)
            stop()
            time.sleep(drain_seconds + MARGIN_SECONDS)
            os._exit(1)

        threading.Thread(target=wait, name="kantoku-lifeline", daemon=True).start()
