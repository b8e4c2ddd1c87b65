"""Results in SQLite instead of a topic: Outputs of one's own, and what then is left of the promise.

SQLite cannot take part in a Kafka transaction. ``stage`` therefore makes the results durable at once, *before* the
offsets are committed. If the executor dies in between, the tasks run again and their results come a second time; the
first one stands, because the task id is the key. So: **execution at least once, one result per task in the table**,
but the table may already hold a result whose events and side outputs are not published yet.

    python examples/sqlite_outputs.py shop.tasks:kan results.db
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Sequence
from typing import Any

from kantoku_kafka import ErrorInfo, ExecutorProcess, Result, Source, Status
from kantoku_kafka.loading import load_app

TABLE = """CREATE TABLE IF NOT EXISTS results (
    task_id TEXT PRIMARY KEY, type TEXT, status TEXT, data BLOB, error_type TEXT, error_message TEXT,
    error_detail TEXT, error_retryable INTEGER, attempt INTEGER, executor_id TEXT, started_at_us INTEGER,
    finished_at_us INTEGER, topic TEXT, partition INTEGER, offset INTEGER, epoch INTEGER)"""
FIRST_ONE_STANDS = f"INSERT INTO results VALUES ({', '.join('?' * 16)}) ON CONFLICT (task_id) DO NOTHING"


Row = tuple[Any, ...]


class SqliteOutputs:
    """Results in a table. The executor calls ``stage`` from one thread at a time, but not always the same one."""

    promise = "at-least-once"
    max_data_bytes = 100_000_000

    def __init__(self, path: str) -> None:
        self._database = sqlite3.connect(path, check_same_thread=False)
        with self._database:
            self._database.execute(TABLE)

    def prepare(self, results: Sequence[Result]) -> Sequence[Row]:
        """Called by two threads at once: touches nothing."""
        return [
            (*r[:4], *(r.error or (None,) * 4), r.attempt, r.executor_id, r.started_at_us, r.finished_at_us, *r.source)
            for r in results
        ]

    def stage(self, prepared: Sequence[Row]) -> None:
        """Durable when this returns."""
        with self._database:
            self._database.executemany(FIRST_ONE_STANDS, prepared)

    def all(self) -> list[Result]:
        """Every result in the table."""
        return [
            Result(
                *(row[0], row[1], Status(row[2]), row[3]),
                None if row[4] is None else ErrorInfo(row[4], row[5], row[6], bool(row[7])),
                *row[8:12],
                Source(*row[12:]),
            )
            for row in self._database.execute("SELECT * FROM results")
        ]

    def close(self) -> None:
        self._database.close()


def main(reference: str, path: str) -> None:
    outputs = SqliteOutputs(path)
    try:
        ExecutorProcess(load_app(reference), outputs=outputs, reference=reference).run()
    except KeyboardInterrupt:
        pass
    finally:
        outputs.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
