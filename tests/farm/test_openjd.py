"""A real OpenJobDescription session: `openjd check`, and `openjd run` with chunks."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from farm_jobs import ENVIRONMENT, done_counts, farm, is_there, prepared, wait_until, workers, write_workflow
from farm_scenarios import done
from lance_farm.job import Job
from lance_farm.status import status_of
from lanced_process import DEMO_MODEL, LANCECTL_SECONDS, ROOT

OPENJD = shutil.which("openjd", path=f"{ROOT / 'build/openjd/bin'}:{os.environ['PATH']}")
pytestmark = [pytest.mark.deep, pytest.mark.skipif(not OPENJD, reason="openjd-cli is not installed (make test-farm)")]


def child_of(pid: int, words: str) -> int:
    """The process that a process started, by words of its command line; 0: there is none."""
    listed = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    return next((int(line.split()[0]) for line in listed.splitlines() if words in line), 0)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """With lance-farm and openjd as commands."""
    folder = tmp_path_factory.mktemp("bin")
    command = folder / "lance-farm"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m lance_farm "$@"\n')
    command.chmod(0o755)
    yield {"PATH": f"{folder}:{Path(OPENJD or '/').parent}:{os.environ['PATH']}"}


def openjd(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["openjd", *arguments]
    return subprocess.run(command, env=ENVIRONMENT | environment, capture_output=True, text=True,
                          timeout=LANCECTL_SECONDS)  # fmt: skip


def run_command(job: Job) -> list[str]:
    parameters = ["-p", f"JobFolder={job.folder}", "-p", f"Model={DEMO_MODEL}"]
    return ["run", str(job / "openjd/template.json"), "--step", "Tasks", *parameters]


def test_chunks_are_done_with_one_load_and_the_token_is_not_shown(environment: dict[str, str], tmp_path: Path) -> None:
    job = prepared(tmp_path, "--seeds", "1..8", "--chunk", "3")
    checked = openjd(environment, "check", str(job / "openjd/template.json"))
    assert checked.returncode == 0, checked.stdout
    ran = openjd(environment, *run_command(job))
    assert ran.returncode == 0, ran.stdout
    assert "Chunks run: 3" in ran.stdout
    assert "openjd_progress: 100.0" in ran.stdout and "openjd_status: task 8" in ran.stdout
    assert "LANCED_TOKEN=*" in ran.stdout
    status = status_of(job)
    assert (status["done"], status["failed"]) == (8, 0)
    assert set(done_counts(job).values()) == {1}
    assert len({worker["daemon"] for worker in workers(job)}) == 1
    assert not is_there(workers(job)[0]["daemon"])


def test_a_session_takes_the_daemons_options_of_submit_and_what_it_refuses_stands_in_status(
    environment: dict[str, str], tmp_path: Path
) -> None:
    job = prepared(tmp_path, "--seeds", "1..2")
    wish: list[str | Path] = ["--to", "openjd", "--model", DEMO_MODEL, "--daemon-option=--isa=portable"]
    assert farm("submit", job.folder, *wish, "--daemon-option=--threads=1", **environment).returncode == 0
    wait_until(lambda: done([job]) == 2)
    assert json.loads((job / "identity.json").read_text())["facts"]["backend"] == "cpu-portable"
    for options, words in (
        ("--isa=auto", "this node computes with cpu-"),
        ("--none", "--none: is no option of lanced"),
    ):
        assert openjd(environment, *run_command(job), "-p", f"DaemonOptions={options}").returncode != 0
        assert any(words in line for line in status_of(job)["problems"]), status_of(job)["problems"]


def test_a_copy_of_a_job_without_its_empty_folders_is_done_as_of_job_attachments(
    environment: dict[str, str], tmp_path: Path
) -> None:
    job = prepared(tmp_path, "--seeds", "1..2")
    for folder in (path for path in job.folder.iterdir() if path.is_dir() and not any(path.iterdir())):
        folder.rmdir()
    ran = openjd(environment, *run_command(job))
    assert ran.returncode == 0, ran.stdout
    assert status_of(job)["done"] == 2


def test_a_task_whose_daemon_dies_is_tried_again_in_its_session(environment: dict[str, str], tmp_path: Path) -> None:
    workflow = write_workflow(tmp_path, width=256, height=256, steps=60)
    job = prepared(tmp_path, "--seeds", "1..2", "--chunk", "2", workflow=workflow)
    assert "openjd run" in farm("submit", job.folder, "--to", "openjd", "--model", DEMO_MODEL, **environment).stdout
    wait_until(lambda: bool(list((job / "work").glob("000001.1.*"))))
    os.kill(workers(job)[0]["daemon"], signal.SIGKILL)
    wait_until(lambda: done([job]) == 2)
    wait_until(lambda: not status_of(job)["workers"]["alive"])
    assert json.loads((job / "results/000001/receipt.json").read_text())["attempt"] == 2
    assert set(done_counts(job).values()) == {1}
    wait_until(lambda: not any(is_there(worker["daemon"]) for worker in workers(job)))


def test_a_task_whose_lancectl_dies_is_tried_again_with_the_daemon_that_goes_on(
    environment: dict[str, str], tmp_path: Path
) -> None:
    job = prepared(tmp_path, workflow=write_workflow(tmp_path, width=256, height=256, steps=60))
    assert farm("submit", job.folder, "--to", "openjd", "--model", DEMO_MODEL, **environment).returncode == 0
    wait_until(lambda: bool(list((job / "work").glob("000001.1.*"))))
    (worker,) = workers(job)
    os.kill(child_of(worker["pid"], "lancectl graphs"), signal.SIGKILL)
    wait_until(lambda: done([job]) == 1)
    assert json.loads((job / "results/000001/receipt.json").read_text())["attempt"] == 2
    assert {one["daemon"] for one in workers(job)} == {worker["daemon"]}
    wait_until(lambda: not is_there(worker["daemon"]))


def test_a_job_that_is_cancelled_elsewhere_stops_its_sessions_and_has_no_failed_tasks(
    environment: dict[str, str], tmp_path: Path
) -> None:
    workflow = write_workflow(tmp_path, width=256, height=256, steps=1000)
    job = prepared(tmp_path, "--seeds", "1..3", "--chunk", "3", workflow=workflow)
    with subprocess.Popen(["openjd", *run_command(job)], env=ENVIRONMENT | environment, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True) as session:  # fmt: skip
        wait_until(lambda: bool(list((job / "work").glob("000001.1.*"))))
        (job / "cancelled").touch()  # as the command does on another machine, which can send no signal
        said, _ = session.communicate(timeout=LANCECTL_SECONDS)
    assert "openjd_fail: the job was cancelled" in said and "code: 4" in said
    status = status_of(job)
    assert (status["waiting"], status["running"], status["failed"]) == (3, 0, 0)
    assert "3 waiting" in farm("status", job.folder).stdout and not list((job / "todo").glob("*.[23]"))


def test_a_task_that_cannot_work_is_reported_and_others_of_its_chunk_are_done(
    environment: dict[str, str], tmp_path: Path
) -> None:
    graph = ROOT / "workflows/api/ask_image.json"
    (tmp_path / "p.csv").write_text("4.image\nlance-circle.png\nother.png\n")
    inputs = tmp_path / "input"
    inputs.mkdir()
    right = (ROOT / "workflows/input/lance-circle.png").read_bytes()
    (inputs / "lance-circle.png").write_bytes(right)
    (inputs / "other.png").write_bytes(right + b"\0")
    job = prepared(tmp_path, "--table", str(tmp_path / "p.csv"), "--input-dir", str(inputs), "--chunk", "2",
                   workflow=graph)  # fmt: skip
    changed = job / "inputs" / str(job.tasks[1].values["4.image"])
    changed.write_bytes(right + b"\0\0")
    ran = openjd(environment, *run_command(job))
    assert ran.returncode != 0
    assert "openjd_fail: task 1: inputs/" in ran.stdout
    status = status_of(job)
    assert (status["done"], status["failed"]) == (1, 1)
    changed.write_bytes(right)
    assert openjd(environment, *run_command(job)).returncode == 0  # a failed task is run again, one that is done is not
    assert status_of(job)["done"] == 2
    assert set(done_counts(job).values()) == {1}


def test_a_daemon_ends_when_who_runs_its_session_is_killed(environment: dict[str, str], tmp_path: Path) -> None:
    workflow = write_workflow(tmp_path, width=256, height=256, steps=1000)
    job = prepared(tmp_path, "--seeds", "1..2", workflow=workflow)
    session = subprocess.Popen(["openjd", *run_command(job)], env=ENVIRONMENT | environment,
                               stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)  # fmt: skip
    wait_until(lambda: bool(list((job / "work").glob("000001.1.*"))))
    session.kill()
    session.wait()
    wait_until(lambda: not is_there(workers(job)[0]["daemon"]))


def test_another_model_than_the_jobs_is_refused_by_the_session(environment: dict[str, str], tmp_path: Path) -> None:
    job = prepared(tmp_path, "--seeds", "1..2")
    ran = openjd(environment, *[word.replace("lance-demo", "lance-none") for word in run_command(job)])
    assert ran.returncode != 0
    assert "openjd_fail: no model at" in ran.stdout
    assert status_of(job)["waiting"] == 2
