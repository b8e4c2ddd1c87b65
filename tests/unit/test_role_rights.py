"""Rights of roles: what is granted, and nothing twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kantoku_kafka.kafka.rights import Operation, Resource, Right, Role, rights_of
from kantoku_kafka.names import Topics

TOPICS = Topics(namespace="shop", overrides={"results": "team.results"})
INPUTS = ["shop.tasks.a", "shop.tasks.b"]


def test_what_a_spawner_may() -> None:
    assert rights_of(Role.SPAWNER, TOPICS, INPUTS) == [
        Right(Resource.TOPIC, "shop.events", Operation.WRITE),
        Right(Resource.TOPIC, "shop.tasks.a", Operation.WRITE),
        Right(Resource.TOPIC, "shop.tasks.b", Operation.WRITE),
        Right(Resource.TOPIC, "team.results", Operation.READ),
        Right(Resource.TRANSACTIONAL_ID, "shop.spawners.", Operation.WRITE, prefixed=True),
    ]


@pytest.mark.parametrize("role", Role)
@given(inputs=st.lists(st.sampled_from(["shop.tasks.a", "x", "y"]), unique=True), more=st.sets(st.just("orders")))
def test_rights_of_every_role(role: Role, inputs: list[str], more: set[str]) -> None:
    rights = rights_of(role, TOPICS, inputs, reads=more, writes=more)
    assert rights == sorted(set(rights)) == rights_of(role, TOPICS, inputs[::-1], reads=more, writes=more)
    assert "shop.results" not in {right.name for right in rights}, "it is overridden"
    for name in more:
        assert {right.operation for right in rights if right.name == name} == {Operation.READ, Operation.WRITE}
    others = {right.name for right in rights if not right.name.startswith("shop.")}
    assert others <= {*inputs, *more, "team.results"}, "a prefix is always the namespace's"


def test_topics_of_others() -> None:
    def of(role: Role) -> set[Right]:
        rights = rights_of(role, TOPICS, INPUTS, foreign=["orders"], replies=["shipped", "reply.*", "*"])
        return {right for right in rights if not right.name.startswith(("shop.", "team."))}

    read = Right(Resource.TOPIC, "orders", Operation.READ)
    replies = {
        Right(Resource.TOPIC, "shipped", Operation.WRITE),
        Right(Resource.TOPIC, "reply.", Operation.WRITE, prefixed=True),
        Right(Resource.TOPIC, "*", Operation.WRITE),
    }
    assert of(Role.EXECUTOR) == {read, *replies}
    assert of(Role.SCHEDULER) == replies
    assert of(Role.OBSERVER) == of(Role.ADMIN) == {read}
    assert of(Role.SPAWNER) == set()
    assert {right for right in of(Role.EXECUTOR) if right.open} == {
        right for right in replies if right.name != "shipped"
    }


def test_nobody_but_the_admin_makes_or_deletes() -> None:
    for role in set(Role) - {Role.ADMIN}:
        operations = {right.operation for right in rights_of(role, TOPICS, INPUTS)}
        assert not operations & {Operation.CREATE, Operation.DELETE}


def test_an_observer_changes_nothing() -> None:
    operations = {right.operation for right in rights_of(Role.OBSERVER, TOPICS, INPUTS)}
    assert operations == {Operation.READ, Operation.DESCRIBE, Operation.DESCRIBE_CONFIGS}
