"""One run from beginning to end: cluster, executors, load, faults; then the verdict of the topics."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kantoku_kafka import Kantoku
from kantoku_kafka.errors import BrokerUnavailable, SlotTaken
from kantoku_kafka.kafka import topics
from kantoku_kafka.kafka.group import worked_topics
from kantoku_kafka.settings import EventDetail
from kantoku_kafka.verify import Evidence, Journal, Report, Violation, collect, judge
from tests.chaos.app import TYPES
from tests.chaos.cluster import Cluster
from tests.chaos.failpoints import DEATH, STEPS
from tests.chaos.faults import PLANS, Fault, Saboteur, failpoints
from tests.chaos.offsets import went_back
from tests.chaos.proxy import EFFECTS
from tests.chaos.reader import Reader
from tests.chaos.runs import Run
from tests.chaos.spawner import Journal as SpawnJournal
from tests.chaos.stage import MARK, Stage

__all__ = ["SETTLE_SECONDS", "begun", "hunt", "perform", "schedule_of"]

SETTLE_SECONDS = 60.0
"""So long after the last fault every task has to have ended."""
_UNREACHABLE = {"kill-broker", "proxy", "signal-executor", "fill-disk"}  # who begins then may find no broker
_REFUSED = "checkpoint put off"
_LOOK_SECONDS = 0.5
_LOG4J = Path(__file__).with_name("log4j2.properties")  # tells more of transactions
_LEAST_SCALE, _LEAST_EXECUTORS = 0.05, 3  # a run of less is cut short: for a first look
_SPAWNER_SECONDS = 400.0


def schedule_of(run: Run, seed: int, scale: float) -> list[Fault]:
    """The faults of a run: the same for the same three."""
    chance = random.Random(f"{run.faults} {seed}")
    return sorted(
        PLANS[run.faults](chance, _seconds(run, scale), _executors(run, scale)), key=lambda fault: fault.at_seconds
    )


Violations = dict[str, Sequence[Violation]]
"""By invariant."""


@dataclass(frozen=True, slots=True)
class Performance:
    """A run under way."""

    run: Run
    seed: int
    scale: float
    folder: Path
    faults: Sequence[Fault]
    kan: Kantoku
    cluster: Cluster
    stage: Stage
    reader: Reader
    saboteur: Saboteur
    load: subprocess.Popen[bytes]

    @property
    def set_back(self) -> bool:
        """Whether the group is set back meanwhile."""
        return any(fault.kind == "reset-group" for fault in self.faults)

    def evidence(self) -> Evidence:
        """What the topics say now."""
        kan = self.kan
        while True:
            try:
                return collect(kan.clients, kan.topics, kan.codec, worked_topics(kan.clients, kan.topics))
            except BrokerUnavailable:
                if self.saboteur.ended_at and time.monotonic() > self.saboteur.ended_at + 2 * SETTLE_SECONDS:
                    raise

    def journal(self) -> Journal:
        """The ids that the spawner knows to be taken, or not to be."""
        acknowledged, refused = SpawnJournal.read(self.folder / "journal.jsonl")
        return Journal(frozenset(acknowledged), frozenset(refused))

    def seen(self) -> tuple[Journal, Evidence]:
        """The journal, and then the topics: what it knows stands there by then."""
        return self.journal(), self.evidence()

    def broken(self, journal: Journal, evidence: Evidence, *, at_rest: bool = False) -> Violations:
        """What is violated, by invariant; ``at_rest``: if nothing ran any more."""
        found = _violations(judge(evidence, journal, at_rest=at_rest, events=EventDetail.FULL))
        if self.set_back and not at_rest:  # there are results whose records have to be gone through again
            found.pop("I4", None)
        return found

    def settle(self, since: float) -> tuple[float | None, Violations]:
        """Wait until every task has ended, or something is broken for good.

        How long that took, None if it took too long; and what is broken.
        """
        deadline = since + SETTLE_SECONDS
        acknowledged = self.journal().acknowledged
        while not acknowledged <= self.reader.ids and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        while True:
            seconds = time.monotonic() - since
            try:
                seen = self.seen()
            except BrokerUnavailable:  # nobody tells how far the group is: a transaction hangs
                return None, {}
            unsettled = self.broken(*seen, at_rest=True)
            broken = self.broken(*seen) if unsettled else {}
            if broken or not unsettled:
                return round(seconds, 1), broken
            if time.monotonic() > deadline:
                return None, unsettled
            time.sleep(_LOOK_SECONDS)


@contextmanager
def begun(run: Run, *, seed: int, scale: float, folder: Path, mutant: str = "") -> Iterator[Performance]:
    """A run with its cluster, executors, load and faults; all of it ends with the block.

    Parameters:
        seed: of faults and load.
        scale: 1 is the stated load.
        folder: for logs, the journal and the report.
        mutant: a defect to build into the executors.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    faults = schedule_of(run, seed, scale)
    (folder / "schedule.json").write_text(json.dumps([fault.as_json() for fault in faults], indent=1))
    os.environ |= {MARK: uuid.uuid4().hex, "KANTOKU_MUTANT": mutant, "KANTOKU_BROKER_LOG4J2": str(_LOG4J)}
    with ExitStack() as stack:
        cluster = Cluster(
            run.nodes, proxied=run.proxied, folder=folder, settings=run.settings, small_disk=run.small_disk
        )
        stack.enter_context(cluster)
        kan = Kantoku(f"chaos{seed}", bootstrap_servers=cluster.broker.bootstrap_servers)
        stack.callback(kan.close)
        topics.create(kan.clients, topics.plan(kan.topics, TYPES, partitions=run.partitions))
        stage = Stage(
            cluster,
            kan,
            count=_executors(run, scale),
            options=("--types", run.types, *run.options),
            failpoints=failpoints(random.Random(f"failpoints {seed}")) if run.fails else None,
            chance=random.Random(f"stage {seed}"),
            folder=folder,
            slots=run.slots,
            may_end_with=_expected_codes(faults),
        )
        stack.callback(stage.kill)
        reader = stack.enter_context(Reader(cluster.broker.bootstrap_servers, kan.topics.results, run.partitions))
        stage.open()
        saboteur = Saboteur(stage, faults)
        saboteur.start()
        load = _spawner(run, seed, scale, cluster, kan, folder)
        stack.callback(load.kill)
        yield Performance(run, seed, scale, folder, faults, kan, cluster, stage, reader, saboteur, load)


