"""Topics and rights as code: what other tools read is what was planned."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kantoku_kafka.emit import strimzi, terraform, tools
from kantoku_kafka.errors import UsageError
from kantoku_kafka.kafka.rights import Operation, Resource, Right, Role, rights_of
from kantoku_kafka.kafka.wanted import TopicPlan, plan
from kantoku_kafka.names import Topics

NAMES = st.from_regex(r"[A-Za-z0-9._-]{1,249}", fullmatch=True)
SHOP = Topics(namespace="shop")
PLANS = plan(SHOP, ["resize", "Zip_up"], replication_factor=3)
RIGHTS = {f"User:{role}": rights_of(role, SHOP, ["shop.tasks.resize"]) for role in Role}
_KUBERNETES_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def _documents(text: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(text))


def test_topics_of_strimzi() -> None:
    found = _documents(strimzi.topics(PLANS, "prod"))
    assert [document["spec"]["topicName"] for document in found] == [one.name for one in PLANS]
    for document, one in zip(found, PLANS, strict=True):
        assert (document["apiVersion"], document["kind"]) == ("kafka.strimzi.io/v1", "KafkaTopic")
        assert document["metadata"]["labels"] == {"strimzi.io/cluster": "prod"}
        spec = document["spec"]
        assert (spec["partitions"], spec["replicas"], spec["config"]) == (one.partitions, 3, dict(one.config))
    names = [document["metadata"]["name"] for document in found]
    assert names[0].startswith("shop-tasks-zip-up-") and names[1] == "shop.tasks.resize"


@given(topics=st.lists(NAMES, min_size=1, max_size=5, unique=True), cluster=st.text(max_size=20))
def test_names_of_strimzi_are_kubernetes_names_and_differ(topics: list[str], cluster: str) -> None:
    found = _documents(strimzi.topics([TopicPlan(name, 1, {"cleanup.policy": "delete"}) for name in topics], cluster))
    names = [document["metadata"]["name"] for document in found]
    assert all(_KUBERNETES_NAME.fullmatch(name) and len(name) <= 253 for name in names)
    assert len(set(names)) == len(topics)
    assert [document["spec"]["topicName"] for document in found] == topics
    assert "replicas" not in found[0]["spec"]


def test_users_of_strimzi() -> None:
    found = _documents(strimzi.users({"User:shop-worker": RIGHTS["User:executor"], "User:CN=look": []}, "prod"))
    worker, look = found
    assert (worker["kind"], worker["metadata"]["name"]) == ("KafkaUser", "shop-worker")
    assert worker["spec"]["authentication"] == {"type": "scram-sha-512"}
    assert look["spec"]["authentication"] == {"type": "tls"} and look["metadata"]["name"] == "look"
    types = {"topic": Resource.TOPIC, "group": Resource.GROUP, "transactionalId": Resource.TRANSACTIONAL_ID}
    granted = [
        Right(
            types[acl["resource"]["type"]],
            acl["resource"]["name"],
            Operation(operation),
            prefixed=acl["resource"]["patternType"] == "prefix",
        )
        for acl in worker["spec"]["authorization"]["acls"]
        for operation in acl["operations"]
    ]
    assert sorted(granted) == RIGHTS["User:executor"]


@pytest.mark.parametrize("principals", [["User:Shop"], ["Group:a"], ["User:CN=a,O=b"], ["User:a", "User:CN=a"]])
def test_principals_that_strimzi_cannot_make(principals: list[str]) -> None:
    with pytest.raises(UsageError, match=r"no user of Strimzi.*User:NAME"):
        strimzi.users(dict.fromkeys(principals, ()), "prod")


def test_commands_of_kafkas_tools() -> None:
    """Each right once, by words that a shell leaves as they are."""
    principal = 'User:CN=a "b" $(id) `id` \\, O=it\'s'
    lines = [line for line in tools.acls({principal: RIGHTS["User:executor"]}, "h:1").splitlines() if "--add" in line]
    granted = []
    for line in lines:
        words = shlex.split(line)
        assert words[:4] == ["kafka-acls.sh", "--bootstrap-server", "h:1", "$@"]
        pairs = list(zip(words[5::2], words[6::2], strict=True))
        assert ("--allow-principal", principal) in pairs
        for option, name in pairs:
            if option.removeprefix("--") in set(Resource):
                resource, prefixed = Resource(option[2:]), ("--resource-pattern-type", "prefixed") in pairs
                granted += [Right(resource, name, Operation(o), prefixed) for k, o in pairs if k == "--operation"]
    assert sorted(granted) == RIGHTS["User:executor"]
    assert len(lines) < len(granted) / 2, "what is alike is one command"


def test_every_topic_is_one_command_of_kafkas_tools() -> None:
    lines = [line for line in tools.topics(PLANS, "h:1").splitlines() if "--create" in line]
    for line, one in zip(lines, PLANS, strict=True):
        words = shlex.split(line)
        assert words[:6] == ["kafka-topics.sh", "--bootstrap-server", "h:1", "$@", "--create", "--if-not-exists"]
        pairs = list(zip(words[6::2], words[7::2], strict=True))
        assert pairs[:3] == [
            ("--topic", one.name),
            ("--partitions", str(one.partitions)),
            ("--replication-factor", "3"),
        ]
        assert pairs[3:] == [("--config", f"{name}={value}") for name, value in one.config.items()]


def _strings(hcl: str) -> list[str]:
    """The quoted strings of a text in HCL, as they are evaluated."""
    found = [re.sub(r"\\(.)", r"\1", text) for text in re.findall(r'"((?:[^"\\]|\\.)*)"', hcl)]
    assert not any(re.search(r"(?<!\$)\$\{|(?<!%)%\{", text) for text in found), "something is evaluated"
    return [text.replace("$${", "${").replace("%%{", "%{") for text in found]


@given(name=st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=30))
def test_principals_in_terraform_are_taken_literally(name: str) -> None:
    right = Right(Resource.GROUP, "shop.executors", Operation.READ)
    strings = _strings(terraform.acls({f"User:{name}": [right]}, "shop"))
    assert strings[3:8] == [f"User:{name}", "Read", "Group", "Literal", "shop.executors"]


@given(namespaces=st.lists(NAMES, min_size=2, max_size=5, unique=True))
def test_resources_of_terraform_have_names_that_differ(namespaces: list[str]) -> None:
    names = {terraform.topics([], namespace).split('"')[3] for namespace in namespaces}
    assert len(names) == len(namespaces)
    assert all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", name) for name in names)


@pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not installed")
@pytest.mark.parametrize("text", [terraform.topics(PLANS, "shop"), terraform.acls(RIGHTS, "team.shop_1")])
def test_terraform_finds_nothing_to_format(text: str) -> None:
    done = subprocess.run(["terraform", "fmt", "-"], input=text, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == text
