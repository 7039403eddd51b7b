"""Three workflows as three jobs, and the troubles that a farm has with them: for tests, and for the report."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from farm_jobs import LEASE, farm, is_there, prepared, wait_until, workers
from lance_farm.job import Job
from lance_farm.status import status_of
from lanced_process import DEMO_MODEL, ROOT
from slurm_cluster import Cluster

Made = dict[str, Any]


def three_jobs(folder: Path, counts: Sequence[int]) -> list[Job]:
    """Pictures, edits and answers, so many of each."""
    jobs = []
    edits = {"steps": 12}
    for name, count, inputs, sweep in [
        ("t2i", counts[0], {"steps": 12}, f"seed=1..{counts[0]}"),
        ("image_edit", counts[1], edits, f"seed=1..{counts[1]}"),
        ("ask_image", counts[2], {}, f"max_new_tokens=8..{counts[2] + 7}"),
    ]:
        graph = json.loads((ROOT / f"workflows/api/{name}.json").read_text())
        node = next(node for node in graph.values() if "prompt" in node["inputs"] or "question" in node["inputs"])
        node["inputs"] |= inputs
        input_name = sweep.partition("=")[0]
        if input_name not in node["inputs"]:
            node["inputs"][input_name] = 8
        home = folder / name
        home.mkdir(parents=True)
        (home / "workflow.json").write_text(json.dumps(graph))
        arguments = ["--set", sweep, "--input-dir", str(ROOT / "workflows/input")]
        jobs.append(prepared(home, *arguments, workflow=home / "workflow.json"))
        assert len(jobs[-1].tasks) == count
    return jobs


def made_by(job: Job) -> dict[int, Made]:
    """What each task made: pixels of its pictures, texts."""
    made = {}
    for number in job.tasks:
        folder = job / f"results/{number:06}"
        told: Made = {}
        for path in sorted(folder.glob("*.png")):
            with Image.open(path) as image:
                told[path.name] = np.asarray(image).tobytes()
        told["texts"] = [
            node.get("text") for node in json.loads((folder / "receipt.json").read_text())["outputs"].values()
        ]
        made[number] = told
    return made


def done(jobs: Sequence[Job]) -> int:
    return sum(int(status_of(job)["done"]) for job in jobs)


def busy_workers(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Those that do a task now, of any of the jobs."""
    told = [worker for job in jobs for worker in workers(job)]
    return [one for one in told if one.get("task") and one.get("state") != "ended" and is_there(one["pid"])]


def run_with_troubles(cluster: Cluster, jobs: Sequence[Job], workers_each: int) -> list[tuple[float, str]]:
    """Submit the jobs; midway kill two slurmd, a worker and a lanced with kill -9, and drain a node. Returns when
    every task has ended, with what was done when (seconds of the clock)."""
    told = []
    for job in jobs:
        arguments = ["--to", "slurm", "--model", str(DEMO_MODEL), "--lease", LEASE, "--workers", str(workers_each)]
        answer = farm("submit", job.folder, *arguments, **cluster.environment)
        assert answer.returncode == 0, answer.stderr
    total = sum(len(job.tasks) for job in jobs)

    def at(part: float, what: str) -> None:
        wait_until(lambda: done(jobs) >= part * total, 600)
        told.append((time.time(), what))

    at(0.1, "slurmd of n2 killed")
    cluster.kill_node("n2")
    at(0.2, "a worker killed")
    wait_until(lambda: bool(busy_workers(jobs)))
    os.kill(busy_workers(jobs)[0]["pid"], signal.SIGKILL)
    at(0.3, "a lanced killed")
    wait_until(lambda: bool(busy_workers(jobs)))
    os.kill(busy_workers(jobs)[-1]["daemon"], signal.SIGKILL)
    at(0.4, "n4 drained")
    cluster.drain_node("n4")
    at(0.5, "slurmd of n3 killed")
    cluster.kill_node("n3")
    wait_until(lambda: done(jobs) == total, 600)
    wait_until(lambda: not any(status_of(job)["workers"]["alive"] for job in jobs), 120)
    return told
