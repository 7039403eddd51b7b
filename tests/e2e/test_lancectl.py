"""lancectl and a real lanced: pictures and receipts, exit codes, cancelling, full disks, private daemons."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lanced_client import Client
from lanced_process import DEMO_MODEL, LANCECTL, LONG_REQUEST, REQUEST, Lanced

QUICK = ["--steps", "4", "--size", "64x64"]
LONG = ["--steps", "1000", "--size", "256x256"]


def pixels_of(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        return np.asarray(image)


def start_lancectl(endpoint: str, *arguments: str, file_limit: int | None = None) -> subprocess.Popen[str]:
    def limit_files() -> None:
        if file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

    return subprocess.Popen(
        [str(LANCECTL), *arguments],
        env=os.environ | {"LANCED_ENDPOINT": endpoint},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limit_files,
    )


def test_each_picture_of_a_batch_has_its_own_file_seed_and_receipt(lanced: Lanced, tmp_path: Path) -> None:
    prompt = 'a "红" circle 🦊'
    done = lanced.lancectl("t2i", prompt, "-o", str(tmp_path / "fox.png"), "--seed", "20", "--count", "3", *QUICK)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / f"fox-{i}.png") for i in (1, 2, 3)]
    assert "denoise" in done.stderr
    assert "\r" not in done.stderr

    shown = lanced.lancectl("show", str(tmp_path / "fox-3.png"), "--json")
    receipt = json.loads(shown.stdout)
    assert (receipt["prompt"], receipt["seed"], receipt["batch_index"]) == (prompt, 22, 2)
    assert receipt["params"]["num_inference_steps"] == 4
    assert receipt["model"]["name"] == "lance-demo"
    assert len(receipt["model"]["hash"]) == 64
    assert receipt["stages"]
    assert not re.search(r"\d\.\d{7}", shown.stdout), "times to the microsecond"
    with Image.open(tmp_path / "fox-3.png") as image:
        assert isinstance(image, Image.Image)
        assert json.loads(image.info["lanced"]) == receipt

    again = lanced.lancectl("t2i", prompt, "-o", str(tmp_path / "alone.png"), "--seed", "22", "--quiet", *QUICK)
    assert (again.returncode, again.stderr) == (0, "")
    np.testing.assert_array_equal(pixels_of(tmp_path / "alone.png"), pixels_of(tmp_path / "fox-3.png"))


def test_a_preview_is_left_while_the_picture_is_made(lanced: Lanced, tmp_path: Path) -> None:
    preview = tmp_path / "preview.png"
    done = lanced.lancectl("t2i", "a red circle", "-o", str(tmp_path / "a.png"), "--preview", str(preview), *QUICK)
    assert done.returncode == 0, done.stderr
    assert pixels_of(preview).shape == (4, 4, 3)


def test_a_full_disk_leaves_no_half_file_and_the_result_can_be_fetched(lanced: Lanced, tmp_path: Path) -> None:
    target = tmp_path / "fox.png"
    job = f"full-disk-{os.getpid()}"
    # A limit on the size of files stands for the full disk.
    process = start_lancectl(
        lanced.endpoint, "t2i", "a red circle", "-o", str(target), "--job", job, *QUICK, file_limit=200
    )
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 5
    assert f"cannot write {target}" in errors
    assert f"lancectl fetch {job}" in errors
    assert list(tmp_path.iterdir()) == []

    fetched = lanced.lancectl("fetch", job, "-o", str(target))
    assert fetched.returncode == 0, fetched.stderr
    assert pixels_of(target).shape == (64, 64, 3)
    assert lanced.lancectl("fetch", job, "-o", str(target)).returncode == 4  # saved once, forgotten by the daemon


def test_all_jobs_are_listed_however_many_there_are() -> None:
    count = 1100  # more than come in one answer
    with Lanced("--queue", str(count)) as daemon, daemon.client() as client:
        ids = [client.submit("t2i", job_id=f"job-{number}", **LONG_REQUEST).id for number in range(count)]
        lines = daemon.lancectl("jobs").stdout.splitlines()
        told = json.loads(daemon.lancectl("jobs", "--json").stdout)["jobs"]
        client.shutdown("cancel")
    assert [line.split()[0] for line in lines] == ids
    assert [job["job"] for job in told] == ids


def test_a_folder_that_is_not_there_is_found_before_the_job(lanced: Lanced, client: Client, tmp_path: Path) -> None:
    before = client.stats()["jobs"]
    done = lanced.lancectl("t2i", "a red circle", "-o", str(tmp_path / "no" / "fox.png"), *QUICK)
    assert done.returncode == 5
    assert "folder" in done.stderr
    assert client.stats()["jobs"] == before


def test_a_folder_in_the_place_of_the_file_is_found_before_the_job(
    lanced: Lanced, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "fox.png").mkdir()
    before = client.stats()["jobs"]
    done = lanced.lancectl("t2i", "a red circle", "-o", str(tmp_path / "fox.png"), *QUICK)
    assert done.returncode == 5
    assert "it is a folder" in done.stderr
    assert client.stats()["jobs"] == before


def test_what_cannot_be_printed_is_an_error_and_the_result_stays(lanced: Lanced, tmp_path: Path) -> None:
    job = f"full-stdout-{os.getpid()}"
    Image.new("RGB", (64, 64), "white").save(tmp_path / "white.png")
    command = [str(LANCECTL), "ask", str(tmp_path / "white.png"), "What shape is it?", "--job", job]
    with Path("/dev/full").open("w") as full:
        for arguments in (command, [str(LANCECTL), "status"], [str(LANCECTL), "--help"]):
            done = subprocess.run(
                arguments, env=os.environ | {"LANCED_ENDPOINT": lanced.endpoint}, stdout=full, stderr=subprocess.PIPE,
                text=True, timeout=60,
            )  # fmt: skip
            assert done.returncode == 5
            assert "cannot write to the standard output" in done.stderr
    assert lanced.lancectl("fetch", job).stdout.strip()


def run_without_reader(endpoint: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """As in a shell's `lancectl ... | true`, when `true` has ended."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return subprocess.run(
            [str(LANCECTL), *arguments], env=os.environ | {"LANCED_ENDPOINT": endpoint}, stdin=subprocess.DEVNULL,
            stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, restore_signals=True,
        )  # fmt: skip
    finally:
        os.close(writer)


