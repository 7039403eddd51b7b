"""`lancectl doctor`: what it says, and its exit status, where all is well and in every case where something is not."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from certificates import TOKENS, write_tokens
from lanced_client import Client
from lanced_process import DEMO_MODEL, LANCECTL, LANCECTL_SECONDS, LANCED, LONG_REQUEST, Lanced

TASKS = {"t2i", "t2v", "i2v", "image_edit", "video_edit", "x2t_image", "x2t_video", "encode", "decode"}


def doctor(
    *arguments: str, endpoint: str = "ipc:///nowhere/lanced.ipc", memory: int = 0, program: Path = LANCECTL, **more: str
) -> tuple[int, dict[str, Any]]:
    """The exit status and the JSON object; with `memory`, in so many bytes of address space."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))

    done = subprocess.run(
        [str(program), "doctor", "--json", *arguments],
        env=os.environ | {"LANCED_ENDPOINT": endpoint} | more,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LANCECTL_SECONDS,
        preexec_fn=limit if memory else None,
    )
    said: dict[str, Any] = json.loads(done.stdout)
    assert said["exit_code"] == done.returncode
    return done.returncode, said


def lines(said: dict[str, Any], state: str) -> dict[str, str]:
    return {finding["about"]: finding["text"] for finding in said["findings"] if finding["state"] == state}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEMO_MODEL, tmp_path / "model"))


def test_all_is_well_with_a_daemon_that_has_a_model_in_memory(lanced: Lanced) -> None:
    status, said = doctor(endpoint=lanced.endpoint)
    well = lines(said, "ok")
    assert (status, lines(said, "problem")) == (0, {})
    assert well.keys() >= TASKS | {"lanced", "backend", "memory", "video", "socket", "version", "resident", "queue",
                                   "model", "speed"}
    assert said["speed"]["task"] == "t2i" and said["speed"]["total_seconds"] > 4 * said["speed"]["step_seconds"] > 0
    estimates = said["models"][0]["estimates"]
    assert estimates["t2v"]["total_bytes"] > estimates["t2i"]["total_bytes"] > 0


def test_people_are_told_a_line_for_each_thing_and_the_sum_of_them(lanced: Lanced) -> None:
    done = lanced.lancectl("doctor")
    assert done.returncode == 0, done.stdout
    told = done.stdout.splitlines()
    assert told[-1] == "all well" and any(line.startswith("ok       t2i        possible") for line in told)


def test_without_a_daemon_it_says_that_nobody_answers(tmp_path: Path) -> None:
    status, said = doctor(endpoint=f"ipc://{tmp_path}/lanced.ipc")
    problem = lines(said, "problem")["socket"]
    assert status == 3 and "no lanced answers" in problem and "left over" not in problem
    assert "lanced" in lines(said, "ok"), "what is installed is told all the same"


def test_a_socket_that_a_killed_daemon_left_is_told_as_that() -> None:
    with Lanced() as daemon:
        daemon.process.send_signal(signal.SIGKILL)
        daemon.process.wait()
        status, said = doctor(endpoint=daemon.endpoint)
    assert status == 3 and "left over" in lines(said, "problem")["socket"]


@pytest.mark.parametrize("token", ["", "wrong"])
def test_a_token_that_is_missing_or_wrong_is_a_refusal(tmp_path: Path, token: str) -> None:
    (tmp_path / "token").write_text("right and long enough\n")
    (tmp_path / "token").chmod(0o600)
    with Lanced("--token-file", str(tmp_path / "token"), token="right and long enough") as daemon:
        status, said = doctor(endpoint=daemon.endpoint, LANCED_TOKEN=token)
        assert status == 4 and "token" in lines(said, "problem")["socket"]
        assert doctor(endpoint=daemon.endpoint, LANCED_TOKEN="right and long enough")[0] in (0, 1)


def test_who_is_no_admin_is_told_all_the_same(tmp_path: Path) -> None:
    with Lanced("--tokens", str(write_tokens(tmp_path / "tokens"))) as daemon:
        name = sorted(TOKENS)[0]
        status, said = doctor(endpoint=daemon.endpoint, LANCED_TOKEN=TOKENS[name])
        assert status == 0, said["findings"]


def test_a_daemon_that_is_busy_is_not_measured() -> None:
    with Lanced() as daemon, daemon.client() as client:
        job = client.submit("t2i", **LONG_REQUEST)
        while client.stats()["steps"] == 0:
            pass
        status, said = doctor(endpoint=daemon.endpoint)
        job.cancel()
    assert status == 0 and "has jobs" in lines(said, "note")["speed"] and "speed" not in said


def test_a_whole_folder_is_looked_at_without_a_daemon() -> None:
    status, said = doctor("--model", str(DEMO_MODEL))
    assert (status, lines(said, "problem")) == (0, {})
    assert lines(said, "ok").keys() >= TASKS | {"model", "speed"} and "socket" in lines(said, "note")


