"""One run from beginning to end: cluster, executors, load, faults; then the verdict of the topics."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
import uuid
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from kantoku_kafka import Kantoku
from kantoku_kafka.kafka import topics
from kantoku_kafka.kafka.group import input_topics
from kantoku_kafka.verify import Evidence, Journal, Violation, collect, judge
from tests.chaos.app import TYPES
from tests.chaos.cluster import Cluster
from tests.chaos.faults import PLANS, Fault, Saboteur, failpoint
from tests.chaos.reader import Reader
from tests.chaos.runs import Run
from tests.chaos.spawner import Journal as SpawnJournal
from tests.chaos.stage import MARK, Stage

__all__ = ["SETTLE_SECONDS", "perform", "schedule_of"]

SETTLE_SECONDS = 60.0
"""So long after the last fault every task has to have ended."""
_LOOK_SECONDS = 0.5
_SPAWNER_SECONDS = 400.0


def schedule_of(run: Run, seed: int, scale: float) -> list[Fault]:
    """The faults of a run: the same for the same three."""
    chance = random.Random(f"{run.faults} {seed}")
    return sorted(PLANS[run.faults](chance, _seconds(run, scale), run.executors), key=lambda fault: fault.at_seconds)


def perform(name: str, run: Run, *, seed: int, scale: float, folder: Path, mutant: str = "") -> dict[str, Any]:
    """Do a run and judge it.

    Parameters:
        name: of the run, for the report.
        seed: of faults and load.
        scale: 1 is the stated load.
        folder: for logs, the journal and the report.
        mutant: a defect to build into the executors.
    """
    folder.mkdir(parents=True, exist_ok=True)
    faults = schedule_of(run, seed, scale)
    (folder / "schedule.json").write_text(json.dumps([fault.as_json() for fault in faults], indent=1))
    os.environ |= {MARK: uuid.uuid4().hex, "KANTOKU_MUTANT": mutant}
    began = time.monotonic()
    with ExitStack() as stack:
        cluster = Cluster(run.nodes, proxied=run.proxied, folder=folder, settings=run.settings)
        stack.enter_context(cluster)
        kan = Kantoku(f"chaos{seed}", bootstrap_servers=cluster.broker.bootstrap_servers)
        stack.callback(kan.close)
        topics.create(kan.clients, topics.plan(kan.topics, TYPES, partitions=run.partitions))
        chance = random.Random(f"stage {seed}")
        options = ("--types", run.types, *run.options)
        stage = Stage(
            cluster,
            kan,
            count=run.executors,
            options=options,
            failpoint=failpoint if run.fails else None,
            chance=chance,
            folder=folder,
            slots=run.slots,
        )
        stack.callback(stage.kill)
        reader = stack.enter_context(Reader(cluster.broker.bootstrap_servers, kan.topics.results, run.partitions))
        stage.open()
        saboteur = Saboteur(stage, faults)
        saboteur.start()
        load = _spawner(run, seed, scale, cluster, kan, folder)
        stack.callback(load.kill)
        code = load.wait(_SPAWNER_SECONDS + _seconds(run, scale))
        spawned_at = time.monotonic()
        saboteur.join()
        acknowledged, refused = SpawnJournal.read(folder / "journal.jsonl")
        settled_seconds = _settle(kan, reader, acknowledged, max(saboteur.ended_at or 0.0, spawned_at))
        codes = stage.close()
        time.sleep(_LOOK_SECONDS)
        seen = Journal(frozenset(acknowledged), frozenset(refused), dict(reader.seen))
        report = judge(_evidence(kan), seen, at_rest=True)
        released = Counter(line["what"] for line in cluster.proxy_log())
    problems = [f"{f.name}: {len(f.violations)} violations" for f in report.findings if f.violations]
    if settled_seconds is None:
        problems.append(f"not all tasks had ended {SETTLE_SECONDS:g} s after the last fault")
    if code != 0:
        problems.append(f"the spawner ended with {code}")
    if saboteur.error is not None:
        problems.append(f"a fault could not be done: {saboteur.error!r}")
    if stage.unexpected or any(c != 0 for c in codes):
        problems.append(f"executors ended with {stage.unexpected or codes}")
    problems += [note for note in stage.notes if not note.endswith(" 0 of them impossible")]
    if orphans := _marked():
        problems.append(f"{len(orphans)} processes are left: {orphans}")
    return {
        "run": name,
        "seed": seed,
        "scale": scale,
        "mutant": mutant,
        "ok": not problems,
        "problems": problems,
        "acknowledged": len(acknowledged),
        "tasks": report.tasks,
        "results": report.results,
        "faults": dict(Counter(fault.kind for fault in faults)),
        "proxy": dict(released),
        "settled_seconds": settled_seconds,
        "seconds": round(time.monotonic() - began, 1),
        "findings": [
            {"name": f.name, "cases": f.cases, "violations": [_shown(v) for v in f.violations[:20]]}
            for f in report.findings
        ],
        "notes": stage.notes,
    }


def _seconds(run: Run, scale: float) -> float:
    return max(run.at_least_seconds, run.seconds * scale)


def _spawner(
    run: Run, seed: int, scale: float, cluster: Cluster, kan: Kantoku, folder: Path
) -> subprocess.Popen[bytes]:
    count = max(1, round(run.tasks * scale))
    arguments = (cluster.bootstrap, kan.namespace, folder / "journal.jsonl", count, _seconds(run, scale), seed, run.mix)
    with (folder / "spawner.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.spawner", *map(str, arguments)], stdout=log, stderr=log
        )


def _settle(kan: Kantoku, reader: Reader, acknowledged: set[str], since: float) -> float | None:
    """Wait until every task has ended, or one never will; how long that took, None if it took too long."""
    deadline = since + SETTLE_SECONDS
    while not acknowledged <= reader.ids and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
    while time.monotonic() < deadline:
        seconds = time.monotonic() - since
        evidence = _evidence(kan)
        if judge(evidence, at_rest=True).ok or not judge(evidence).ok:
            return round(seconds, 1)
        time.sleep(_LOOK_SECONDS)
    return None


def _evidence(kan: Kantoku) -> Evidence:
    return collect(kan.clients, kan.topics, kan.codec, list(input_topics(kan.clients, kan.topics)))


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