def perform(run: Run, *, seed: int, scale: float, folder: Path) -> dict[str, Any]:
    """Do a run to its end and judge it; parameters as in :func:`begun`. What was found, for a report."""
    started = time.monotonic()
    with begun(run, seed=seed, scale=scale, folder=folder) as performance:
        stage, saboteur = performance.stage, performance.saboteur
        code = performance.load.wait(_SPAWNER_SECONDS + _seconds(run, scale))
        spawned_at = time.monotonic()
        saboteur.join()
        settled_seconds, early = performance.settle(max(saboteur.ended_at or 0.0, spawned_at))
        hanging = []
        if settled_seconds is None or "I8" in early:
            stage.ask_where()
            if hanging := performance.cluster.end_hanging_transactions():
                _, early = performance.settle(time.monotonic())
        codes = stage.close()
        time.sleep(_LOOK_SECONDS)
        journal = replace(performance.journal(), seen=dict(performance.reader.seen))
        evidence = performance.evidence()
        report = judge(evidence, journal, at_rest=True, events=EventDetail.FULL)
        problems = _went_back(performance)[:3]
        proxied = Counter(line["what"] for line in performance.cluster.proxy_log())
    logs = "".join(path.read_text() for path in sorted(folder.glob("executor-*.log")))
    deaths = {step: count for step in STEPS if (count := logs.count(DEATH.format(step)))}
    hits = {kind: count for kind, count in saboteur.hits.items() if kind != "proxy"} | {
        kind: count for kind, count in proxied.items() if kind in EFFECTS
    }
    late = _violations(report)
    violations = {name: [*early.get(name, ()), *late.get(name, ())] for name in early.keys() | late.keys()}
    broken = {v.task_id for found in violations.values() for v in found if v.task_id is not None}
    (folder / "violations.txt").write_text("".join(f"{line}\n" for line in _all_of(broken, evidence)))
    problems += [f"{name}: {len(found)} violations" for name, found in violations.items()]
    problems += [f"no {kind} has met anybody" for kind in _intended(performance) if not hits.get(kind)]
    if run.fails and not deaths:
        problems.append("nobody has died at a step")
    if settled_seconds is None:
        problems.append(f"not all tasks had ended {SETTLE_SECONDS:g} s after the last fault")
    if hanging:
        problems.append(f"transactions hung until their coordinators were restarted: {hanging}")
    if code != 0:
        problems.append(f"the spawner ended with {code}")
    if saboteur.error is not None:
        problems.append(f"a fault could not be done: {saboteur.error!r}")
    if surprises := [*stage.unexpected, *codes]:
        problems.append(f"executors ended with {surprises}")
    problems += [note for note in stage.notes if not note.endswith(" 0 of them impossible")]
    if orphans := _marked():
        problems.append(f"{len(orphans)} processes are left: {orphans}")
    return {
        "seed": seed,
        "scale": scale,
        "ok": not problems,
        "problems": problems,
        "acknowledged": len(journal.acknowledged),
        "tasks": report.tasks,
        "results": report.results,
        "faults": hits,
        "deaths": deaths,
        "gave_up": stage.gave_up,
        "refused_checkpoints": logs.count(_REFUSED),
        "settled_seconds": settled_seconds,
        "seconds": round(time.monotonic() - started, 1),
        "cases": {f.name: f.cases for f in report.findings},
        "violations": {name: [_shown(v) for v in found[:20]] for name, found in violations.items()},
        "notes": stage.notes,
    }


