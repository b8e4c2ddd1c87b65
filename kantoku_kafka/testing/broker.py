"""A Kafka for tests: the one that is named, else one in Docker, else the embedded one."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final, Literal, cast, get_args

from kantoku_kafka.dev import EmbeddedBroker
from kantoku_kafka.dev.container import container_broker, docker_answers
from kantoku_kafka.errors import BrokerUnavailable, UsageError

__all__ = ["BOOTSTRAP_VARIABLE", "ENGINE_VARIABLE", "BrokerHandle", "Engine", "find_broker"]

logger = logging.getLogger(__name__)

BOOTSTRAP_VARIABLE: Final = "KANTOKU_TEST_BOOTSTRAP"
ENGINE_VARIABLE: Final = "KANTOKU_TEST_ENGINE"
Engine = Literal["docker", "embedded"]
_ACTION: Final = {"action": "find_test_broker"}


@dataclass(frozen=True, kw_only=True)
class BrokerHandle:
    """A broker that tests may use: topics they make must have names of their own."""

    bootstrap_servers: str
    """``host:port``, more joined by commas."""
    engine: Engine | None
    """Who runs it for us; None for a broker that was there before."""


@contextmanager
def find_broker(environment: Mapping[str, str] | None = None) -> Iterator[BrokerHandle]:
    """Find or start a broker; what was started is gone at the end.

    In this order: the engine that ``KANTOKU_TEST_ENGINE`` demands (``docker`` or ``embedded``) and no other;
    the broker at ``KANTOKU_TEST_BOOTSTRAP``, taken as it is; a container when Docker answers and can run it;
    the embedded broker.

    Args:
        environment: where the two variables are read, default ``os.environ``.

    Raises:
        BrokerUnavailable: there is none, or not the one that was demanded.
        UsageError: ``KANTOKU_TEST_ENGINE`` names an unknown engine.
    """
    variables = os.environ if environment is None else environment
    demanded = _demanded_engine(variables)
    named = variables.get(BOOTSTRAP_VARIABLE)
    if named and demanded is None:
        yield BrokerHandle(bootstrap_servers=named, engine=None)
        return
    with ExitStack() as running:
        yield _start(demanded, running)


def _start(demanded: Engine | None, running: ExitStack) -> BrokerHandle:
    if demanded == "docker" or (demanded is None and docker_answers()):
        try:
            servers = running.enter_context(container_broker())
        except BrokerUnavailable:
            if demanded is not None:
                raise
            logger.warning("Docker runs no Kafka, the embedded one is next", exc_info=True, extra=_ACTION)
        else:
            return BrokerHandle(bootstrap_servers=servers, engine="docker")
    broker = running.enter_context(EmbeddedBroker(short_lived=True))
    return BrokerHandle(bootstrap_servers=broker.bootstrap_servers, engine="embedded")


def _demanded_engine(variables: Mapping[str, str]) -> Engine | None:
    value = variables.get(ENGINE_VARIABLE)
    if not value:
        return None
    if value not in get_args(Engine):
        raise UsageError(f"{ENGINE_VARIABLE} is {value!r}: set it to docker or embedded, or unset it")
    return cast(Engine, value)
