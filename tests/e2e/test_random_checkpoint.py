"""random-checkpoint and lance-bench --tasks: a checkpoint with random weights is made, loaded, and measured."""

from __future__ import annotations

import json
import math
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from lanced_process import BUILD, Lanced

MAKER = BUILD / "random-checkpoint"
BENCH = BUILD / "lance-bench"
FOLDERS = {"bf16": "Lance_3B", "awq-128": "Lance-3B-AWQ-INT4", "awq-64": "Lance-3B-AWQ-INT4-g64",
           "nvfp4": "Lance-3B-NVFP4"}
DEMO = Path(__file__).resolve().parents[2] / "demo/lance-demo-awq"


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("random") / "models"
    made = run(MAKER, "--config", "tiny", "--form", ",".join(FOLDERS), "--seed", "3", "-o", folder)
    assert made.returncode == 0, made.stderr
    return folder


def picture(model: Path) -> np.ndarray[Any, Any]:
    with Lanced(models=(model,)) as daemon, daemon.client() as client:
        pixels = client.generate("t2i", prompt="a lighthouse", width=64, height=64, num_inference_steps=3).pixels
    assert pixels is not None
    return pixels.astype(int)


def bench(model: Path, *options: str | Path) -> subprocess.CompletedProcess[str]:
    return run(BENCH, "--tasks", "--model", model, "--image", "64x64", "--video", "64x64x5", "--picture", "56x56",
               "--steps", "3", "--tokens", "12", "--json", *options)


def test_all_forms_of_a_seed_draw_the_same_picture(releases: Path) -> None:
    pictures = {form: picture(releases / folder) for form, folder in FOLDERS.items()}
    assert pictures["bf16"].std() > 5, "a flat picture: activations died or ran away"
    for form, pixels in pictures.items():
        assert abs(pixels - pictures["bf16"]).max() <= 1, form


def test_the_same_seed_gives_the_same_files_however_many_threads(releases: Path, tmp_path: Path) -> None:
    for name, seed in (("again", "3"), ("other", "4")):
        made = run(MAKER, "--config", "tiny", "--seed", seed, "--threads", "3", "-o", tmp_path / name)
        assert made.returncode == 0, made.stderr
    for path in ("Lance-3B-NVFP4/nvfp4_state_dict.safetensors", "Qwen2.5-VL-ViT/vit.safetensors", "Wan2.2_VAE.pth"):
        folders = (releases, tmp_path / "again", tmp_path / "other")
        first, again, other = ((folder / path).read_bytes() for folder in folders)
        assert first == again != other, path


def test_tensors_are_those_of_the_release_and_have_ordinary_sizes(releases: Path) -> None:
    layer = "language_model.model.layers.3.mlp_moe_gen.down_proj"
    with safe_open(releases / "Lance-3B-NVFP4/nvfp4_state_dict.safetensors", "np") as tensors:
        codes = tensors.get_tensor(f"{layer}.qweight")
        assert codes.shape == (128, 128) and tensors.get_tensor(f"{layer}.scales_fp8").shape == (128, 16)
        assert tensors.get_slice("language_model.lm_head.weight").get_shape() == [151936, 128]
    levels = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    values = np.stack([codes & 15, codes >> 4], -1).reshape(128, 256)
    signed = np.where(values & 8, -1, 1) * levels[values & 7]
    assert abs(signed.mean()) < 0.1 and 3.0 < signed.std() < 3.3
    with safe_open(releases / "Qwen2.5-VL-ViT/vit.safetensors", "np") as tensors:
        assert tensors.get_slice("patch_embed.proj.weight").get_shape() == [64, 3, 2, 14, 14]


def test_a_folder_that_is_not_empty_is_left_as_it_is(releases: Path, tmp_path: Path) -> None:
    before = (releases / "Wan2.2_VAE.pth").stat().st_mtime_ns
    again = run(MAKER, "--config", "tiny", "-o", releases)
    assert again.returncode == 1
    assert str(releases) in again.stderr and "exists and is not empty" in again.stderr
    others = tmp_path / "others"
    others.mkdir()
    (others / "letter.txt").write_text("not a checkpoint")
    assert run(MAKER, "--config", "tiny", "-o", others).returncode == 1
    assert [path.name for path in others.iterdir()] == ["letter.txt"]
    assert (releases / "Wan2.2_VAE.pth").stat().st_mtime_ns == before


