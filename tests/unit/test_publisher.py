"""The thread that makes checkpoints durable, and what it does with those that are refused."""

from __future__ import annotations

import pytest
from recording import Broker, Inputs, checkpoint

from kantoku_kafka.engine import publisher


def test_a_checkpoint_that_is_refused_for_an_hour_is_published_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "_RETRY_SECONDS", (0.0, 0.0))
    broker, inputs = Broker(refuse=["commit"] * 1_800), Inputs()
    target = checkpoint(broker)
    inputs.end(target, inputs.job("a"))
    thread = publisher.Publisher(target, lambda: None, 10.0)
    try:
        while target.due or thread.busy:
            thread.publish(inputs.windows)
            thread.conclude()
    finally:
        thread.close()
    assert [result.task_id for result in broker.results()] == ["a"]
    assert broker.calls.count("commit") == 1_801
