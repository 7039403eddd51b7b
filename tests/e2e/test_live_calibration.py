"""lanced --calibrate: what it counts beside its jobs is what lance-quant calibrate counts of the same jobs."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from counted_jobs import CLIENTS, TASKS, furthest, live, mixed_jobs
from counted_jobs import offline as counted_offline
from lanced_process import BUILD, DEMO_AWQ, DEMO_MODEL, LANCED, Lanced
from safetensors_file import Entry, read

QUANT = BUILD / "lance-quant"
PROMPTS = ["a red circle", "a large blue square on the left", "a green triangle at the top"]
SMALL: dict[str, Any] = {"width": 64, "height": 64, "num_inference_steps": 4}


def draw(lanced: Lanced, prompts: list[str], seed: int) -> None:
    with lanced.client() as client:
        for i, prompt in enumerate(prompts):
            client.generate("t2i", lambda _: None, prompt=prompt, seed=seed + i, **SMALL)


def stop(lanced: Lanced) -> None:
    lanced.process.send_signal(signal.SIGTERM)
    assert lanced.process.wait(60) == 0


def offline(folder: Path) -> dict[str, Entry]:
    (folder / "prompts.txt").write_text("\n".join(PROMPTS) + "\n")
    words = ["--task", "t2i", "--prompts", folder / "prompts.txt", "--size", "64x64", "--steps", "4", "--no-moments"]
    command = [QUANT, "calibrate", "--model", DEMO_MODEL, *words, "-o", folder / "offline.safetensors"]
    said = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    return read(folder / "offline.safetensors")


def test_what_a_daemon_counts_over_two_starts_is_what_calibrate_counts_of_the_same_jobs(tmp_path: Path) -> None:
    counted = tmp_path / "counted.safetensors"
    with Lanced("--calibrate", str(counted)) as lanced:
        draw(lanced, PROMPTS[:2], 42)
        stop(lanced)
    with Lanced("--calibrate", str(counted)) as lanced:
        draw(lanced, PROMPTS[2:], 44)
        stop(lanced)
    assert read(counted) == offline(tmp_path)
    assert not any(prompt.encode() in counted.read_bytes() for prompt in PROMPTS)
    applied = [QUANT, "apply", "--model", DEMO_MODEL, "--stats", counted, "--form", "int8", "-o", tmp_path / "made"]
    assert subprocess.run([str(word) for word in applied], capture_output=True, check=False).returncode == 0


def test_jobs_of_every_task_are_counted_as_calibrate_counts_them(tmp_path: Path) -> None:
    jobs = mixed_jobs(len(TASKS), tmp_path)
    wanted = counted_offline(jobs, tmp_path)
    assert live(jobs, tmp_path, 1) == wanted
    assert furthest(live(jobs, tmp_path, CLIENTS), wanted) < 1e-5  # sums are added in another order


def test_a_daemon_that_is_killed_leaves_the_file_as_it_was_written_last(tmp_path: Path) -> None:
    counted = tmp_path / "counted.safetensors"
    with Lanced("--calibrate", str(counted)) as lanced:
        before = counted.stat().st_ino
        assert read(counted) == {}
        lanced.process.kill()
        lanced.process.wait()
        assert counted.stat().st_ino == before  # nothing was counted, and nothing half written is left
    assert [path.name for path in tmp_path.iterdir()] == ["counted.safetensors"]


def test_statistics_of_another_model_end_the_daemon_in_words(tmp_path: Path) -> None:
    counted = tmp_path / "counted.safetensors"
    with Lanced("--calibrate", str(counted)) as lanced:
        draw(lanced, PROMPTS[:1], 42)
        stop(lanced)
    command = [LANCED, "--endpoint", f"ipc://{tmp_path}/s", "--model", DEMO_AWQ, "--calibrate", counted]
    said = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode != 0
    assert "was counted with another model" in said.stderr


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--model", DEMO_AWQ, "--calibrate", "stats.safetensors"), "is for one --model, not for 2"),
        (("--calibrate", "stats.bin"), "must end in .safetensors"),
        (("--calibrate", "/nowhere/stats.safetensors"), "/nowhere/stats.safetensors"),
    ],
)
def test_what_cannot_be_counted_is_refused_at_the_start(
    words: tuple[str | Path, ...], why: str, tmp_path: Path
) -> None:
    command = [LANCED, "--endpoint", f"ipc://{tmp_path}/s", "--model", DEMO_MODEL, *words]
    said = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
    )
    assert said.returncode != 0
    assert why in said.stderr