def test_a_question_whose_reader_has_ended_is_cancelled(lanced: Lanced, client: Client, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "white").save(tmp_path / "white.png")
    job = f"no-reader-{os.getpid()}"
    with client.submit("t2i", **LONG_REQUEST):  # so that the question waits
        done = run_without_reader(lanced.endpoint, "ask", str(tmp_path / "white.png"), "What?", "--job", job, "-q")
        assert client.cancel(job) == "cancelled"
    assert done.returncode == 5, done.stderr
    assert done.stderr == "lancectl: the standard output was closed; the job is cancelled\n"


def test_names_of_files_that_nobody_reads_are_an_error_and_leave_no_private_daemon(tmp_path: Path) -> None:
    before = private_folders()
    done = run_without_reader(
        f"ipc://{tmp_path}/none.ipc", "t2i", "a red circle", "-o", str(tmp_path / "a.png"), "-q",
        "--model", str(DEMO_MODEL), *QUICK,
    )  # fmt: skip
    assert done.returncode == 5, done.stderr
    assert done.stderr == ""
    assert pixels_of(tmp_path / "a.png").shape == (64, 64, 3)
    assert private_folders() == before


def test_ctrl_c_cancels_the_job_on_the_daemon(
    lanced: Lanced, client: Client, expected: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    job = f"ctrl-c-{os.getpid()}"
    process = start_lancectl(lanced.endpoint, "t2i", "x", "-o", str(tmp_path / "a.png"), "--job", job, *LONG)
    assert process.stderr is not None
    while "denoise" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "cancelled" in errors
    assert list(tmp_path.iterdir()) == []
    assert client.cancel(job) == "cancelled"
    np.testing.assert_array_equal(client.generate("t2i", **REQUEST).pixels, expected)


def test_another_lancectl_can_cancel(lanced: Lanced, client: Client, tmp_path: Path) -> None:
    with client.submit("t2i", **LONG_REQUEST) as job:
        done = lanced.lancectl("cancel", job.id)
        assert done.returncode == 0, done.stderr
        deadline = time.monotonic() + 30
        while lanced.lancectl("cancel", job.id).stdout != f"job {job.id}: cancelled\n":
            assert time.monotonic() < deadline
        assert lanced.lancectl("fetch", job.id, "-o", str(tmp_path / "a.png")).returncode == 1


def test_status_and_models_are_told_to_people_and_programs(lanced: Lanced) -> None:
    status = lanced.lancectl("status")
    assert status.returncode == 0, status.stderr
    assert lanced.endpoint in status.stdout
    assert "lance-demo" in status.stdout
    assert status.stdout.count("backend") + status.stdout.count("cpu") == 1
    assert re.search(r"^  limits.message_bytes +4\.2 MB$", status.stdout, re.MULTILINE)
    told = json.loads(lanced.lancectl("status", "--json").stdout)
    assert told["backend"]
    assert told["limits"]["message_bytes"] == 4 << 20
    assert "* lance-demo" in lanced.lancectl("models").stdout
    assert json.loads(lanced.lancectl("models", "--json").stdout)["models"][0]["loaded"] is True
    assert "lance-demo" in lanced.lancectl("load", "lance-demo").stdout
    assert [lanced.lancectl("unload").stdout for _ in range(2)] == ["unloaded\n", "nothing was loaded\n"]
    assert "lance-demo" in lanced.lancectl("load", "lance-demo").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["t2i", "x", "--size", "63x64"], 4, "63"),
        (["t2i", "x", "--steps", "0"], 4, "steps"),
        (["t2i", "x", "--interval", "0.9,0.2"], 4, "guidance_interval is [0.9, 0.2]"),
        (["t2i", ""], 4, "prompt"),
        (["t2i", "x", "--model", "/tmp"], 4, "tmp"),
        (["fetch", "no-such-job"], 4, "no-such-job"),
        (["load", "no-such-model"], 4, "no-such-model"),
        (["t2i", "x", "--guidance", "nan"], 2, "nan"),
        (["show", "/dev/null"], 6, "cannot read /dev/null: it is no regular file"),
        (["show", __file__], 6, "test_lancectl.py has no receipt: it is no PNG"),
        (["show", "clip.y4m"], 6, "clip.y4m has no receipt"),
        (["show", "/tmp"], 6, "/tmp has no receipt"),
        (["status", "--endpoint", "http://x"], 2, "ipc://, tcp:// or tls+tcp://"),
        (["edit", "a.png", "blue", "--source", "b.png", "-o", "c.png"], 2, "--source: is no option"),
    ],
)
def test_refusals_have_their_exit_codes(
    lanced: Lanced, tmp_path: Path, arguments: list[str], code: int, reason: str
) -> None:
    if arguments[0] in ("t2i", "fetch"):
        arguments = [*arguments, "-o", str(tmp_path / "a.png")]
    done = lanced.lancectl(*arguments)
    assert done.returncode == code, done.stderr
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_a_daemon_there_is_one_clear_error(tmp_path: Path) -> None:
    process = start_lancectl(f"ipc://{tmp_path}/none.ipc", "status")
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 3
    assert "no lanced answers" in errors