def hunt(run: Run, *, seed: int, scale: float, folder: Path, mutant: str) -> dict[str, Any]:
    """Do a run with a defect built in, and judge it all the while, until the checker finds the defect.

    Parameters as in :func:`begun`; without a mutant nothing must be found. ``seconds`` of the report: from the first
    spawn to the verdict.
    """
    with begun(run, seed=seed, scale=scale, folder=folder, mutant=mutant) as performance:
        began = time.monotonic()
        found: Violations = {}
        while not found and (performance.load.poll() is None or performance.saboteur.is_alive()):
            found = performance.broken(*performance.seen())
            time.sleep(_LOOK_SECONDS)
        if not found:
            _, found = performance.settle(time.monotonic())
        seconds = round(time.monotonic() - began, 1)
    shown = {name: _shown(violations[0]) for name, violations in found.items()}
    ok = bool(found) is bool(mutant)
    return {"mutant": mutant, "seed": seed, "scale": scale, "ok": ok, "seconds": seconds, "found": shown}


def _intended(performance: Performance) -> set[str]:
    """Kinds of faults without which the run has shown nothing."""
    kinds = {fault.kind for fault in performance.faults}
    rules = {fault.details["do"] for fault in performance.faults if fault.kind == "proxy"}
    return (kinds - {"proxy"}) | rules.intersection({"hold", "delay", "freeze", "deafen", "cut"})


def _expected_codes(faults: Sequence[Fault]) -> set[int]:
    """Exit codes that are no surprise with these faults."""
    kinds = {fault.kind for fault in faults}
    unreachable = {BrokerUnavailable.exit_code} if kinds & _UNREACHABLE else set()
    return unreachable | ({SlotTaken.exit_code} if "start-twin" in kinds else set())


def _went_back(performance: Performance) -> list[str]:
    """Commits of either group that are less than one before them; unless somebody has set the executors' back."""
    clients, topics = performance.kan.clients, performance.kan.topics
    groups = [topics.timers_group] if performance.set_back else [topics.group, topics.timers_group]
    return [text for group in groups for text in went_back(clients, group)]


def _executors(run: Run, scale: float) -> int:
    return max(min(run.executors, _LEAST_EXECUTORS), round(run.executors * min(1.0, scale / _LEAST_SCALE)))


def _seconds(run: Run, scale: float) -> float:
    return max(run.at_least_seconds * min(1.0, scale / _LEAST_SCALE), run.seconds * scale)


def _spawner(
    run: Run, seed: int, scale: float, cluster: Cluster, kan: Kantoku, folder: Path
) -> subprocess.Popen[bytes]:
    count = max(1, round(run.tasks * scale))
    arguments = (
        cluster.bootstrap,
        kan.namespace,
        folder / "journal.jsonl",
        count,
        _seconds(run, scale),
        seed,
        run.mix,
    )
    with (folder / "spawner.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.spawner", *map(str, arguments)], stdout=log, stderr=log
        )


def _all_of(task_ids: Set[str], evidence: Evidence) -> Iterator[str]:
    """Everything that the topics say of these tasks."""
    for task_id in task_ids:
        yield from (f"{place} {spawn}" for place, spawn in evidence.spawns if spawn.task_id == task_id)
        yield from (str(outcome) for outcome in evidence.outcomes if outcome.task_id == task_id)
        yield from (str(logged) for logged in evidence.histories.get(task_id, ()))
        yield from [f"{task_id}: {evidence.pending[task_id]} is pending"] if task_id in evidence.pending else []


def _violations(report: Report) -> Violations:
    return {finding.name: finding.violations for finding in report.findings if finding.violations}


def _shown(violation: Violation) -> dict[str, Any]:
    return {"task_id": violation.task_id, "text": violation.text, "records": [str(r) for r in violation.records]}


def _marked() -> list[int]:
    """Processes of this run that still live, but for this one: by what they inherited."""
    mark = f"{MARK}={os.environ[MARK]}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        number = int(path.parent.name)
        try:
            if number != os.getpid() and mark in path.read_bytes().split(b"\0"):
                found.append(number)
        except OSError:
            continue
    return found
