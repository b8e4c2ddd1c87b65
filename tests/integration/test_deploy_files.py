"""What stands in deploy/, checked by the programs that would read it, and against the program that it runs."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml
from deploy_tools import DEPLOY, ROOT, check, tool
from markdown.extensions.toc import slugify

from kantoku_kafka.cli.lifeline import MARGIN_SECONDS
from kantoku_kafka.cli.main import app
from kantoku_kafka.loading import load_app

KUBERNETES = DEPLOY / "kubernetes"
UNIT = DEPLOY / "systemd" / "kantoku-executor@.service"
KUBERNETES_VERSIONS = ("1.31.0", kubernetes_validate.latest_version())
MODELS = {
    "keda.sh/v1alpha1": "cloudcoil.models.keda.v1alpha1",
    "monitoring.coreos.com/v1": "cloudcoil.models.prometheus_operator.v1",
}
Manifest = dict[str, Any]


@cache
def built(folder: str) -> list[Manifest]:
    """What kustomize makes of a folder."""
    build = ["kubectl", "kustomize"] if shutil.which("kubectl") else [tool("kustomize"), "build"]
    return list(yaml.safe_load_all(check(*build, KUBERNETES / folder)))


@pytest.fixture(params=["base", "overlays/words"])
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    return built(request.param)


def workloads(manifests: list[Manifest]) -> list[Manifest]:
    return [one for one in manifests if one["kind"] in ("StatefulSet", "Deployment")]


def test_kubernetes_takes_every_manifest(manifests: list[Manifest]) -> None:
    known = [one for one in manifests if "." not in one["apiVersion"] or one["apiVersion"].startswith("policy/")]
    assert {one["kind"] for one in known} >= {"StatefulSet", "Service", "PodDisruptionBudget", "ServiceAccount"}
    for manifest in known:
        for version in KUBERNETES_VERSIONS:
            try:
                kubernetes_validate.validate(manifest, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                pytest.fail(f"{manifest['kind']} {manifest['metadata']['name']}, {version}: {error.message}")


def test_operators_know_every_field_of_their_manifests(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        if manifest["apiVersion"] in MODELS:
            model = getattr(importlib.import_module(MODELS[manifest["apiVersion"]]), manifest["kind"])
            read = model.model_validate(manifest)
            assert read.model_dump(mode="json", by_alias=True, exclude_unset=True) == manifest


def test_pods_are_restricted_and_stop_in_their_time(manifests: list[Manifest]) -> None:
    for workload in workloads(manifests):
        pod = workload["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }
        assert pod["terminationGracePeriodSeconds"] > drain_seconds(container["args"]) + MARGIN_SECONDS


def test_a_node_is_drained_pod_by_pod(manifests: list[Manifest]) -> None:
    budgets = [one["spec"] for one in manifests if one["kind"] == "PodDisruptionBudget"]
    for workload in workloads(manifests):
        (budget,) = (one for one in budgets if one["selector"] == workload["spec"]["selector"])
        assert budget["maxUnavailable"] == 1


def test_probes_ask_where_the_program_listens(manifests: list[Manifest]) -> None:
    for workload in workloads(manifests):
        (container,) = workload["spec"]["template"]["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert f"--http=0.0.0.0:{ports['http']}" in container["args"]
        probes = [container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")]
        assert probes == [{"path": path, "port": "http"} for path in ("/startupz", "/readyz", "/livez")]


def test_secrets_and_settings_that_are_named_are_made(manifests: list[Manifest]) -> None:
    made = {one["metadata"]["name"] for one in manifests if one["kind"] in ("ConfigMap", "Secret", "KafkaUser")}
    made.add("my-cluster-cluster-ca-cert")  # Strimzi's
    named = set(references(manifests))
    assert named and named <= made


def test_the_program_takes_each_command_line(manifests: list[Manifest]) -> None:
    for workload in workloads(manifests):
        (container,) = workload["spec"]["template"]["spec"]["containers"]
        parsed(container["args"])


@pytest.mark.parametrize("folder", ["base", "overlays/words"])
def test_the_program_knows_each_client_setting(folder: str) -> None:
    command = [sys.executable, "-m", "kantoku_kafka", "-F", KUBERNETES / folder / "client.properties"]
    shown = json.loads(check(*command, "config", "show", "-o", "json"))
    assert {one["setting"] for one in shown} > {"security.protocol"}
    assert [one for one in shown if one["note"]] == []


def test_keda_looks_at_the_inputs_of_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    manifests = built("overlays/words")
    (scaled,) = (one["spec"] for one in manifests if one["kind"] == "ScaledObject")
    (settings,) = (one["data"] for one in manifests if one["kind"] == "ConfigMap")
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    kan = load_app(settings["APP"])
    triggers = [trigger["metadata"] for trigger in scaled["triggers"]]
    assert {one["topic"] for one in triggers} == {kan.topics.of_type(name) for name in kan.task_types}
    assert {one["consumerGroup"] for one in triggers} == {kan.topics.group}
    partitions = {
        one["metadata"]["name"]: one["spec"]["partitions"] for one in manifests if one["kind"] == "KafkaTopic"
    }
    assert scaled["maxReplicaCount"] == max(partitions[one["topic"]] for one in triggers)


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "kantoku-executor@1.service"
    programs = Path(sys.executable).parent
    unit.write_text(UNIT.read_text("utf-8").replace("/opt/kantoku/venv/bin", str(programs)), "utf-8")
    assert check(tool("systemd-analyze"), "verify", "--man=no", "--recursive-errors=no", unit) == ""
    exposure = check(tool("systemd-analyze"), "security", "--offline=true", "--no-pager", "--threshold=20", unit)
    assert "Overall exposure level" in exposure


def test_the_unit_runs_what_there_is_and_stops_in_its_time() -> None:
    unit = UNIT.read_text("utf-8")
    (stop,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    (command,) = re.findall(r"^ExecStart=(.+)$", unit, re.MULTILINE)
    program, *arguments = command.replace("%i", "1").replace("${HTTP_HOST}", "127.0.0.1").split()
    assert program.endswith("/kantoku-kafka")
    assert int(stop) > drain_seconds(arguments) + MARGIN_SECONDS
    parsed(arguments)


def test_compose_takes_its_file_and_mounts_what_is_there() -> None:
    environment = {**os.environ, "COMPOSE_PROFILES": "monitoring"}
    composed = yaml.safe_load(check(tool("compose-spec"), "compose.yaml", cwd=DEPLOY, env=environment))
    assert set(composed["services"]) == {"kafka", "topics", "executor", "spawner", "prometheus", "grafana"}
    for service in composed["services"].values():
        for volume in service.get("volumes", []):
            assert Path(volume["source"]).exists()


def test_prometheus_takes_its_configuration_and_each_alert_fires_when_it_should() -> None:
    promtool, folder = tool("promtool"), DEPLOY / "prometheus"
    check(promtool, "check", "config", folder / "prometheus.yml")
    check(promtool, "test", "rules", folder / "alerts.test.yml")
    named = re.findall(r"alert: (\w+)", (folder / "alerts.yml").read_text("utf-8"))
    tested = re.findall(r'alertname="(\w+)"', (folder / "alerts.test.yml").read_text("utf-8"))
    assert named and sorted(named) == sorted(set(tested))


def test_each_alert_names_where_the_guide_says_what_to_do() -> None:
    rules = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text("utf-8"))["groups"][0]["rules"]
    guide = (ROOT / "docs" / "howto" / "incidents.md").read_text("utf-8")
    told = {}
    for title, alerts in re.findall(r"^### (.+)\n\n\[(.+?)\]", guide, re.MULTILINE):
        anchor = slugify(title, "-")
        told |= dict.fromkeys(alerts.split(", "), f"docs/howto/incidents.md#{anchor}")
    assert {rule["alert"]: rule["annotations"]["runbook"] for rule in rules} == told


def test_what_follows_from_code_is_as_the_code_says(tmp_path: Path) -> None:
    for folder in ("grafana", "kubernetes/overlays/words", "terraform/words"):
        (tmp_path / folder).mkdir(parents=True)
    programs = Path(sys.executable).parent
    check(DEPLOY / "generate.sh", tmp_path, env={**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"})
    generated = [path.relative_to(tmp_path) for path in tmp_path.rglob("*.*") if path.is_file()]
    assert len(generated) == 5
    for path in generated:
        assert (DEPLOY / path).read_text("utf-8") == (tmp_path / path).read_text("utf-8"), "make generated"


def test_terraform_files_are_well_formed() -> None:
    check(tool("hclfmt"), "-check", "-require-no-change", *sorted((DEPLOY / "terraform" / "words").glob("*.tf")))


def references(value: Any) -> Iterator[str]:
    """The names of secrets and settings that are referred to, anywhere within."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if key in ("secret", "configMapRef", "secretKeyRef"):
            yield inner["name"]
        elif key == "secretTargetRef":
            yield from (one["name"] for one in inner)
        elif isinstance(inner, dict | list):
            yield from references(inner)


def parsed(arguments: list[str]) -> None:
    """Have the command line read its arguments, and do nothing. Raises click's error."""
    root = typer.main.get_command(app)
    assert isinstance(root, typer.core.TyperGroup)
    root.commands[arguments[0]].make_context(arguments[0], arguments[1:])


def drain_seconds(arguments: list[str]) -> float:
    """What ``--drain-seconds`` says; a scheduler has nothing to drain."""
    return float(next((word.partition("=")[2] for word in arguments if word.startswith("--drain-seconds=")), 0))
