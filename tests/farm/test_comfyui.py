"""`--runner comfyui`: a real ComfyUI does the graphs, one for a worker (COMFYUI=DIR, as for make test-comfyui)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from farm_jobs import (
    WORKFLOW,
    done_counts,
    farm,
    is_there,
    prepared,
    submitted,
    wait_until,
    workers,
    write_workflow,
)
from lance_farm.comfyui import START_SECONDS
from lance_farm.job import Job
from lance_farm.status import status_of
from lance_farm.submit import may_come
from lanced_process import ROOT

COMFYUI = os.environ.get("COMFYUI", "")
pytestmark = [pytest.mark.deep, pytest.mark.skipif(not COMFYUI, reason="no COMFYUI given")]


def test_a_foreign_node_runs_in_one_warm_comfyui_per_worker(tmp_path: Path) -> None:
    graph = json.loads(json.dumps(WORKFLOW))
    graph["7"] = {"class_type": "ImageInvert", "inputs": {"image": ["2", 0]}}
    graph["3"]["inputs"]["images"] = ["7", 0]
    graph["8"] = {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "plain"}}
    workflow = tmp_path / "workflow.json"
    workflow.write_text(json.dumps(graph))
    refused = farm("prepare", workflow, "--seeds", "1..3", "-o", tmp_path / "job")
    assert refused.returncode == 2 and "ImageInvert" in refused.stderr and "--runner comfyui" in refused.stderr
    job = prepared(tmp_path, "--seeds", "1..3", "--runner", "comfyui", workflow=workflow)
    assert submitted(job).returncode == 2
    done = submitted(job, *comfyui_options(tmp_path), wait=False)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: not may_come(job), START_SECONDS)
    assert status_of(job)["done"] == 3, status_of(job)
    assert set(done_counts(job).values()) == {1}
    plain_of: Job = prepared(tmp_path / "plain", "--seeds", "1..3", workflow=_plain(tmp_path))
    assert submitted(plain_of).returncode == 0
    for number in job.tasks:
        folder = job / f"results/{number:06}"
        (plain,), (inverted,) = folder.glob("plain_*.png"), folder.glob("lance_*.png")
        (alone,) = (plain_of / f"results/{number:06}").glob("*.png")
        np.testing.assert_array_equal(np.asarray(Image.open(plain)), np.asarray(Image.open(alone)))
        pixels, inverse = (np.asarray(Image.open(path)).astype(int) for path in (plain, inverted))
        np.testing.assert_allclose(pixels + inverse, 255, atol=1)  # ComfyUI rounds both down
    (worker,) = (json.loads(path.read_text()) for path in (job / "workers").glob("[!.]*.json"))
    assert not is_there(worker["pid"]) and not is_there(worker["daemon"])


def test_comfyui_ends_with_a_worker_that_is_killed(tmp_path: Path) -> None:
    workflow = write_workflow(tmp_path, width=256, height=256, steps=1000)
    job = prepared(tmp_path, "--runner", "comfyui", workflow=workflow)
    assert submitted(job, *comfyui_options(tmp_path), wait=False).returncode == 0
    try:
        wait_until(lambda: bool(workers(job)) and bool(workers(job)[0].get("task")), START_SECONDS)
        (worker,) = workers(job)
        marker = f"--input-directory {job / 'inputs'}"
        assert marker in processes()
        os.kill(worker["pid"], signal.SIGKILL)
        wait_until(lambda: marker not in processes() and not is_there(worker["daemon"]))
    finally:
        farm("cancel", job.folder)


def processes() -> str:
    return subprocess.run(["ps", "-eo", "args", "-ww"], capture_output=True, text=True, check=True).stdout


def comfyui_options(folder: Path) -> list[str]:
    base = folder / "base"
    (base / "custom_nodes").mkdir(parents=True)
    (base / "custom_nodes/lanced").symlink_to(ROOT)
    options = ["--comfyui", COMFYUI, "--comfyui-option=--cpu", f"--comfyui-option=--base-directory={base}"]
    python = os.environ.get("COMFYUI_PYTHON")
    return [*options, "--comfyui-python", python] if python else options


def _plain(folder: Path) -> Path:
    path = folder / "plain/workflow.json"
    path.parent.mkdir()
    path.write_text(json.dumps(WORKFLOW))
    return path
