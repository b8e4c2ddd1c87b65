"""``Kantoku``: what a user creates once, to register task types, to spawn tasks and to wait for results."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from kantoku_kafka import logger
from kantoku_kafka.avro.codec import AvroCodec
from kantoku_kafka.engine.scheduler import Ordering, TypeLimits
from kantoku_kafka.errors import UsageError
from kantoku_kafka.model import Topics, check_task_type
from kantoku_kafka.plugins import Hooks, Plugin
from kantoku_kafka.protocols import Codec
