"""A real Slurm with four nodes, some of which die."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from farm_jobs import done_counts, farm, is_there, prepared, submitted, wait_until, workers, write_workflow
from farm_scenarios import made_by, run_with_troubles, three_jobs
from lance_farm.status import status_of
from lanced_process import DEMO_MODEL
from slurm_cluster import Cluster, why_not

pytestmark = [pytest.mark.deep, pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")]
TASKS = (100, 60, 40)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, Cluster(Path(folder), 4) as cluster:
        yield cluster


def test_200_tasks_of_three_workflows_end_once_each_whatever_dies(cluster: Cluster, tmp_path: Path) -> None:
    jobs = three_jobs(tmp_path / "slurm", TASKS)
    run_with_troubles(cluster, jobs, workers_each=2)
    alone = three_jobs(tmp_path / "alone", TASKS)
    for job, single in zip(jobs, alone, strict=True):
        status = status_of(job)
        assert (status["done"], status["failed"], status["running"]) == (len(job.tasks), 0, 0)
        assert set(done_counts(job).values()) == {1}
        assert submitted(single).returncode == 0
        assert made_by(job) == made_by(single)
        left = [worker for worker in workers(job) if is_there(worker["pid"]) or is_there(worker.get("daemon") or 0)]
        assert left == []


def test_cancel_ends_slurms_job_and_its_workers(cluster: Cluster, tmp_path: Path) -> None:
    job = prepared(tmp_path, "--seeds", "1..4", workflow=write_workflow(tmp_path, width=256, height=256, steps=1000))
    wish: list[str | Path] = ["--to", "slurm", "--model", DEMO_MODEL, "--workers", "2"]
    assert (
        farm("submit", job.folder, *wish, "--", "--job-name=mine", "--time=10", **cluster.environment).returncode == 0
    )
    wait_until(lambda: bool(status_of(job)["running"]))
    assert "mine" in cluster.ask("squeue", "-h", "-o", "%j")
    wait_until(lambda: any(worker.get("task") for worker in workers(job)))
    assert "Slurm job" in farm("cancel", job.folder, **cluster.environment).stdout
    wait_until(lambda: cluster.ask("squeue", "-h") == "")
    wait_until(lambda: not any(is_there(worker["pid"]) for worker in workers(job)))
    assert not any(is_there(worker.get("daemon") or 0) for worker in workers(job))
    assert status_of(job)["waiting"] == 4


def test_a_site_that_hands_on_no_environment_and_a_folder_with_slurms_marks_in_its_name(
    cluster: Cluster, tmp_path: Path
) -> None:
    home = tmp_path / "100 %j"
    home.mkdir()
    job = prepared(home, "--seeds", "1..2")
    wish: list[str | Path] = ["--to", "slurm", "--model", DEMO_MODEL, "--", "--export=NONE"]
    assert farm("submit", job.folder, *wish, **cluster.environment).returncode == 0
    wait_until(lambda: status_of(job)["done"] == 2 and not status_of(job)["workers"]["alive"])
    wait_until(lambda: cluster.ask("squeue", "-h") == "")
    assert len(list((job / "log").glob("slurm-*.out"))) == 1


def test_what_sbatch_refuses_is_said_and_starts_nothing(cluster: Cluster, tmp_path: Path) -> None:
    job = prepared(tmp_path, "--seeds", "1..2")
    wish: list[str | Path] = ["--to", "slurm", "--model", DEMO_MODEL, "--", "--partition=none"]
    done = farm("submit", job.folder, *wish, **cluster.environment)
    assert done.returncode == 2
    assert "sbatch refused" in done.stderr and "invalid partition" in done.stderr
    assert list((job / "submits").iterdir()) == []
