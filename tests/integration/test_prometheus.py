"""A real Prometheus scrapes an executor that runs as the manifests say: what is built on its metrics holds."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from access import as_user, environment_of, rights
from deploy_tools import DEPLOY, tool
from executors import HERE, until
from retry_app import kan as retrying

from kantoku_kafka import Kantoku, Task, delay, idempotency_key
from kantoku_kafka.dev.layout import reserved_ports
from kantoku_kafka.kafka import topics
from kantoku_kafka.observability.metrics import METRICS, Kind

JOB = "kantoku"
DASHBOARD = json.loads((DEPLOY / "grafana" / "kantoku.json").read_text("utf-8"))
VARIABLES = {"$job": JOB, "$type": ".*", "$__rate_interval": "5m"}
# Of trouble, of this moment, or over by the first scrape. All else that the dashboard shows is not 0 after that work.
MAY_BE_ZERO = re.compile(
    r"kantoku_(blocked|paused)_partitions|kantoku_checkpoints_refused|kantoku_fenced|kantoku_tasks_(waiting|in_flight)"
    r"|kantoku_oldest_waiting|kantoku_lag|kantoku_timers_overdue|kantoku_consumer_(queue|request_timeouts)"
    r"|kantoku_coordinator_rtt|kantoku_rebalances"
)


class Observed:
    """An executor that has had all kinds of work, and the Prometheus that was there from its start."""

    def __init__(self, prometheus: str, executor: str) -> None:
        self._prometheus = prometheus
        self._executor = executor

    def probe(self, path: str) -> int:
        """The status that the executor answers."""
        try:
            with urllib.request.urlopen(f"http://{self._executor}{path}", timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def ask(self, path: str, **parameters: str) -> Any:
        """What Prometheus' HTTP API answers."""
        url = f"http://{self._prometheus}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def values(self, query: str) -> list[float]:
        """The value of each series that a query finds, those without a number left out."""
        found = [float(series["value"][1]) for series in self.ask("query", query=query)["result"]]
        return [value for value in found if not math.isnan(value)]

    def up(self) -> bool:
        try:
            return self.values(f'up{{job="{JOB}"}}') == [1]
        except OSError:
            return False


@pytest.fixture(scope="module")
def observed(bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    program, folder = tool("prometheus"), tmp_path_factory.mktemp("prometheus")
    namespace = f"t-{uuid.uuid4().hex[:8]}"
    with ExitStack() as stack:
        kan = Kantoku(namespace, **as_user(bootstrap))
        stack.callback(kan.close)
        stack.enter_context(rights(namespace, map(kan.topics.of_type, retrying.task_types)))
        topics.create(kan.clients, topics.plan(kan.topics, retrying.task_types))
        with reserved_ports(2) as (port, prometheus_port):
            executor, prometheus = f"127.0.0.1:{port}", f"127.0.0.1:{prometheus_port}"
        found = Observed(prometheus, executor)
        command = [sys.executable, "-m", "kantoku_kafka", *container_arguments(executor)]
        where = {"KANTOKU_BOOTSTRAP_SERVERS": bootstrap, "KANTOKU_NAMESPACE": namespace}
        environment = environment_of(*command) | where
        stack.enter_context(running(command, folder / "executor.log", environment))
        until(lambda: found.probe("/readyz") == 200, 60, "ready")
        command = [program, f"--config.file={configuration(folder, executor)}"]
        command += [f"--storage.tsdb.path={folder}/data", f"--web.listen-address={prometheus}"]
        stack.enter_context(running(command, folder / "prometheus.log", environment))
        until(found.up, 60, "the first scrape")
        give_work(kan)
        yield found


class running(subprocess.Popen[bytes]):  # noqa: N801 - reads as a verb
    """A process with its output in a file, told to end when the block does."""

    def __init__(self, command: list[str], log: Path, environment: Mapping[str, str]) -> None:
        with log.open("wb") as output:
            super().__init__(command, cwd=HERE, stdout=output, stderr=output, env=environment)

    def __exit__(self, *error: Any) -> None:
        self.terminate()
        try:
            self.wait(60)
        finally:
            self.kill()
            super().__exit__(*error)


def container_arguments(address: str) -> list[str]:
    """Those of the StatefulSet, with what Kubernetes would put in."""
    manifest = next(yaml.safe_load_all((DEPLOY / "kubernetes" / "base" / "executor.yaml").read_text("utf-8")))
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    values = {"$(APP)": "retry_app:kan", "$(POD_NAME)": "executor-0", "0.0.0.0:8080": address}
    return [replaced(argument, values) for argument in container["args"]]


def configuration(folder: Path, executor: str) -> Path:
    """That of the compose file, for this executor and in a hurry."""
    settings = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text("utf-8"))
    settings["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    settings["rule_files"] = [str(DEPLOY / "prometheus" / "alerts.yml")]
    (job,) = settings["scrape_configs"]
    assert job["job_name"] == JOB
    del job["dns_sd_configs"]
    job["static_configs"] = [{"targets": [executor]}]
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(settings), "utf-8")
    return path


