"""Who runs against whom: the rows of the table, and how each is measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

from benchmarks import codec
from benchmarks.cluster import Cluster, Record, tasks_of
from benchmarks.cpu import OWN
from benchmarks.measures import round_trips, spawning, throughput

EXACTLY_ONCE, AT_LEAST_ONCE = "exactly-once", "at-least-once"
EVENTS_OFF_RATIO, EVENTS_FULL_RATIO, SPAWN_RATIO, ROUND_TRIP_RATIO, CODEC_RATIO = 1.2, 0.8, 0.8, 1.5, 1.1


@dataclass(frozen=True, kw_only=True)
class Section:
    """Rows that are compared with each other: with the first of them."""

    title: str
    unit: str
    also: str
    lower_is_better: bool = False


@dataclass(frozen=True)
class Sample:
    """One run: the value that is compared, the second column, and what it is made of (None where it cannot be read)."""

    value: float
    also: float | None
    parts: Mapping[str, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One contestant in one section. `measure` takes a namespace that nobody has used yet."""

    section: Section
    name: str
    measure: Callable[[str], Sample]
    wanted_ratio: float | None = None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The size of a run.

    Parameters:
        tasks: in each throughput and each spawn run.
        samples, warmup: round trips in each latency run, and unmeasured ones before them.
        payload_bytes: data of a task.
        batch: the raw loops' bound of a commit; the executor's own default is the same.
        interpreter: options of the Python that runs what is measured, such as those of a profiler.
    """

    tasks: int
    samples: int
    warmup: int
    payload_bytes: int = 100
    batch: int = 2000
    interpreter: tuple[str, ...] = ()


class Suite:
    """All rows, on one cluster."""

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self._cluster = cluster
        self._settings = settings

    def rows(self) -> Iterator[Row]:
        for guarantee in (EXACTLY_ONCE, AT_LEAST_ONCE):
            yield from self._executor_rows(guarantee)
        yield from self._spawn_rows()
        yield from self._round_trip_rows()
        yield from self._codec_rows()

    def _executor_rows(self, guarantee: str) -> Iterator[Row]:
        section = Section(title=f"executor, {guarantee}", unit="tasks/s", also="CPU us/task")
        row = partial(Row, section=section)
        yield row(name="raw loop, fastavro", measure=partial(self._raw_executor, guarantee, "fastavro"))
        yield row(name="raw loop, no envelope", measure=partial(self._raw_executor, guarantee, "bytes"))
        for events, wanted in (("off", EVENTS_OFF_RATIO), ("terminal", None), ("full", EVENTS_FULL_RATIO)):
            measure = partial(self._executor, guarantee, events, "echo")
            yield row(name=f"kantoku, events {events}", measure=measure, wanted_ratio=wanted)
        measured = partial(self._executor, guarantee, "off", "echo", options=("--http", "127.0.0.1:0"))
        yield row(name="kantoku, events off, metrics", measure=measured)
        for pool in ("thread", "asyncio"):
            measure = partial(self._executor, guarantee, "off", f"echo-{pool}")
            yield row(name=f"kantoku, {pool} pool, events off", measure=measure)

    def _spawn_rows(self) -> Iterator[Row]:
        row = partial(Row, section=Section(title="spawn, acknowledged", unit="tasks/s", also=""))
        yield row(name="raw producer, fastavro", measure=self._raw_spawn)
        yield row(
            name="kantoku spawn_many, events off",
            measure=partial(self._spawn, "many", "off"),
            wanted_ratio=SPAWN_RATIO,
        )
        yield row(name="kantoku spawn_many, events full", measure=partial(self._spawn, "many", "full"))
        yield row(name="kantoku spawn_nowait, events off", measure=partial(self._spawn, "nowait", "off"))

    def _round_trip_rows(self) -> Iterator[Row]:
        title = "spawn to result, exactly-once"
        section = Section(title=title, unit="p50 ms", also="p99 ms", lower_is_better=True)
        row = partial(Row, section=section)
        yield row(name="raw client and raw loop", measure=self._raw_round_trips)
        yield row(name="kantoku", measure=self._round_trips, wanted_ratio=ROUND_TRIP_RATIO)

    def _codec_rows(self) -> Iterator[Row]:
        for pair in codec.pairs(self._settings.payload_bytes):
            section = Section(title=f"codec, {pair.title}", unit="envelopes/s", also="")
            yield Row(section=section, name="fastavro", measure=partial(self._rate, pair.fastavro))
            yield Row(
                section=section, name="kantoku", measure=partial(self._rate, pair.codec), wanted_ratio=CODEC_RATIO
            )

    # -- the measures, bound to their contestants

    def _raw_executor(self, guarantee: str, codec: str, namespace: str) -> Sample:
        return self._throughput(namespace, "echo", [*self._raw_loop(guarantee, namespace), "--codec", codec])

    def _executor(
        self, guarantee: str, events: str, task_type: str, namespace: str, options: Sequence[str] = ()
    ) -> Sample:
        arguments = self._kantoku_executor(guarantee, events, task_type, namespace)
        return self._throughput(namespace, task_type, [*arguments, *options])

    def _throughput(self, namespace: str, task_type: str, arguments: Sequence[str]) -> Sample:
        settings = self._settings
        records = _records(task_type, settings.tasks, settings.payload_bytes)
        run = throughput(self._cluster, namespace, task_type, records, arguments, settings.interpreter)
        cpu = run.cpu_us_per_task
        return Sample(run.tasks_per_second, None if cpu is None else sum(cpu[who] for who in OWN), cpu)

    def _raw_spawn(self, namespace: str) -> Sample:
        tasks = str(self._settings.tasks)
        return self._spawning(namespace, [*self._raw("spawn", namespace), "--tasks", tasks])

    def _spawn(self, way: str, events: str, namespace: str) -> Sample:
        how = ["--events", events, "--tasks", str(self._settings.tasks)]
        return self._spawning(namespace, [*self._kantoku_spawner(way, namespace), *how])

    def _rate(self, work: codec.Work, _: str) -> Sample:
        return Sample(codec.rate(work), None)

    def _spawning(self, namespace: str, arguments: Sequence[str]) -> Sample:
        run = spawning(self._cluster, namespace, arguments, self._settings.interpreter)
        return Sample(run.tasks_per_second, None)

    def _raw_round_trips(self, namespace: str) -> Sample:
        results = ["--results", f"{namespace}.results", "--group", f"{namespace}.client"]
        client = [*self._raw("echo", namespace), *results, *self._counts()]
        return self._echoing(namespace, self._raw_loop(EXACTLY_ONCE, namespace), client)

    def _round_trips(self, namespace: str) -> Sample:
        executor = self._kantoku_executor(EXACTLY_ONCE, "off", "echo", namespace)
        client = [*self._kantoku_spawner("echo", namespace), *self._counts()]
        return self._echoing(namespace, executor, client)

    def _echoing(self, namespace: str, executor: Sequence[str], client: Sequence[str]) -> Sample:
        milliseconds = round_trips(self._cluster, namespace, executor, client, self._settings.interpreter)
        return Sample(statistics.median(milliseconds), statistics.quantiles(milliseconds, n=100)[98])

    # -- command lines

    def _raw(self, command: str, namespace: str) -> list[str]:
        place = ["-b", self._cluster.bootstrap_servers, "--topic", f"{namespace}.tasks.echo"]
        return ["-m", "benchmarks.raw", command, *place, "--payload", str(self._settings.payload_bytes)]

    def _raw_loop(self, guarantee: str, namespace: str) -> list[str]:
        output = ["--results", f"{namespace}.results", "--group", f"{namespace}.executors"]
        return [*self._raw(guarantee, namespace), *output, "--batch", str(self._settings.batch)]

    def _kantoku_executor(self, guarantee: str, events: str, task_type: str, namespace: str) -> list[str]:
        place = ["-b", self._cluster.bootstrap_servers, "-n", namespace]
        how = ["--guarantee", guarantee, "--events", events, "--types", task_type]
        return ["-m", "kantoku_kafka", "run-executor", "benchmarks.app:kan", *place, *how]

    def _kantoku_spawner(self, command: str, namespace: str) -> list[str]:
        place = ["-b", self._cluster.bootstrap_servers, "-n", namespace]
        return ["-m", "benchmarks.spawner", command, *place, "--payload", str(self._settings.payload_bytes)]

    def _counts(self) -> list[str]:
        return ["--samples", str(self._settings.samples), "--warmup", str(self._settings.warmup)]


@cache
def _records(task_type: str, count: int, payload_bytes: int) -> list[Record]:
    return tasks_of(task_type, count, payload_bytes)
