"""Log lines as JSON: one object a line, whatever is logged."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider

from kantoku_kafka.logs import JsonFormatter, are_json


def line(
    message: str, *arguments: object, level: int = logging.INFO, error: Any = None, **extra: Any
) -> dict[str, Any]:
    record = logging.getLogger("some.part").makeRecord(
        "some.part", level, __file__, 1, message, arguments, error, extra=extra
    )
    text = JsonFormatter().format(record)
    assert text.isascii() and text.isprintable()
    return json.loads(text)


def test_what_stands_in_a_line() -> None:
    found = line("took %d", 3, level=logging.WARNING, action="take", task_id="7", partition=2, topic="in", offset=9)
    assert list(found)[:5] == ["time", "level", "logger", "message", "pid"]
    assert found["time"].endswith("Z") and len(found["time"]) == len("2026-01-01T00:00:00.000Z")
    assert (found["level"], found["logger"], found["message"]) == ("warning", "some.part", "took 3")
    assert {name: found[name] for name in ("action", "task_id", "topic", "partition", "offset")} == {
        "action": "take", "task_id": "7", "topic": "in", "partition": 2, "offset": 9,
    }  # fmt: skip
    assert "exception" not in found and "trace_id" not in found


def test_an_exception_is_one_text() -> None:
    try:
        raise ValueError("line\nbreak")
    except ValueError:
        found = line("failed", error=sys.exc_info())
    assert found["exception"].startswith("Traceback") and found["exception"].endswith("ValueError: line\nbreak")


def test_the_span_of_whoever_logs_is_named() -> None:
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("work") as span:
        found = line("within")
    context = span.get_span_context()
    assert (int(found["trace_id"], 16), int(found["span_id"], 16)) == (context.trace_id, context.span_id)
    assert len(found["trace_id"]) == 32 and len(found["span_id"]) == 16


@given(
    st.text(),
    st.dictionaries(
        st.text(min_size=1).filter(
            lambda name: name not in {"message", "asctime", "name"} and not hasattr(_RECORD, name)
        ),
        st.recursive(
            st.none() | st.floats() | st.integers() | st.text() | st.binary() | st.builds(object),
            lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.tuples(st.integers()), inner),
            max_leaves=8,
        ),
        max_size=4,
    ),
)
def test_anything_that_is_logged_is_one_object_on_one_line(message: str, extra: dict[str, Any]) -> None:
    found = line("%s", message, **extra)
    assert found["message"] == message and extra.keys() <= found.keys()


_RECORD = logging.makeLogRecord({})


def test_what_contains_itself_is_shown() -> None:
    endless: list[object] = []
    endless.append(endless)
    assert line("x", own=endless)["own"] == "[[...]]"


class Unshown:
    def __str__(self) -> str:
        raise LookupError("no text")

    __repr__ = __str__


def test_what_cannot_be_shown_costs_no_line() -> None:
    assert line("%s of %s", 1)["message"] == "%s of %s (with arguments that cannot be shown: TypeError)"
    assert line("got %s", Unshown())["message"] == "got %s (with arguments that cannot be shown: LookupError)"
    for extra in ({"own": Unshown()}, {"own": Unshown(), "rate": float("nan")}):
        assert line("x", **extra)["own"] == "a Unshown that cannot be shown: LookupError"


def test_extra_fields_replace_none_of_the_line() -> None:
    found = line("said", level=logging.ERROR, logger="forged", time="never", pid=-1)
    assert found["logger"] == "some.part" and found["time"] != "never" and found["pid"] != -1


def test_what_ends_a_program_is_a_line_too() -> None:
    program = """
import threading
import warnings
from kantoku_kafka.cli.common import LogFormat, configure_logging
configure_logging("info", LogFormat.JSON)
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
warnings.warn("two\\nlines")
raise ValueError("no")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line.get("action") for line in lines] == ["unexpected", None, "unexpected"] and done.returncode == 1
    assert "ZeroDivisionError" in lines[0]["exception"] and "ValueError: no" in lines[2]["exception"]
    assert "UserWarning: two\nlines" in lines[1]["message"]


def test_a_logger_knows_its_form() -> None:
    logger = logging.Logger("own")
    assert not are_json(logger)
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logger.addHandler(handler)
    assert are_json(logger)