def private_folders() -> set[Path]:
    return set(Path("/tmp").glob("lancectl-??????"))


def test_a_private_daemon_is_started_for_a_model_and_ended(expected: np.ndarray[Any, Any], tmp_path: Path) -> None:
    before = private_folders()
    process = start_lancectl(
        f"ipc://{tmp_path}/none.ipc", "t2i", str(REQUEST["prompt"]), "-o", str(tmp_path / "a.png"),
        "--seed", str(REQUEST["seed"]), "--model", str(DEMO_MODEL), *QUICK,
    )  # fmt: skip
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "private" in errors
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.png"), expected[0, 0])
    assert private_folders() == before


def test_a_private_daemon_ends_with_the_lancectl_that_was_killed(tmp_path: Path) -> None:
    before = private_folders()
    process = start_lancectl(
        f"ipc://{tmp_path}/none.ipc", "t2i", "x", "-o", str(tmp_path / "a.png"), "--model", str(DEMO_MODEL), *LONG
    )
    assert process.stderr is not None
    while "denoise" not in process.stderr.readline():
        assert process.poll() is None
    (folder,) = private_folders() - before
    process.kill()
    process.communicate(timeout=30)
    deadline = time.monotonic() + 30
    while (folder / "lanced.ipc").exists():
        assert time.monotonic() < deadline, "the private daemon stayed, with the model in memory"
        time.sleep(0.05)
    assert "standard input was closed: cancelling all jobs" in (folder / "lanced.log").read_text()
    shutil.rmtree(folder)


