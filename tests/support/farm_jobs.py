"""Jobs of lance-farm for tests: a quick workflow, the command line, and what came of it."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lance_farm.job import Job
from lance_farm.status import events_of, status_of
from lanced_process import BUILD, DEMO_MODEL, LANCECTL_SECONDS, ROOT

FARM = ROOT / "tools/lance-farm"
COMMAND = [sys.executable, "-m", "lance_farm"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(FARM), "LANCE_FARM_BIN": str(BUILD)}
LEASE = "3"

WORKFLOW: dict[str, Any] = json.loads((ROOT / "workflows/api/t2i.json").read_text())
WORKFLOW["2"]["inputs"] |= {"steps": 2, "width": 64, "height": 64}


def write_workflow(folder: Path, **inputs: Any) -> Path:
    """The workflow with other inputs of its one task, as a file."""
    graph = copy.deepcopy(WORKFLOW)
    graph["2"]["inputs"] |= inputs
    path = folder / "workflow.json"
    path.write_text(json.dumps(graph))
    return path


def farm(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env=ENVIRONMENT | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=5 * LANCECTL_SECONDS,  # a whole job, maybe, on a machine that is busy
    )


def prepared(folder: Path, *arguments: str, workflow: Path | None = None) -> Job:
    done = farm("prepare", workflow or write_workflow(folder), *arguments, "-o", folder / "job")
    assert done.returncode == 0, done.stderr
    return Job(folder / "job")


def submitted(job: Job, *arguments: str, wait: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    wish = ["--to", "local", "--model", str(DEMO_MODEL), "--lease", LEASE, *(["--wait"] if wait else []), *arguments]
    return farm("submit", job.folder, *wish, **environment)


def wait_until(is_so: Callable[[], bool], seconds: float = LANCECTL_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


def workers(job: Job) -> list[dict[str, Any]]:
    """What the workers said last."""
    files = sorted((job / "workers").glob("[!.]*.json"))
    return [json.loads(file.read_text()) for file in files]


def done_counts(job: Job) -> dict[int, int]:
    """How often each task was said to be done."""
    counts = dict.fromkeys(job.tasks, 0)
    for event in events_of(job):
        if event["event"] == "done":
            counts[event["task"]] += 1
    return counts


def is_there(pid: int) -> bool:
    """Whether a process lives; one that only nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


__all__ = ["status_of"]