def test_a_file_whose_making_was_cut_off_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    make = f"exec {MAKER} --form bf16 --config tiny --threads 1 -o {tmp_path / 'small'}"
    script = f"ulimit -f 65536; trap '' XFSZ; {make}"
    limited = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=300)
    assert limited.returncode == 1 and "File too large" in limited.stderr
    assert not (tmp_path / "small/Lance_3B/model.safetensors").exists()
    killed = subprocess.run(["bash", "-c", script.replace("trap '' XFSZ; ", "").replace("small", "killed")],
                            capture_output=True, text=True, timeout=300)
    assert killed.returncode not in (0, 1)
    with (tmp_path / "killed/Lance_3B/model.safetensors").open("rb") as left:
        assert left.read(8) == bytes(8), "a header, before what it tells of is there"


def test_a_disk_without_room_is_named_before_anything_is_written(tmp_path: Path) -> None:
    small = Path("/dev/shm")
    room = os.statvfs(small)
    if room.f_bavail * room.f_frsize > 29e9:
        pytest.skip("there is no small disk here to try it on")
    folder = small / f"random-checkpoint-{os.getpid()}"
    refused = run(MAKER, "--form", ",".join(FOLDERS), "-o", folder)
    left = list(folder.iterdir())
    folder.rmdir()
    assert refused.returncode == 1 and "GB are needed" in refused.stderr
    assert not left


@pytest.mark.parametrize("arguments", [[], ["-o", ""], ["--form", "int3", "-o", "x"], ["--config", "huge", "-o", "x"],
                                       ["--seed", "-1", "-o", "x"], ["-o", "x", "y"]])
def test_wrong_arguments_get_the_usage(arguments: list[str]) -> None:
    refused = run(MAKER, *arguments)
    assert refused.returncode == 2 and refused.stderr.startswith("usage: ")


def test_whole_tasks_are_measured_stage_by_stage(releases: Path) -> None:
    done = bench(releases / "Lance-3B-NVFP4")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["kind"] == "nvfp4" and report["weight_bytes"] > 8e7
    picture, video, answer = report["tasks"]
    assert [task["task"] for task in report["tasks"]] == ["t2i", "t2v", "x2t_image"]
    for task in report["tasks"]:
        assert task["same"] and task["finite"] and len(task["hash"]) == 64
        assert 0 < task["peak_bytes"] <= 1.05 * task["estimated_bytes"]
        stages = sum(stage["seconds"] for stage in task["stages"])
        assert 0 < stages <= task["seconds"] and math.isfinite(task["seconds"])
    assert [stage["stage"] for stage in picture["stages"]] == ["prepare", "prefix", "denoise", "decode"]
    assert next(stage["steps"] for stage in picture["stages"] if stage["stage"] == "denoise") == 3
    assert picture["steps_per_second"] > 0 and len(video["stages"]) == 4
    assert answer["tokens"] == 12, "random weights end no answer before its limit"


def test_the_demo_model_can_be_measured_too_and_tasks_chosen() -> None:
    done = bench(DEMO, "--task", "x2t_image", "--runs", "1")
    assert done.returncode == 0, done.stderr
    (answer,) = json.loads(done.stdout)["tasks"]
    assert answer["task"] == "x2t_image" and 0 < answer["tokens"] <= 12


def test_what_cannot_be_measured_is_said(tmp_path: Path) -> None:
    assert "names none of" in bench(DEMO, "--task", "t2x").stderr
    missing = bench(tmp_path / "nothing")
    assert missing.returncode == 1 and "nothing" in missing.stderr
    refused = bench(DEMO, "--task", "t2i", "--image", "100x100")
    assert refused.returncode == 1 and "t2i" in refused.stderr and "multiple" in refused.stderr
    assert run(BENCH, "--tasks").returncode == 2