def test_a_private_daemon_says_what_its_model_lacks(tmp_path: Path) -> None:
    before = private_folders()
    process = start_lancectl(
        f"ipc://{tmp_path}/none.ipc", "t2i", "x", "-o", str(tmp_path / "a.png"), "--model", str(tmp_path), "-q"
    )
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "model.safetensors" in errors
    assert private_folders() == before


def test_a_private_daemon_stays_when_its_result_could_not_be_written(tmp_path: Path) -> None:
    process = start_lancectl(
        f"ipc://{tmp_path}/none.ipc", "t2i", "a red circle", "-o", str(tmp_path / "a.png"), "--job", "kept",
        "--model", str(DEMO_MODEL), "-q", *QUICK, file_limit=1000,
    )  # fmt: skip
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 5
    endpoint = errors.split("lancectl shutdown --endpoint ")[1].strip()
    fetched = start_lancectl(endpoint, "fetch", "kept", "-o", str(tmp_path / "a.png"))
    assert fetched.wait(30) == 0
    assert start_lancectl(endpoint, "shutdown").wait(30) == 0
    socket = Path(endpoint.removeprefix("ipc://"))
    deadline = time.monotonic() + 30
    while socket.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not socket.exists()
    shutil.rmtree(socket.parent)


def test_shutdown_ends_the_daemon(tmp_path: Path) -> None:
    with Lanced() as own:
        assert own.lancectl("shutdown").returncode == 0
        assert own.process.wait(30) == 0
        assert own.lancectl("status").returncode == 3


def test_a_model_without_a_vae_answers_and_names_what_drawing_lacks(tmp_path: Path) -> None:
    model = tmp_path / "seeing"
    model.mkdir()
    for path in DEMO_MODEL.iterdir():
        if path.name != "Wan2.2_VAE.pth":
            (model / path.name).symlink_to(path)
    Image.new("RGB", (64, 64), "white").save(tmp_path / "white.png")
    with Lanced(models=(model,)) as lanced:
        asked = lanced.lancectl("ask", str(tmp_path / "white.png"), "What is there?", "--json")
        assert asked.returncode == 0, asked.stderr
        drawn = lanced.lancectl("t2i", "a red circle", "-o", str(tmp_path / "red.png"))
        assert drawn.returncode != 0
        assert "task t2i is not offered by model" in drawn.stderr
        assert "missing: VAE: Wan2.2_VAE.pth" in drawn.stderr
        assert "t2i, t2v, i2v, image_edit and video_edit are off" in lanced.log.read_text()
