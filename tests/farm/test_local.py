"""A job on this machine: real workers, each with a real lanced, what becomes of it when some of them die, and what
status says of it."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from farm_jobs import (
    COMMAND,
    ENVIRONMENT,
    LEASE,
    done_counts,
    farm,
    is_there,
    prepared,
    submitted,
    wait_until,
    workers,
    write_workflow,
)
from lance_farm.beats import machine_id
from lance_farm.files import write_json
from lance_farm.job import Job
from lance_farm.status import status_of
from lance_farm.submit import may_come
from lanced_process import DEMO_AWQ, DEMO_MODEL, LANCECTL_SECONDS, ROOT, Lanced

LONG = {"width": 256, "height": 256, "steps": 1000}


def pixels_of(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        return np.asarray(image)


def running(job: Job) -> bool:
    return bool(status_of(job)["running"])


def run_worker(
    job: Job, *arguments: str, limit: str = "", model: Path = DEMO_MODEL
) -> subprocess.CompletedProcess[str]:
    """A worker in the foreground, as a scheduler runs it."""
    command = shlex.join([*COMMAND, "worker", str(job.folder), "--model", str(model), *arguments])
    return subprocess.run(["bash", "-c", f"{limit} exec {command}"], env=ENVIRONMENT, capture_output=True, text=True,
                          timeout=LANCECTL_SECONDS)  # fmt: skip


@pytest.fixture(scope="module")
def done_job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Six pictures of two workers."""
    folder = tmp_path_factory.mktemp("done")
    (folder / "p.csv").write_text('prompt,shot\n"a red circle, ""x""",A1\n<b>blue</b>,A2\na green square,A3\n')
    job = prepared(folder, "--table", str(folder / "p.csv"), "--label", "shot", "--seeds", "1..2")
    done = submitted(job, "--workers", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    return job


def test_a_job_makes_what_one_lancectl_makes_with_one_load_per_worker(done_job: Job, tmp_path: Path) -> None:
    status = status_of(done_job)
    assert (status["tasks"], status["done"], status["failed"], status["loads"]) == (6, 6, 0, 2)
    assert set(done_counts(done_job).values()) == {1}
    with Lanced() as daemon:
        for number, task in done_job.tasks.items():
            graph = tmp_path / f"{number}.json"
            graph.write_text(json.dumps(done_job.graph_of(task)))
            done = daemon.lancectl("graph", str(graph), "-o", str(tmp_path / str(number)), "--json")
            assert done.returncode == 0, done.stderr
            (made,) = (done_job / f"results/{number:06}").glob("*.png")
            np.testing.assert_array_equal(pixels_of(made), pixels_of(tmp_path / str(number) / made.name))


def test_collect_names_files_from_the_table_and_makes_sheets_a_clip_a_csv_and_a_page(
    done_job: Job, tmp_path: Path
) -> None:
    done = farm("collect", done_job.folder, "-o", tmp_path / "out", "--name=-{shot}_{seed}", "--clip")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out/files").iterdir()) == [
        f"A{shot}_{seed}.png" for shot in (1, 2, 3) for seed in (1, 2)
    ]
    with (tmp_path / "out/receipts.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["prompt"], row["seeds"], row["state"]) for row in rows[:2]] == [
        ('a red circle, "x"', "1", "done"),
        ('a red circle, "x"', "2", "done"),
    ]
    sheet = pixels_of(tmp_path / "out/sheets/sheet-001.png")
    np.testing.assert_array_equal(sheet[32:96, 160:224], pixels_of(tmp_path / "out/files/A1_2.png"))
    assert (tmp_path / "out/clip.mp4").stat().st_size > 0
    page = (tmp_path / "out/index.html").read_text()
    assert "&lt;b&gt;blue&lt;/b&gt;" in page and "<b>blue" not in page
    assert page.count("<tr data-state=") == 6
    assert "http" not in page
    assert farm("collect", done_job.folder, "-o", tmp_path / "out").returncode == 2