def give_work(kan: Kantoku) -> None:
    """Tasks that succeed, are tried again, die, come twice, wait, are scheduled; returns when all have ended."""
    spawned = kan.spawn_many([Task("flaky", b"1") for _ in range(20)])
    spawned += kan.spawn_many([Task("flaky", b"2") for _ in range(5)])
    spawned += [kan.spawn(Task("flaky", b"9"))]
    spawned += [kan.spawn(Task("timed", b"").with_(delay(seconds=2)))]
    spawned += [kan.spawn(Task("timed", b"").with_(idempotency_key("once"))) for _ in range(2)]
    kan.spawn(Task("timed", b"").with_(delay(seconds=3600)))
    kan.schedules.add("tick", Task("timed"), every_seconds=1)
    for one in spawned:
        kan.wait(one.id, timeout_seconds=60)


def replaced(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(name, value)
    return text


def test_every_metric_of_the_table_is_there_and_no_other(observed: Observed) -> None:
    wanted = {
        metric.name + suffix
        for metric in METRICS
        for suffix in (("_bucket", "_sum", "_count") if metric.kind is Kind.HISTOGRAM else ("",))
    }

    def names() -> set[str]:
        found = observed.ask("label/__name__/values", **{"match[]": f'{{job="{JOB}"}}'})
        return {name for name in found if name != "up" and not name.startswith(("scrape_", "ALERTS"))}

    with suppress(AssertionError):
        until(lambda: wanted == names(), 60, "all metrics")
    assert names() == wanted


def test_each_query_of_the_dashboard_finds_data(observed: Observed) -> None:
    queries = {
        replaced(target["expr"], VARIABLES)
        for panel in DASHBOARD["panels"]
        if panel["type"] != "row"
        for target in panel["targets"]
    }
    assert len(queries) > 30

    def all_found() -> bool:
        for query in tuple(queries):
            values = observed.values(query)
            if values and (any(values) or MAY_BE_ZERO.search(query)):
                queries.remove(query)
        return not queries

    with suppress(AssertionError):
        until(all_found, 60, "data for each query")
    assert not queries


def test_the_variables_of_the_dashboard_offer_what_there_is(observed: Observed) -> None:
    offered = {}
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.findall(r"label_values\((.+), (\w+)\)", variable["definition"])[0]
            offered[variable["name"]] = observed.ask(
                f"label/{label}/values", **{"match[]": replaced(metric, VARIABLES)}
            )
    assert offered == {"job": [JOB], "type": sorted([*retrying.task_types, "unknown"])}


def test_alerts_are_evaluated_and_only_the_dead_letter_fires(observed: Observed) -> None:
    rules = [rule for group in observed.ask("rules")["groups"] for rule in group["rules"]]
    assert rules and {rule["health"] for rule in rules} == {"ok"}

    def alerts(state: str) -> set[str]:
        return {one["labels"]["alertname"] for one in observed.ask("alerts")["alerts"] if one["state"] == state}

    until(lambda: "KantokuDeadLetters" in alerts("firing"), 60, "the alert")
    assert alerts("firing") == {"KantokuDeadLetters"}


def test_nothing_is_left_to_do_though_transactions_left_their_markers(observed: Observed) -> None:
    until(lambda: observed.values("max(kantoku_lag_records)") == [0], 60, "no lag")


def test_the_probes_answer(observed: Observed) -> None:
    assert [observed.probe(path) for path in ("/startupz", "/readyz", "/livez")] == [200, 200, 200]
