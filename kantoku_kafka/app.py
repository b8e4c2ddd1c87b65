"""``Kantoku``: what a user creates once, to register task types, to spawn tasks and to wait for results."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, TypeVar

from kantoku_kafka import logger
from kantoku_kafka.avro.codec import AvroCodec
from kantoku_kafka.avro.framing import Frame
from kantoku_kafka.client import Client
from kantoku_kafka.configuration.sources import Configuration, load
from kantoku_kafka.engine.foreign import foreign_readers
from kantoku_kafka.engine.retry import Retry
from kantoku_kafka.engine.rules import Rules
from kantoku_kafka.engine.scheduler import Ordering, TypeLimits
from kantoku_kafka.errors import UsageError
from kantoku_kafka.formats.base import Format
from kantoku_kafka.formats.plain import Raw
from kantoku_kafka.ids import TaskIds
from kantoku_kafka.meter import Meter
from kantoku_kafka.names import Topics, check_reply_topic
from kantoku_kafka.payloads import chosen_payloads
from kantoku_kafka.plugins import Hooks, Plugin
from kantoku_kafka.protocols import Codec, Payload
from kantoku_kafka.registry.client import Registry
from kantoku_kafka.registry.envelopes import RegistryCodec
from kantoku_kafka.replay.log import EventLog
from kantoku_kafka.schedules import Schedules
from kantoku_kafka.settings import Connection, EventDetail, PoolKind, choice
from kantoku_kafka.signing.file import seal_of_environment
from kantoku_kafka.signing.seal import Seal
from kantoku_kafka.task_type import TaskType, where

__all__ = ["Kantoku"]

DEFAULT_BOOTSTRAP_SERVERS = "localhost:9092"
DEFAULT_NAMESPACE = "kantoku"
_SERVERS_VARIABLE = "KANTOKU_BOOTSTRAP_SERVERS"
F = TypeVar("F", bound=Callable[..., Any])
Hook = TypeVar("Hook", bound=Callable[[], object])


class Kantoku(Client):
    """An app: a namespace of topics, the task types in it, and the client that spawns and waits.

    Creating one opens no connection. Spawning and waiting are thread-safe.

    Parameters:
        namespace: prefix of all topics and of the consumer group.
        bootstrap_servers: ``host:port[,host:port...]``; default: ``KANTOKU_BOOTSTRAP_SERVERS`` of the environment, or
            ``localhost:9092``. The command line's ``-b`` wins.
        config: further librdkafka settings for every client.
        topics: existing topics to use instead: ``{"results": "name", "tasks.resize": "name"}``.
        plugins: run in this order, after the built-in ones.
        codec: of the envelopes; default Avro.
        seal: signs what is spawned, and lets executors run nothing else; default: that of the file which
            ``KANTOKU_SEAL`` of the environment names (see :func:`load_seal`), or none.
        registry: a schema registry: what others write in its forms is read, and the topics it names are written so.
        events: which of the client's own events (``spawned``) are logged: with ``full`` (default) they are.
        queue_timeout_seconds: how long a spawn waits for room in the local queue; default 10.
        delivery_timeout_seconds: how long the broker may take to acknowledge; default 30.

    Raises:
        UsageError: for a namespace or topic that cannot be, or a seal that cannot be loaded.
    """

    def __init__(
        self,
        namespace: str,
        *,
        bootstrap_servers: str | None = None,
        config: Mapping[str, str | int | float | bool] | None = None,
        topics: Mapping[str, str] | None = None,
        plugins: Sequence[Plugin] = (),
        codec: Codec | None = None,
        seal: Seal | None = None,
        registry: Registry | None = None,
        events: EventDetail | str = EventDetail.FULL,
        queue_timeout_seconds: float = 10.0,
        delivery_timeout_seconds: float = 30.0,
    ) -> None:
        self.topics = Topics(namespace=namespace, overrides=MappingProxyType(dict(topics or {})))
        if codec is not None and registry is not None:
            raise UsageError("Kantoku takes a codec or a registry, not both: the registry brings its own.")
        self.codec: Codec = codec or (AvroCodec() if registry is None else RegistryCodec(registry))
        self.seal = seal_of_environment() if seal is None else seal
        self.registry_settings: Mapping[str, Any] = {}
        self.plugins: tuple[Plugin, ...] = ()
        self.task_ids = TaskIds()
        self._task_types: dict[str, TaskType] = {}
        self.startup_hooks: list[Callable[[], object]] = []
        self.shutdown_hooks: list[Callable[[], object]] = []
        servers, origin = next(
            (servers, origin)
            for servers, origin in (
                (bootstrap_servers, "app"),
                (os.environ.get(_SERVERS_VARIABLE), _SERVERS_VARIABLE),
                (DEFAULT_BOOTSTRAP_SERVERS, "default"),
            )
            if servers
        )
        super().__init__(
            Connection(bootstrap_servers=servers, config=dict(config or {}), origins={"bootstrap.servers": origin}),
            events=choice(EventDetail, "events", events),
            queue_timeout_seconds=queue_timeout_seconds,
            delivery_timeout_seconds=delivery_timeout_seconds,
        )
        self.use(logger.CreationLogger(), *plugins)

    def use(self, *plugins: Plugin) -> None:
        """Have these take part too, after those that do; only before the first use."""
        self.plugins += plugins
        self.hooks = Hooks(self.plugins)
        self.hooks_without_options = Hooks([plugin for plugin in self.plugins if not plugin.needs_option])
        for plugin in plugins:
            plugin.initialize(self)

    @property
    def meters(self) -> list[Meter]:
        """Those of the plugins that measure executors."""
        return [plugin for plugin in self.plugins if isinstance(plugin, Meter)]

    @classmethod
    def from_config(
        cls,
        namespace: str = DEFAULT_NAMESPACE,
        *,
        config_file: str | Path | None = None,
        profile: str | None = None,
        **own: Any,
    ) -> Self:
        """An app with the settings that a command of ours would have in this place: environment, files, profile.

        They count more than what is given here in code.

        Parameters:
            namespace: as of the class, where no settings name another.
            config_file: properties of librdkafka or of a Java client, or a file of profiles (``.toml``), as option
                ``-F``; default: ``KANTOKU_CONFIG``, and ``kantoku.toml`` for profiles.
            profile: as option ``--profile``; default: ``KANTOKU_PROFILE``, or else ``default``.
            own: further arguments of the class.

        Raises:
            UsageError: a file cannot be read, or says what cannot be.
        """
        app = cls(namespace, **own)
        app.configure(load(config_file=config_file, profile=profile))
        return app

    def configure(self, configuration: Configuration) -> None:
        """Lay settings from outside over the app's own; only before the first use. Raises UsageError."""
        self.connect_to(configuration.connection(self.connection))
        self.topics = configuration.topic_names(self.topics)
        registry = configuration.registry_settings(self.connection)
        self.use_registry({key: setting.value for key, setting in registry.items()})

    @property
    def registry(self) -> Registry | None:
        """The schema registry, if there is one."""
        return self.codec.registry if isinstance(self.codec, RegistryCodec) else None

    def use_registry(self, settings: Mapping[str, Any]) -> None:
        """Lay settings of a schema registry over those of the app's own, or have one with them. Raises UsageError."""
        self.registry_settings = dict(settings)
        if self.registry is not None:
            self.registry.connect_to(settings)
        elif "url" in settings and isinstance(self.codec, AvroCodec):
            config = {key: value for key, value in settings.items() if key != "url"}
            self.codec = RegistryCodec(Registry(str(settings["url"]), config=config), at_start=False)

    def close(self) -> None:
        super().close()
        if self.registry is not None:
            self.registry.close()

    def __repr__(self) -> str:
        return f"Kantoku({self.namespace!r}, {len(self._task_types)} task types, {self.connection!r})"

    @property
    def namespace(self) -> str:
        """Prefix of all topics."""
        return self.topics.namespace

    @property
    def events(self) -> EventLog:
        """The audit topic: ``for event in kan.events.replay(): ...``."""
        return EventLog(self.clients, self.topics.events, self.codec)

    @property
    def schedules(self) -> Schedules:
        """Tasks that are spawned again and again: ``kan.schedules.add(...)``."""
        return Schedules(self)

    @property
    def inputs(self) -> list[str]:
        """The topics of ours that the registered task types take tasks from."""
        return sorted({topic for task in self._task_types.values() for topic in task.own_inputs(self.topics)})

    @property
    def foreign_inputs(self) -> list[str]:
        """The topics of others that they take tasks from: we only read these."""
        return sorted({topic for task in self._task_types.values() for topic in task.from_topics})

    def frames(self) -> Mapping[str, Frame]:
        """By topic, how values are framed that are written in a form of the registry; asks it the first time.

        Raises:
            TopicMismatch, UsageError, RegistryUnavailable, AccessDenied.
        """
        return self.codec.frames(self.topics, self.inputs) if isinstance(self.codec, RegistryCodec) else {}

    @property
    def reply_topics(self) -> list[str]:
        """The topics of others that replies may go to; ``*`` at the end of one stands for any rest."""
        types = self._task_types.values()
        named = {task.rules.reply_to for task in types if task.rules.reply_to is not None}
        return sorted(named.union(*(one.reply_topics for task in types for one in task.from_topics.values())))

    @property
    def topics_of_others(self) -> list[str]:
        """Those that have to be there: tasks come from them, or replies go to them."""
        return sorted({*self.foreign_inputs, *(topic for topic in self.reply_topics if not topic.endswith("*"))})

    @property
    def task_types(self) -> Mapping[str, TaskType]:
        """The registered task types by name."""
        return self._task_types

    def on_startup(self, hook: Hook) -> Hook:
        """Run a function when an executor starts, before its first task, and in each child of pool ``process``::

            @kan.on_startup
            def warm_up() -> None: ...

        What it raises ends the process.
        """
        self.startup_hooks.append(hook)
        return hook

    def on_shutdown(self, hook: Hook) -> Hook:
        """Run a function when an executor, or a child that retires, has ended its last task; not after a crash."""
        self.shutdown_hooks.append(hook)
        return hook

    def task(
        self,
        name: str,
        *,
        pool: PoolKind | str | None = None,
        concurrency: int | None = None,
        ordering: Ordering | str = Ordering.UNORDERED,
        key_concurrency: int = 1,
        rate_per_second: float | None = None,
        priorities: Mapping[str, int] | None = None,
        payload: Payload | None = None,
        result_payload: Payload | None = None,
        from_topics: Mapping[str, Format] | None = None,
        retry: Retry | None = None,
        timeout_seconds: float | None = None,
        heartbeat_seconds: float | None = None,
        deduplicate_seconds: float = 3_600.0,
        deduplicate_all: bool = False,
        reply_to: str | None = None,
        reply_format: Format | None = None,
    ) -> Callable[[F], F]:
        """Register a function ``(data: bytes[, ctx: Context]) -> bytes`` as a task type; of values, with a payload.

        Parameters:
            name: the task type; its tasks stand in topic ``{namespace}.tasks.{name}``.
            pool: where it runs; default ``asyncio`` for ``async def``, else ``thread``.
            concurrency: how many at once in one process; default as many as the pool has.
            ordering: ``unordered`` (default), ``key`` (one at a time per key) or ``partition``.
            key_concurrency: with ordering ``key``: how many of one key at once; default 1.
            rate_per_second: how many start in all executors together; default no limit. Each has its share by the
                partitions that it holds, and spends it within a tenth of a second or loses it.
            priorities: names and weights, e.g. ``{"high": 8, "normal": 2, "low": 1}``: tasks spawned with
                ``priority("high")`` stand in a topic of their own, ``{namespace}.priority.high.{name}``. Where more
                wait than can run, starts are shared by weight: none starves. ``normal`` is that of all others, and
                weighs 1 if it is not named. What is ordered is so within one priority.
            payload: reads the data for the function, which then takes a value: ``JsonPayload()``, ``AvroPayload(...)``,
                or one of your own. Data that it cannot read are REJECTED, with a dead letter. Default: bytes.
            result_payload: writes what the function returns; default as ``payload``.
            from_topics: topics that others write, and how their records are read as tasks of this type:
                ``{"orders": Json(id_field="order_id")}``. We never write to them: what is tried again goes by the
                type's own topic.
            retry: when a task that failed is tried again; default never. A task may bring its own.
            timeout_seconds: how long an attempt may run, from its start to its end; default without limit. In pool
                ``process`` it is killed then; in the others it is asked to end, see :attr:`Context.cancelled`.
            heartbeat_seconds: an attempt is ended as by ``timeout_seconds`` if it does not call
                :meth:`Context.heartbeat` for so long; default: it need not.
            deduplicate_seconds: for so long after a task with an idempotency key was spawned, another spawn of it has
                no result of its own; default an hour. It costs some 200 bytes of memory a task, and a restarted
                executor reads as much of its inputs again.
            deduplicate_all: recognise every id, also those without an idempotency key; default no.
            reply_to: a topic of others for the replies: with each result, in the same transaction, a record under the
                key of the task's record, with its headers and ``kantoku-task-id``, ``kantoku-status``,
                ``kantoku-error-type`` and ``kantoku-error-message``. Default: none, unless a task asks for one by
                :func:`~kantoku_kafka.options.reply_to`. A task whose reply cannot be written has failed.
            reply_format: how replies are written; default ``Raw()``: the value is what the function returned.

        Raises:
            UsageError: for a name that cannot be or is taken, or a pool that cannot run the function.
        """
        if callable(name):
            raise UsageError(f"{where(name)}: write @kan.task('NAME'); the name of the task type is not optional.")
        rules = Rules(
            retry=retry,
            timeout_seconds=timeout_seconds,
            heartbeat_seconds=heartbeat_seconds,
            deduplicate_seconds=deduplicate_seconds,
            deduplicate_all=deduplicate_all,
            reply_to=reply_to,
            reply_format=reply_format or Raw(),
        )
        if reply_to is not None:
            check_reply_topic(reply_to, self.topics)
        limits = TypeLimits(
            ordering=choice(Ordering, "ordering", ordering),
            concurrency=concurrency,
            key_concurrency=key_concurrency,
            rate_per_second=rate_per_second,
        )
        payloads = chosen_payloads(name, payload, result_payload)

        def register(function: F) -> F:
            self._register(
                TaskType.of(
                    name,
                    function,
                    pool=pool,
                    limits=limits,
                    rules=rules,
                    priorities=priorities,
                    payloads=payloads,
                    from_topics=from_topics,
                )
            )
            return function

        return register

    def _register(self, task: TaskType) -> None:
        """Add a task type, if it goes with the others and with the topics. Raises UsageError."""
        if task.name in self._task_types:
            taken = self._task_types[task.name].function
            raise UsageError(
                f"Two tasks are named {task.name!r}: {where(taken)} and {where(task.function)}. Rename one of them."
            )
        task.own_inputs(self.topics)  # raises for a name that is too long
        types = {**self._task_types, task.name: task}
        foreign_readers({name: one.from_topics for name, one in types.items()}, self.topics, self.codec)
        if self.seal is not None:
            self.seal.check_trusted(task.name, task.from_topics)
        self._task_types[task.name] = task