def test_the_daemon_that_answers_is_left_as_it_is(lanced: Lanced, client: Client, folder: Path) -> None:
    loads = client.stats()["loads"]
    status, said = doctor("--model", str(folder), endpoint=lanced.endpoint)
    assert status == 0 and said["folder"]["name"] == "model"
    assert client.stats()["loads"] == loads


def test_an_empty_folder_lacks_everything(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    status, said = doctor("--model", str(tmp_path / "model"))
    assert status == 6 and "llm_config.json" in lines(said, "problem")["model"]
    assert "speed" not in said


def test_truncated_weights_are_told_by_their_file(folder: Path) -> None:
    weights = folder / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    status, said = doctor("--model", str(folder))
    assert status == 6 and "model.safetensors" in lines(said, "problem")["model"]


def test_a_file_that_cannot_be_read_is_told_by_its_name(folder: Path) -> None:
    (folder / "vocab.json").unlink()
    (folder / "vocab.json").mkdir()  # root, as whom tests may run, may read any file
    status, said = doctor("--model", str(folder))
    assert status == 6 and "vocab.json" in lines(said, "problem")["model"]


def test_without_vae_questions_are_possible_and_nothing_else(folder: Path) -> None:
    (folder / "Wan2.2_VAE.pth").unlink()
    status, said = doctor("--model", str(folder))
    problems = lines(said, "problem")
    assert status == 6 and problems.keys() == TASKS - {"x2t_image", "x2t_video"}
    assert all("Wan2.2_VAE.pth" in text for text in problems.values())
    assert lines(said, "ok").keys() >= {"x2t_image", "x2t_video"} and said["speed"]["task"] == "x2t_image"


def test_without_vision_encoder_pictures_can_be_made_and_not_looked_at(folder: Path) -> None:
    shutil.rmtree(folder / "Qwen2.5-VL-ViT")
    status, said = doctor("--model", str(folder))
    problems = lines(said, "problem")
    assert status == 6 and "ViT" in problems["image_edit"] and lines(said, "ok").keys() >= {"t2i", "t2v"}


def test_tasks_that_find_too_little_memory_are_told_with_the_numbers() -> None:
    with Lanced("--memory", "100M") as daemon, daemon.client() as client:
        client.load()
        status, said = doctor(endpoint=daemon.endpoint)
    problems = lines(said, "problem")
    assert status == 1 and "t2i" in lines(said, "ok")
    assert "limit is 104.9 MB" in problems["t2v"] and said["models"][0]["estimates"]["t2v"]["code"] == "too_large"


def test_weights_that_are_larger_than_the_memory_are_not_loaded(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 10**13)  # a hole: the disk has none of it
    status, said = doctor("--model", str(folder))
    assert status == 1 and "more than this machine" in lines(said, "problem")["model"]
    assert lines(said, "ok").keys().isdisjoint(TASKS)


def test_without_room_for_threads_nothing_dies_and_the_limit_is_told() -> None:
    status, said = doctor("--model", str(DEMO_MODEL), memory=250 << 20)
    assert status == 1 and "address space" in lines(said, "problem")["socket"]


def test_a_lanced_that_does_not_start_is_told_with_its_words(tmp_path: Path, lanced: Lanced) -> None:
    shutil.copy(LANCECTL, tmp_path / "lancectl")
    (tmp_path / "lanced").write_text("#!/bin/sh\necho 'libnng.so.1: cannot open shared object file' >&2\nexit 127\n")
    (tmp_path / "lanced").chmod(0o755)
    status, said = doctor(program=tmp_path / "lancectl", endpoint=lanced.endpoint)
    assert status == 1 and "libnng.so.1" in lines(said, "problem")["lanced"]


def test_a_cuda_plugin_that_cannot_be_used_is_a_problem_and_none_is_not(tmp_path: Path, lanced: Lanced) -> None:
    (tmp_path / "plugin.so").write_text("no library")
    status, said = doctor(endpoint=lanced.endpoint, LANCED_CUDA_PLUGIN=str(tmp_path / "plugin.so"))
    assert status == 1 and "plugin.so" in lines(said, "problem")["cuda"]


def test_lanced_check_says_what_lies_in_the_folders_and_loads_nothing(folder: Path) -> None:
    (folder / "Wan2.2_VAE.pth").unlink()
    (folder / "vocab.json").unlink()
    command = [str(LANCED), "--check", "--model", str(folder), "--model", str(DEMO_MODEL)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    said = json.loads(done.stdout)
    assert done.returncode == 0 and said["backend"] and said["machine"]["memory_bytes"] > 0
    assert "vocab.json" in said["models"][0]["problem"] and said["models"][1]["problem"] is None
