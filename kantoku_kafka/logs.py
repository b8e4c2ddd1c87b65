"""Log lines as JSON, one object a line."""

from __future__ import annotations

import json
import logging
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

__all__ = ["JsonFormatter", "are_json", "log_unexpected"]

_log = logging.getLogger(__name__)

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """``time`` (UTC, RFC 3339), ``level``, ``logger``, ``message``, ``pid``; what ``extra`` has, such as ``action``,
    ``task_id``, ``topic``; ``trace_id`` and ``span_id`` within a span of OpenTelemetry; ``exception``, as text.

    ASCII without control characters: what a topic holds cannot steer the terminal.
    """

    def format(self, record: logging.LogRecord) -> str:
        """As ``logging.Formatter``."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
            "pid": record.process,
        }
        extra = {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
        line = {**line, **extra, **line, **_span()}  # the order of the first, and nothing of it replaced
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        return _encoded(line).replace("\x7f", "\\u007f")


def are_json(logger: logging.Logger) -> bool:
    """Whether its lines are."""
    return any(isinstance(handler.formatter, JsonFormatter) for handler in logger.handlers)


def log_unexpected() -> None:
    """From now on, warnings and what ends this program or a thread of it by an error are logged, instead of written to
    stderr."""

    def note(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt | SystemExit):
            _log.critical("ended by an error", exc_info=(kind, error or kind(), trace), extra={"action": "unexpected"})

    logging.captureWarnings(True)
    sys.excepthook = note
    threading.excepthook = lambda ended: note(ended.exc_type, ended.exc_value, ended.exc_traceback)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # noqa: BLE001 - of whoever logs: arguments that do not fit, or cannot be shown
        return f"{_shown(record.msg)} (with arguments that cannot be shown: {type(error).__name__})"


def _encoded(line: dict[str, Any]) -> str:
    try:
        return json.dumps(line, default=_shown, allow_nan=False)
    except (TypeError, ValueError, RecursionError):  # keys that are no text, NaN, what contains itself
        return json.dumps({name: value if isinstance(value, int) else _shown(value) for name, value in line.items()})


def _shown(value: object) -> str:
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001 - of whoever made the value
        return f"a {type(value).__name__} that cannot be shown: {type(error).__name__}"


def _span() -> dict[str, str]:
    """Of whoever logs, if OpenTelemetry is in use: then it is imported already."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return {}
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
