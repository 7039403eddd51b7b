"""Which model "automatic" stands for, in the layout that everybody has: releases of the real size side by side (sparse
files, as they are only listed), and that a job takes it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from lanced_process import DEMO_AWQ, DEMO_MODEL, REQUEST, Lanced

OFFICIAL = ("llm_config.json", "vocab.json", "merges.txt", "tokenizer_config.json")
SIZES = {  # GB of the published files
    "Lance_3B": ("model.safetensors", 25.0),
    "Lance_3B-AWQ-INT4": ("awq_state_dict.safetensors", 3.9),
    "Lance_3B-NVFP4": ("nvfp4_state_dict.safetensors", 4.2),
    "Lance_3B_Video": ("model.safetensors", 25.0),
    "Lance_3B_Video-AWQ-INT4": ("awq_state_dict.safetensors", 3.9),
    "Lance_3B_Video-NVFP4": ("nvfp4_state_dict.safetensors", 4.2),
}
VIDEO_TASKS = ("t2v", "i2v", "video_edit", "x2t_video")
PICTURE_TASKS = ("t2i", "image_edit", "x2t_image")


def make_release(folder: Path, spelling: str, names: list[str]) -> tuple[Path, ...]:
    """Folders as they are published; spelling "-": `Lance-3B-AWQ-INT4` for the 4-bit ones."""
    made = []
    for name in names:
        weights, gigabytes = SIZES[name]
        is_official = weights == "model.safetensors"
        path = folder / (name if is_official else name.replace("_", spelling))
        path.mkdir()
        with (path / weights).open("wb") as file:
            file.truncate(int(gigabytes * 1e9))
        for other in OFFICIAL if is_official else ():
            (path / other).write_text("{}")
        made.append(path)
    return tuple(made)


def offered(models: tuple[Path, ...], *arguments: str) -> dict[str, Any]:
    with Lanced("--lazy", *arguments, models=models) as lanced, lanced.client() as client:
        answer, _ = client.call("models")
    return answer


@pytest.mark.parametrize("spelling", ["_", "-"])
@pytest.mark.parametrize("memory", ["8G", "16G", "24G"])
def test_each_task_takes_a_4_bit_form_of_the_release_made_for_it(tmp_path: Path, spelling: str, memory: str) -> None:
    models = make_release(tmp_path, spelling, sorted(SIZES))
    answer = offered(models, "--memory", memory)
    automatic = answer["automatic"]
    picture, video = (name.replace("_", spelling) for name in ("Lance_3B-AWQ-INT4", "Lance_3B_Video-AWQ-INT4"))
    assert {automatic[task]["model"] for task in PICTURE_TASKS} == {picture}
    assert {automatic[task]["model"] for task in VIDEO_TASKS} == {video}
    assert automatic["t2i"]["why"] == "4-bit, 3.9 GB, fits, for pictures"
    fits = {entry["name"]: entry["fits"] for entry in answer["models"]}
    assert not fits["Lance_3B"], "25 GB"
    assert fits[picture]


def test_a_video_on_the_picture_release_is_said(tmp_path: Path) -> None:
    models = make_release(tmp_path, "_", ["Lance_3B", "Lance_3B-AWQ-INT4"])
    choice = offered(models, "--memory", "16G")["automatic"]["t2v"]
    assert choice["model"] == "Lance_3B-AWQ-INT4"
    assert choice["why"].endswith("fits; made for pictures: no model for videos that fits is here")


def test_a_broken_folder_is_not_taken_and_says_what_it_lacks(tmp_path: Path) -> None:
    models = make_release(tmp_path, "_", ["Lance_3B", "Lance_3B-AWQ-INT4"])
    for other in OFFICIAL[1:]:
        (tmp_path / "Lance_3B" / other).unlink()
    shutil.copytree(DEMO_MODEL, tmp_path / "whole")
    answer = offered((*models, tmp_path / "whole"))
    assert answer["automatic"]["t2i"]["model"] == "whole"
    assert " MB, fits" in answer["automatic"]["t2i"]["why"], "not 0.0 GB"
    problems = {entry["name"]: entry["problem"] for entry in answer["models"]}
    assert "vocab.json" in problems["Lance_3B"]
    assert problems["whole"] is None


def test_a_job_for_automatic_takes_the_model_of_its_task_and_one_without_a_name_the_loaded_one(tmp_path: Path) -> None:
    videos = tmp_path / "demo-Video"
    shutil.copytree(DEMO_MODEL, videos)
    clip = REQUEST | {"num_frames": 1}
    with Lanced("--lazy", models=(videos, DEMO_AWQ)) as lanced, lanced.client() as client:

        def used(task: str, **request: Any) -> str:
            return str(client.generate(task, **request).receipt["model"]["name"])

        assert used("t2i", model="automatic", **REQUEST) == DEMO_AWQ.name
        assert used("t2v", model="automatic", **clip) == videos.name
        latents = client.generate("t2i", **REQUEST).latents
        decoded = used("decode", model="automatic", latents=latents)
        assert decoded == videos.name, "the loaded one: all have the same VAE"
        assert used("t2i", **REQUEST) == videos.name
