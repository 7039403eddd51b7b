"""lanced with the CUDA backend, on a card that is emulated (tests/cuda_emulation), and the choice of the backend."""

from __future__ import annotations

import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lanced_client import BadFile, LanceError, TooLarge
from lanced_process import DEMO_AWQ, DEMO_MODEL, LANCED, REQUEST, ROOT, Lanced

PLUGIN = ROOT / "build/tests/liblanced_cuda_emulated.so"
NO_PLUGIN = {"LANCED_CUDA_PLUGIN": "/nowhere/liblanced_cuda.so"}
pytestmark = pytest.mark.deep
QUICK = REQUEST | {"num_inference_steps": 2}


@pytest.fixture(scope="session")
def card() -> dict[str, str]:
    """The environment of a daemon with an emulated card."""
    subprocess.run(["make", "-s", str(PLUGIN.relative_to(ROOT))], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return {"LANCED_CUDA_PLUGIN": str(PLUGIN)}


def psnr(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> float:
    error = float(np.mean((left.astype(np.float64) - right.astype(np.float64)) ** 2))
    return 10 * math.log10(255**2 / error) if error else math.inf


def test_a_picture_made_on_the_card_is_the_cpus_but_for_bf16_and_the_same_every_time(card: dict[str, str]) -> None:
    with Lanced("--backend", "cpu") as daemon, daemon.client() as client:
        wanted = client.generate("t2i", **QUICK).pixels
    with Lanced("--backend", "cuda", environment=card) as daemon, daemon.client() as client:
        first, second = (client.generate("t2i", **QUICK).pixels for _ in range(2))
        stats = client.stats()
    assert wanted is not None and first is not None and second is not None
    assert stats["backend"] == "cuda:emulated card 0"
    assert first.tobytes() == second.tobytes()
    assert psnr(first, wanted) > 40


def test_a_head_in_bytes_answers_on_the_card_as_on_the_cpu(card: dict[str, str]) -> None:
    with Lanced("--backend", "cpu", "--head", "int8") as daemon, daemon.client() as client:
        picture = client.generate("t2i", **QUICK).pixels
        assert picture is not None
        question: dict[str, Any] = {"prompt": "what shape is it?", "source": picture[0], "max_new_tokens": 4}
        wanted = client.generate("x2t_image", **question)
    with Lanced("--backend", "cuda", "--head", "int8", environment=card) as daemon, daemon.client() as client:
        answer = client.generate("x2t_image", **question)
        assert "has 8 bits a weight" in daemon.log.read_text()
    assert answer.text == wanted.text != ""
    assert answer.receipt["model"]["hash"] == wanted.receipt["model"]["hash"]


def test_auto_takes_the_card_and_without_one_says_why_it_does_not(card: dict[str, str]) -> None:
    with Lanced("--lazy", environment=card) as daemon:
        assert "backend cuda:emulated card 0" in daemon.log.read_text()
    with Lanced("--lazy", environment=card | {"LANCED_EMULATION_CARDS": "0"}) as daemon:
        line = next(line for line in daemon.log.read_text().splitlines() if " backend " in line)
    assert "backend cpu" in line and "no CUDA card" in line


def test_a_job_that_the_card_has_no_memory_for_is_refused_with_the_numbers(card: dict[str, str]) -> None:
    small = card | {"LANCED_EMULATION_MEMORY": str(190 << 20)}
    with Lanced("--backend", "cuda", environment=small) as daemon, daemon.client() as client:
        client.load()
        limit = client.stats()["memory"]["job_limit_bytes"]
        assert 100 << 20 <= limit < 144 << 20  # three quarters of what the weights left
        with pytest.raises(TooLarge, match="MB"):
            client.submit("t2v", **(REQUEST | {"width": 848, "height": 480, "num_frames": 121}))


@pytest.mark.parametrize(("memory", "loads"), [(1 << 30, 2), (20 << 20, 4)])
def test_two_models_share_a_card_where_it_has_room_and_have_the_bytes_of_each_alone(
    card: dict[str, str], memory: int, loads: int
) -> None:
    request = QUICK | {"width": 32, "height": 32, "num_inference_steps": 1}
    both = (DEMO_MODEL, DEMO_AWQ)
    alone = {}
    for model in both:
        with Lanced("--backend", "cuda", environment=card, models=(model,)) as daemon, daemon.client() as client:
            alone[model.name] = client.generate("t2i", **request).pixels
    size = card | {"LANCED_EMULATION_MEMORY": str(memory)}
    with Lanced("--backend", "cuda", "--models-resident", "2", environment=size, models=both) as daemon:
        with daemon.client() as client:
            for model in both * 2:
                pixels, wanted = client.generate("t2i", model=model.name, **request).pixels, alone[model.name]
                assert pixels is not None and wanted is not None and pixels.tobytes() == wanted.tobytes()
            assert client.stats()["loads"] == loads


def test_a_vision_transformer_that_is_cut_off_fails_the_question_and_is_read_anew_once_it_is_back(
    card: dict[str, str], tmp_path: Path
) -> None:
    """Its weights are sent to the card for every run, from the file."""
    folder = tmp_path / "shrinking"
    shutil.copytree(DEMO_MODEL, folder)
    weights = folder / "Qwen2.5-VL-ViT/vit.safetensors"
    whole = weights.read_bytes()
    question: dict[str, Any] = {"prompt": "What?", "source": np.zeros((28, 28, 3), np.uint8), "max_new_tokens": 1,
                                "resolution": "28x28"}
    with Lanced("--backend", "cuda", environment=card, models=(folder,)) as daemon, daemon.client() as client:
        client.load()
        with weights.open("r+b") as file:
            file.truncate(4096)
        picture = QUICK | {"width": 32, "height": 32, "num_inference_steps": 1, "guidance_scale": 1.0, "decode": False}
        with pytest.raises(BadFile, match=r"vit\.safetensors"):  # every job would be of a model that is no more
            client.generate("t2i", **picture)
        with pytest.raises(BadFile, match=r"vit\.safetensors"):
            client.generate("x2t_image", **question)
        weights.write_bytes(whole)
        assert client.generate("t2i", **picture).latents is not None
        assert client.generate("x2t_image", **question).text is not None
        stats = client.stats()
        assert stats["loads"] == 2 and stats["memory"]["job_bytes"] == 0


def test_a_card_that_breaks_fails_the_jobs_there_are_and_ends_lanced_for_a_new_one(card: dict[str, str]) -> None:
    broken = card | {"LANCED_EMULATION_FAILS": "2:attention_kernel"}
    with Lanced("--backend", "cuda", environment=broken) as daemon, daemon.client() as client:
        client.load()
        first, second = (client.submit("t2i", **REQUEST) for _ in range(2))
        with pytest.raises(LanceError, match=r"emulated card 0.*illegal memory access.*kernel"):
            first.result()
        with pytest.raises(LanceError, match="failed in an earlier job"):
            second.result()
        assert daemon.process.wait(timeout=30) == 3
        assert "lanced has to be started again" in daemon.log.read_text()
        daemon.environment = daemon.environment | {"LANCED_EMULATION_FAILS": ""}  # a new process
        daemon.start()
        assert client.generate("t2i", **(QUICK | {"decode": False})).latents is not None


def test_with_a_state_folder_what_waits_when_the_card_breaks_is_the_new_daemons(
    card: dict[str, str], tmp_path: Path
) -> None:
    broken = card | {"LANCED_EMULATION_FAILS": "2:attention_kernel"}
    arguments = ["--backend", "cuda", "--state", str(tmp_path / "state")]
    with Lanced(*arguments, environment=broken) as daemon, daemon.client() as client:
        client.load()
        first, second = (client.submit("t2i", **(QUICK | {"decode": False})) for _ in range(2))
        with pytest.raises(LanceError, match="illegal memory access"):
            first.result()
        assert daemon.process.wait(timeout=30) == 3
        daemon.environment = daemon.environment | {"LANCED_EMULATION_FAILS": ""}  # a new process
        daemon.start()
        assert second.result().latents is not None


def test_a_wish_for_cuda_that_cannot_be_met_ends_lanced_with_the_reason(tmp_path: Path, card: dict[str, str]) -> None:
    for environment, reason in ((NO_PLUGIN, "/nowhere/liblanced_cuda.so"),
                                (card | {"LANCED_EMULATION_CARDS": "0"}, "no CUDA card")):
        command = [str(LANCED), "--model", str(DEMO_MODEL), "--endpoint", f"ipc://{tmp_path}/l.ipc"]
        command += ["--backend", "cuda"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
        assert done.returncode != 0
        assert reason in done.stderr
