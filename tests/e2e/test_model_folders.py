"""`lanced --models DIR`: what is offered from a folder of checkpoints, and what becomes of the rest of it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from lanced_client import ConnectionFailed
from lanced_client.starter import models_in
from lanced_process import DEMO_AWQ, DEMO_MODEL, DEMO_NVFP4, LANCED, REQUEST, Lanced


def listed(*arguments: str) -> list[str]:
    command = [str(LANCED), "--list-models", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    names: list[str] = json.loads(done.stdout)
    return names


def put(folder: Path, model: Path) -> None:
    folder.parent.mkdir(exist_ok=True)
    folder.symlink_to(model)


def test_every_kind_of_weights_is_a_model_by_its_folders_name(tmp_path: Path) -> None:
    weights = {
        "awq": "awq_state_dict.safetensors",
        "int8": "int8_state_dict.safetensors",
        "mixed": "mixed_state_dict.safetensors",
        "nvfp4": "nvfp4_state_dict.safetensors",
        "whole": "model.safetensors",
    }
    for name, file in weights.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / file).touch()
    for name in (".hidden", "no weights"):
        (tmp_path / name).mkdir()
    (tmp_path / ".hidden/model.safetensors").touch()
    (tmp_path / "model.safetensors").touch()
    assert models_in(LANCED, [tmp_path]) == list(weights)


def test_a_job_is_done_by_a_model_found_in_a_folder(tmp_path: Path) -> None:
    put(tmp_path / "b", DEMO_NVFP4)
    put(tmp_path / "a", DEMO_AWQ)
    with Lanced("--lazy", "--models", str(tmp_path), models=()) as daemon, daemon.client() as client:
        assert [model.name for model in client.models()] == ["a", "b"]
        assert client.hello().default_model == "a"
        assert client.generate("t2i", model="b", **REQUEST).pixels is not None


def test_models_that_are_named_come_first_and_the_first_folder_with_a_name_keeps_it(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    put(first / "x", DEMO_AWQ)
    put(second / "x", DEMO_NVFP4)
    put(second / "y", DEMO_NVFP4)
    folders = ["--models", str(first), "--models", str(second)]
    assert listed(*folders, "--model", f"z={DEMO_MODEL}") == ["z", "x", "y"]
    with Lanced("--lazy", *folders, models=()) as daemon, daemon.client() as client:
        assert [model["form"] for model in client.call("models")[0]["models"]] == ["awq", "nvfp4"]
        assert "second/x: there is a model of this name already" in daemon.log.read_text()


def test_the_log_names_checkpoints_that_lack_files_or_cannot_be_offered(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path)
    for name in (b"x" * 65, b"not \xff text", b"good"):
        put(Path(os.fsdecode(root + b"/" + name)), DEMO_MODEL)
    (tmp_path / "half").mkdir()
    (tmp_path / "half/model.safetensors").touch()
    (tmp_path / "phone.mlpackage").mkdir()
    (tmp_path / "phone").mkdir()
    (tmp_path / "phone.mlpackage").rename(tmp_path / "phone/phone.mlpackage")
    (tmp_path / "index").mkdir()
    (tmp_path / "index/model.safetensors.index.json").write_text("{}")
    with Lanced("--lazy", "--models", str(tmp_path), models=()) as daemon, daemon.client() as client:
        assert [model.name for model in client.models()] == ["good", "half"]
        said = daemon.log.read_text(errors="replace")
    assert f"{tmp_path}/half: lacks llm_config.json" in said
    assert said.count("it is not offered") == 4
    assert "phone: phone.mlpackage is a CoreML package" in said


def test_of_more_models_than_one_daemon_offers_the_log_names_the_others(tmp_path: Path) -> None:
    for number in range(33):
        put(tmp_path / f"m{number:02}", DEMO_MODEL)
    with Lanced("--lazy", "--models", str(tmp_path), models=()) as daemon, daemon.client() as client:
        assert len(client.models()) == 32
        assert "m32: at most 32 models can be offered; it is not offered" in daemon.log.read_text()


def test_a_folder_that_is_not_there_or_holds_no_checkpoint_is_an_error(tmp_path: Path) -> None:
    for folder, words in ((tmp_path, "there is no checkpoint in"), (tmp_path / "none", "No such file or directory")):
        done = subprocess.run([str(LANCED), "--models", str(folder)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 2
        assert words in done.stderr
    assert listed("--models", str(tmp_path)) == []
    with pytest.raises(ConnectionFailed, match=r"cannot say which models .*none: No such file"):
        models_in(LANCED, [tmp_path / "none"])
