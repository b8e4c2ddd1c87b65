"""Which differences of a topic lose data, and which are a user's choice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kantoku_kafka.kafka.drift import Shape, deviations
from kantoku_kafka.kafka.wanted import TopicPlan, plan
from kantoku_kafka.names import Topics

PLANS = {one.name.removeprefix("shop."): one for one in plan(Topics(namespace="shop"), ["resize"])}
SHAPE = Shape(4, 1)
SERVERS = "h:1"


def found(topic: str, *, shape: Shape = SHAPE, brokers: int = 1, **settings: str) -> dict[str, str]:
    """The harm of each deviation, by its setting; ``_`` in names stands for ``.``."""
    one = replace(PLANS[topic], partitions=4)
    config = {**one.config, **{name.replace("_", "."): value for name, value in settings.items()}}
    return {deviation.setting: deviation.harm for deviation in deviations(one, shape, config, brokers, SERVERS)}


@pytest.mark.parametrize("one", PLANS.values(), ids=lambda one: one.name)
def test_what_is_as_planned_does_not_differ(one: TopicPlan) -> None:
    assert list(deviations(one, Shape(one.partitions, 1), one.config, 1, SERVERS)) == []


@pytest.mark.parametrize(
    ("topic", "setting", "value"),
    [
        ("timers", "cleanup_policy", "delete"),
        ("timers", "cleanup_policy", "compact,delete"),
        ("schedules", "cleanup_policy", "delete"),
        ("events", "cleanup_policy", "delete"),
        ("tasks.resize", "cleanup_policy", "compact"),
        ("dlq", "cleanup_policy", "delete,compact"),
        ("tasks.resize", "retention_ms", "3600000"),
        ("tasks.resize", "retention_bytes", "1000000"),
        ("events", "message_timestamp_type", "CreateTime"),
        ("dlq", "max_message_bytes", "1048588"),
        ("results", "unclean_leader_election_enable", "true"),
    ],
)
def test_differences_by_which_something_is_lost(topic: str, setting: str, value: str) -> None:
    harms = found(topic, **{setting: value})
    assert list(harms) == [setting.replace("_", ".")]
    assert PLANS[topic].holds in harms[setting.replace("_", ".")]


@pytest.mark.parametrize(
    ("topic", "setting", "value"),
    [
        ("tasks.resize", "retention_ms", "-1"),
        ("tasks.resize", "retention_ms", str(3 * 86_400_000)),
        ("results", "cleanup_policy", "compact"),
        ("results", "cleanup_policy", "delete"),
        ("dlq", "max_message_bytes", str(8 << 20)),
        ("timers", "segment_bytes", str(1 << 30)),
    ],
)
def test_differences_that_are_a_choice(topic: str, setting: str, value: str) -> None:
    assert found(topic, **{setting: value}) == {setting.replace("_", "."): ""}


def test_replicas() -> None:
    assert found("results", shape=Shape(4, 1)) == {}, "there is one broker"
    assert "disk" in found("results", shape=Shape(4, 1), brokers=3)["replication.factor"]
    assert found("results", shape=Shape(4, 2), brokers=3) == {}, "nobody asked for more"
    assert (
        "one broker" in found("results", shape=Shape(4, 3), brokers=3, min_insync_replicas="1")["min.insync.replicas"]
    )
    assert found("results", shape=Shape(4, 3), brokers=3, min_insync_replicas="2") == {}
    assert found("results", shape=Shape(6, 1)) == {"partitions": ""}
    assert found("results", cleanup_policy="delete,compact") == {}, "the order says nothing"


def test_replicas_that_were_asked_for() -> None:
    (one,) = (p for p in plan(Topics(namespace="shop"), [], replication_factor=3) if p.name == "shop.results")
    assert one.config["min.insync.replicas"] == "2"
    assert {d.setting for d in deviations(one, Shape(4, 2), one.config, 3, SERVERS)} == {"replication.factor"}
    assert "min.insync.replicas" not in plan(Topics(namespace="shop"), [], replication_factor=2)[0].config


def test_what_may_not_be_read_is_not_judged() -> None:
    assert list(deviations(PLANS["timers"], SHAPE, {}, 1, SERVERS)) == []


def test_the_remedy_is_a_command_of_kafka() -> None:
    (one,) = deviations(PLANS["results"], SHAPE, {"cleanup.policy": "delete"}, 1, SERVERS)
    assert one.remedy == (
        "kafka-configs.sh --bootstrap-server h:1 --alter --topic shop.results "
        "--add-config 'cleanup.policy=[compact,delete]'"
    )