CHANGES: list[dict[str, Any]] = [
    {"files": None},
    {"files": [3]},
    {"files": [{"name": "x.png"}]},
    {"receipts": 7},
    {"receipts": [{}]},
    {"outputs": {"3": []}},
    {"seconds": "long"},
    {"worker": None},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_receipt_that_was_changed_is_told_and_its_task_done_again(
    done_job: Job, tmp_path: Path, change: dict[str, Any]
) -> None:
    shutil.copytree(done_job.folder, tmp_path / "job")
    receipt = tmp_path / "job/results/000002/receipt.json"
    receipt.write_text(json.dumps(json.loads(receipt.read_text()) | change))
    done = farm("collect", tmp_path / "job", "-o", tmp_path / "out")
    assert done.returncode == 1
    assert "task 2: its receipt was changed; lance-farm retry --damaged" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "1 tasks wait again" in farm("retry", tmp_path / "job", "--damaged").stdout


@pytest.mark.deep
def test_submitting_a_done_job_starts_nothing_and_a_changed_result_is_made_anew(done_job: Job, tmp_path: Path) -> None:
    assert "nothing to start" in submitted(done_job).stdout
    (made,) = (done_job / "results/000003").glob("*.png")
    right = made.read_bytes()
    made.write_bytes(right[:-20])
    done = farm("collect", done_job.folder, "-o", tmp_path / "out")
    assert done.returncode == 1
    assert "task 3: " in done.stderr and "has other bytes" in done.stderr
    assert "1 tasks wait again" in farm("retry", done_job.folder, "--damaged").stdout
    assert submitted(done_job).returncode == 0
    np.testing.assert_array_equal(pixels_of(made).shape, (64, 64, 3))
    assert status_of(done_job)["done"] == 6


def test_a_killed_worker_leaves_nothing_behind_and_its_task_is_done_by_another(tmp_path: Path) -> None:
    job = prepared(
        tmp_path, "--set", "2.steps=300,301,302,303", workflow=write_workflow(tmp_path, width=128, height=128)
    )
    assert submitted(job, "--workers", "2", wait=False).returncode == 0
    wait_until(lambda: sum(bool(worker.get("task")) for worker in workers(job)) == 2)
    victim = workers(job)[0]
    os.kill(victim["pid"], signal.SIGKILL)
    wait_until(lambda: not is_there(victim["daemon"]))
    wait_until(lambda: status_of(job)["done"] == 4)
    assert set(done_counts(job).values()) == {1}
    wait_until(lambda: not status_of(job)["workers"]["alive"])
    assert not any(is_there(worker["daemon"]) for worker in workers(job))


def test_what_a_warden_on_another_machine_left_is_done_by_the_next_worker(tmp_path: Path) -> None:
    job = prepared(tmp_path)
    (job / "todo/000001.1").rename(job / "running/000001.1.dead")
    (job / "warden").write_text("dead")
    told = {"worker": "dead", "pid": 1, "machine": "another", "state": "working", "beat": 7, "host": "n7"}
    (job / "workers/dead.json").write_text(json.dumps(told))
    assert submitted(job, wait=False).returncode == 0
    wait_until(lambda: status_of(job)["done"] == 1 or not may_come(job))
    assert status_of(job)["done"] == 1, status_of(job)


def test_a_signal_ends_a_worker_whose_model_is_still_being_loaded(tmp_path: Path) -> None:
    job = prepared(tmp_path)
    slow = tmp_path / "bin"  # a load that takes minutes, as a large checkpoint's from a slow disk
    slow.mkdir()
    for name, does in (("lanced", "cat"), ("lancectl", "sleep 600")):
        (slow / name).write_text(f"#!/bin/sh\nexec {does}\n")
        (slow / name).chmod(0o755)
    command = [*COMMAND, "worker", str(job.folder), "--model", str(DEMO_MODEL)]
    environment = ENVIRONMENT | {"LANCE_FARM_BIN": str(slow), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as worker:
        wait_until(lambda: bool(list(tmp_path.glob("lance-farm-*/log"))))
        worker.send_signal(signal.SIGTERM)
        said, _ = worker.communicate(timeout=30)
    assert (worker.returncode, "stopped before lance-demo was loaded" in said) == (128 + signal.SIGTERM, True)
    assert not list(tmp_path.glob("lance-farm-*"))
    assert status_of(job)["waiting"] == 1


def heed_ctrl_c() -> None:
    """What a shell starts in the background ignores it, and so do the tests and all that they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_ends_a_watch_without_a_traceback(tmp_path: Path) -> None:
    job = prepared(tmp_path)
    command = [*COMMAND, "status", str(job.folder), "--watch"]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c
    ) as watch:
        assert watch.stdout and "0 of 1 done" in watch.stdout.readline()
        watch.send_signal(signal.SIGINT)
        assert (watch.wait(LANCECTL_SECONDS), watch.stderr and watch.stderr.read()) == (128 + signal.SIGINT, "")


@pytest.mark.deep
def test_a_task_that_ends_its_daemon_three_times_has_failed_and_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("prompt,width,height,steps\nred,64,64,2\nblue,256,256,1000\ngreen,64,64,2\n")
    job = prepared(tmp_path, "--table", str(tmp_path / "p.csv"))
    assert submitted(job, wait=False).returncode == 0
    for attempt in (1, 2, 3):
        wait_until(lambda: bool(list((job / "running").glob(f"000002.{attempt}.*"))))  # noqa: B023
        wait_until(lambda: (job / f"work/{next((job / 'running').glob('000002.*')).name}").exists())
        os.kill(workers(job)[0]["daemon"], signal.SIGKILL)
        wait_until(lambda: not list((job / "running").glob(f"000002.{attempt}.*")))  # noqa: B023
    wait_until(lambda: status_of(job)["done"] == 2 and not status_of(job)["workers"]["alive"])
    (failure,) = status_of(job)["failures"]
    assert (failure["task"], failure["tries"]) == (2, 3)
    assert "ended its daemon" in failure["reason"]
    assert "task 2 failed after 3 tries" in farm("status", job.folder).stdout


@pytest.mark.deep
def test_cancel_stops_the_running_task_and_retry_takes_the_job_up_again(tmp_path: Path) -> None:
    job = prepared(tmp_path, "--seeds", "1..2", workflow=write_workflow(tmp_path, **LONG))
    assert submitted(job, wait=False).returncode == 0
    wait_until(lambda: running(job) and bool(workers(job)[0].get("task")))
    assert "cancelled" in farm("cancel", job.folder).stdout
    wait_until(lambda: not status_of(job)["workers"]["alive"])
    (worker,) = workers(job)
    assert not is_there(worker["daemon"])
    status = status_of(job)
    assert (status["waiting"], status["running"], status["cancelled"]) == (2, 0, True)
    assert farm("retry", job.folder, "--failed").returncode == 0
    assert not status_of(job)["cancelled"]


def test_a_worker_that_a_damaged_job_ends_gives_its_task_back(tmp_path: Path) -> None:
    job = prepared(tmp_path, "--seeds", "1..2")
    workflow = (job / "workflow.json").read_text()
    (job / "workflow.json").unlink()
    for _ in range(3):
        done = run_worker(job)
        assert (done.returncode, "workflow.json: No such file" in done.stdout) == (2, True), done.stdout
        status = status_of(job)
        assert (status["waiting"], status["running"], status["failed"]) == (2, 0, 0)
    assert any("workflow.json: No such file" in line for line in status["problems"])
    (job / "workflow.json").write_text(workflow)
    assert run_worker(job).returncode == 0
    assert status_of(job)["done"] == 2


def test_a_job_that_storage_took_the_empty_folders_of_is_done(tmp_path: Path) -> None:
    job = prepared(tmp_path, "--seeds", "1..2")
    for folder in (path for path in job.folder.iterdir() if path.is_dir() and not any(path.iterdir())):
        folder.rmdir()
    assert not (job / "running").exists()
    assert "0 of 2 done" in farm("status", job.folder).stdout
    assert run_worker(job).returncode == 0
    assert status_of(job)["done"] == 2


def test_a_submit_has_a_result_that_was_taken_away_made_anew_and_leaves_alone_what_has_failed(tmp_path: Path) -> None:
    job = prepared(tmp_path, "--seeds", "1..3")
    assert submitted(job).returncode == 0
    shutil.rmtree(job / "results/000002")
    shutil.rmtree(job / "results/000003")
    write_json(job / "failed/000003", {"reason": "it was so", "tries": 3, "worker": "w"})
    assert submitted(job).returncode == 1
    status = status_of(job)
    assert (status["done"], status["failed"]) == (2, 1)
    again = submitted(job)
    assert (again.returncode, "all that is left has failed (1 tasks): lance-farm retry" in again.stderr) == (2, True)
    assert len(list((job / "submits").iterdir())) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--to", "local", "--", "--partition=gpu"], "no scheduler"),
        (["--to", "slurm", "--cards", "0,1"], "--cards goes with --to local"),
        (["--to", "openjd", "--workers", "2"], "--workers does not go with --to openjd"),
        (["--to", "local", "--first-worker", "--endpoint", "ipc:///x"], "not allowed with"),
    ],
)
def test_options_of_submit_that_would_do_nothing_are_refused(tmp_path: Path, arguments: list[str], words: str) -> None:
    job = prepared(tmp_path)
    done = farm("submit", job.folder, "--model", DEMO_MODEL, *arguments)
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr
    assert list((job / "submits").iterdir()) == []


def test_a_node_with_another_model_or_none_is_refused_in_words(tmp_path: Path) -> None:
    job = prepared(tmp_path, "--seeds", "1..2")
    assert submitted(job).returncode == 0
    (job / "results/000001/receipt.json").unlink()
    farm("retry", job.folder, "--damaged")
    for model, words in ((DEMO_AWQ, "this node has another model (lance-demo-awq"), (tmp_path / "no", "no model at")):
        done = run_worker(job, model=model)
        assert (done.returncode, words in done.stdout) == (3, True), done.stdout + done.stderr
        assert any(words in line for line in status_of(job)["problems"])
    again = submitted(job, "--model", str(DEMO_AWQ), wait=False)
    assert again.returncode == 2
    assert "prepare another job" in again.stderr
    done = run_worker(job, "--daemon-option=--isa=portable")
    assert done.returncode == 3
    assert "computes with cpu" in done.stdout


@pytest.mark.deep
def test_a_node_that_cannot_write_ends_and_the_task_goes_on_elsewhere(tmp_path: Path) -> None:
    job = prepared(tmp_path, "--seeds", "1..2")
    full = run_worker(job, limit="ulimit -f 4;")  # KiB, less than a picture has
    assert full.returncode == 5, full.stdout + full.stderr
    assert any("File too large" in line for line in status_of(job)["problems"])
    assert status_of(job)["waiting"] == 2
    assert run_worker(job).returncode == 0
    assert status_of(job)["done"] == 2


def on_a_small_disk(folder: Path, kibibytes: int) -> list[str]:
    """What goes before a command that is to find a disk of that size at the folder."""
    folder.mkdir()
    script = f'mount -t tmpfs -o size={kibibytes}k none {folder} && exec "$@"'
    before = ["unshare", "-rm", "sh", "-c", script, "sh"]
    if subprocess.run([*before, "true"], capture_output=True).returncode != 0:
        pytest.skip("no mount namespace of its own to be had here")
    return before


@pytest.mark.deep
@pytest.mark.parametrize("kibibytes", [4, 8, 12])
def test_a_node_whose_own_disk_is_full_says_so_and_the_task_goes_on_elsewhere(tmp_path: Path, kibibytes: int) -> None:
    job, disk = prepared(tmp_path, "--seeds", "1..2"), tmp_path / "disk"
    command = [*on_a_small_disk(disk, kibibytes), *COMMAND, "worker", str(job.folder), "--model", str(DEMO_MODEL)]
    environment = ENVIRONMENT | {"TMPDIR": str(disk)}
    full = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LANCECTL_SECONDS)
    assert full.returncode == 5, full.stdout + full.stderr
    (told,) = full.stdout.splitlines()
    assert "o space left" in told and str(disk) in told
    assert run_worker(job).returncode == 0
    assert status_of(job)["done"] == 2


@pytest.mark.deep
def test_a_job_whose_folder_is_full_says_so_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    command, job = shlex.join(COMMAND), disk / "job"
    worker = f"{command} worker {job} --model {DEMO_MODEL}"
    script = f"""
        {command} prepare {write_workflow(tmp_path)} --seeds 1..3 -o {job}
        head -c 400K /dev/zero >{disk}/fill
        truncate -s -8K {disk}/fill
        {worker}; echo $?
        {command} status {job}
        rm {disk}/fill
        {worker}; echo $?
        {command} status {job}
    """
    done = subprocess.run([*on_a_small_disk(disk, 400), "sh", "-c", script], env=ENVIRONMENT, capture_output=True,
                          text=True, timeout=LANCECTL_SECONDS)  # fmt: skip
    lines = done.stdout.splitlines()
    assert lines[0] == f"{job}: 3 tasks"
    assert lines[lines.index("5") + 1].startswith("0 of 3 done, 0 running, 3 waiting, 0 failed")
    assert f"{job} has next to no space left: workers end until there is some" in lines
    assert lines[lines.index("0") + 1].startswith("3 of 3 done")


@pytest.mark.deep
def test_a_clock_that_is_an_hour_off_is_told_and_nothing_depends_on_it(tmp_path: Path) -> None:
    job = prepared(tmp_path, "--seeds", "1..2")
    ahead = "import time; now = time.time; time.time = lambda: now() + 3600"
    program = f"{ahead}; from lance_farm.cli import main; main()"
    command = [sys.executable, "-c", program, "worker", str(job.folder), "--model", str(DEMO_MODEL)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=LANCECTL_SECONDS)
    assert status_of(job)["done"] == 2, done.stdout + done.stderr
    assert any("clock is +3600 s off" in line for line in status_of(job)["problems"])


@pytest.mark.deep
def test_a_picture_that_changed_after_prepare_is_told_and_the_jobs_copy_counts(tmp_path: Path) -> None:
    inputs = tmp_path / "input"
    inputs.mkdir()
    for path in (ROOT / "workflows/input").glob("*.png"):
        (inputs / path.name).write_bytes(path.read_bytes())
    graph = json.loads((ROOT / "workflows/api/image_edit.json").read_text())
    next(node for node in graph.values() if "steps" in node["inputs"])["inputs"]["steps"] = 1
    (tmp_path / "workflow.json").write_text(json.dumps(graph))
    job = prepared(tmp_path, "--input-dir", str(inputs), workflow=tmp_path / "workflow.json")
    name = job.settings["inputs"][0]["name"]
    (inputs / name).write_bytes(b"another")
    assert any(f"{name} was changed after prepare" in line for line in status_of(job)["problems"])
    (stored,) = (job / "inputs").iterdir()
    right = stored.read_bytes()
    stored.write_bytes(right + b"x")
    assert submitted(job).returncode == 1
    assert "not what prepare put there" in status_of(job)["failures"][0]["reason"]
    stored.write_bytes(right)
    farm("retry", job.folder, "--failed")
    assert submitted(job).returncode == 0
    assert any("submitted 2 times; no task is done twice" in line for line in status_of(job)["problems"])


@pytest.mark.deep
def test_a_token_stands_in_no_file_of_the_job(tmp_path: Path) -> None:
    job = prepared(tmp_path, "--seeds", "1..2")
    token = "verysecrettoken42"
    assert submitted(job, LANCED_TOKEN=token).returncode == 0
    assert farm("collect", job.folder, "-o", tmp_path / "out", LANCED_TOKEN=token).returncode == 0
    for path in [*job.folder.rglob("*"), *(tmp_path / "out").rglob("*")]:
        assert not path.is_file() or token.encode() not in path.read_bytes(), path


def test_status_as_json_is_one_object(done_job: Job) -> None:
    done = farm("status", done_job.folder, "--json")
    told = json.loads(done.stdout)
    assert {"tasks", "done", "running", "failed"} <= told.keys()
    assert f"{json.loads((done_job / 'identity.json').read_text())['lease_seconds']:g}" == LEASE


def test_what_file_servers_and_desktops_leave_in_a_jobs_folders_is_passed_over(tmp_path: Path) -> None:
    job = prepared(tmp_path, "--seeds", "1..2")
    for name in ("todo", "running", "failed", "results", "workers", "submits", "log", "work"):
        (job / name / "@eaDir").mkdir()
        (job / name / "Thumbs.db").write_bytes(b"\xff\xd8")
        (job / name / "000001 (copy)").write_text("{}")
    assert submitted(job).returncode == 0
    (job / "results/000001/receipt.json").unlink()
    assert "1 tasks wait again" in farm("retry", job.folder, "--failed", "--damaged", "--submit").stdout
    wait_until(lambda: status_of(job)["done"] == 2 and not status_of(job)["workers"]["alive"])
    assert status_of(job)["problems"] == ["submitted 2 times; no task is done twice"]
    assert farm("collect", job.folder, "-o", tmp_path / "out").returncode == 0
    assert "cancelled" in farm("cancel", job.folder).stdout


def test_a_watch_waits_for_workers_that_were_started_and_have_not_shown_themselves_yet(tmp_path: Path) -> None:
    job = prepared(tmp_path)
    with subprocess.Popen(["sleep", "100"]) as started:
        told = {"wish": {"to": "local"}, "pids": [started.pid], "machine": machine_id()}
        write_json(job / "submits" / "1.json", told)
        assert may_come(job)
        started.kill()
        os.waitid(os.P_PID, started.pid, os.WEXITED | os.WNOWAIT)
        assert not may_come(job)  # nobody has waited for it yet
