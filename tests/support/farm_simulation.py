"""Many nodes' worth of claims, results and beats on one folder: files alone, no daemon. Nodes are processes' threads,
each with the name, the claims and the beat of a worker."""

from __future__ import annotations

import json
import multiprocessing
import resource
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from lance_farm.beats import Beat
from lance_farm.claims import Claims
from lance_farm.collect import Collection, collect
from lance_farm.job import Job
from lance_farm.log import Log
from lance_farm.programs import Facts
from lance_farm.results import Results
from lance_farm.status import status_of

LEASE_SECONDS = 600.0
PROCESSES = 4


@dataclass(frozen=True)
class Simulated:
    nodes: int
    tasks: int
    work_seconds: float
    status_seconds: float
    collect_seconds: float
    peak_bytes: int  # of this process, status and collect included
    most_done: int  # how often the task that was done most often was done


def _node(folder: Path, name: str) -> None:
    job = Job(folder)
    identity = job.identity
    assert identity
    claims, results, log = Claims(folder, name), Results(folder), Log(folder / "log", name)
    beat = Beat(folder / "workers", name, identity.lease_seconds, host=name, machine="")
    log.write("started")
    beat.tell(state="working", loads=1, backend=identity.facts.backend)
    while claim := claims.take():
        beat.tell(task=claim.number)
        log.write("began", task=claim.number, attempt=claim.attempt)
        task = job.tasks[claim.number]
        work = results.begin(claim.name)
        (work / "answer.txt").write_text(f"task {claim.number}")
        receipt = {"digest": identity.digest(task.request), "seconds": 1.0, "worker": name, "attempt": claim.attempt,
                   "outputs": {}, "receipts": []}  # fmt: skip
        is_first = results.publish(work, claim.number, receipt)
        claims.end(claim)
        log.write("done" if is_first else "found", task=claim.number, attempt=claim.attempt)
    beat.close()
    log.close()


def _nodes(folder: Path, names: list[str], width: int) -> None:
    """So many at a time."""
    slots = threading.Semaphore(width)

    def run(name: str) -> None:
        with slots:
            _node(folder, name)

    threads = [threading.Thread(target=run, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def simulate(job: Job, nodes: int, output: Path) -> Simulated:
    """All nodes are there at once, each a thread; tasks take no time, so that only files do."""
    job.settle(Facts("none", "0" * 64, "none", "none"), LEASE_SECONDS)
    names = [f"node-{place}" for place in range(nodes)]
    parts = [names[place::PROCESSES] for place in range(PROCESSES)]
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_nodes, args=(job.folder, part, len(part))) for part in parts]
    began = time.monotonic()
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    work = time.monotonic() - began
    began = time.monotonic()
    status = status_of(job)
    told = time.monotonic() - began
    assert status["done"] == len(job.tasks), status
    began = time.monotonic()
    collect(job, Collection(output))
    collected = time.monotonic() - began
    counts = dict.fromkeys(job.tasks, 0)
    for log in (job / "log").glob("node-*.jsonl"):
        for line in log.read_text().splitlines():
            event = json.loads(line)
            if event["event"] == "done":
                counts[event["task"]] += 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Simulated(nodes, len(job.tasks), work, told, collected, peak, max(counts.values()))
