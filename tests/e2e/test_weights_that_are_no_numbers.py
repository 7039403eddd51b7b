"""A model whose weights hold NaN or infinity: the job fails as bad_file, naming the stage that gave no numbers."""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lanced_client import BadFile, Client
from lanced_process import DEMO_AWQ, DEMO_MODEL, REQUEST, Lanced

NAN, INFINITY = b"\xc0\x7f", b"\x80\x7f"  # bfloat16, which all of the demo model's numbers are
PICTURE = np.full((1, 64, 64, 3), 90, np.uint8)
QUICK: dict[str, Any] = REQUEST | {"width": 32, "height": 32, "num_inference_steps": 3}
QUESTION: dict[str, Any] = {"prompt": "What is it?", "source": PICTURE, "resolution": "56x56"}


def damage_tensor(path: Path, name: str, number: bytes, at: int = 0) -> None:
    with path.open("r+b") as file:
        header_bytes = struct.unpack("<Q", file.read(8))[0]
        entry = json.loads(file.read(header_bytes))[name]
        assert entry["dtype"] == "BF16"
        file.seek(8 + header_bytes + entry["data_offsets"][0] + 2 * at)
        file.write(number)


def damage_vae(folder: Path, which: int, number: bytes) -> None:
    """One of the storages, in the order of the network: the encoder's come first, the decoder's last."""
    path = folder / "Wan2.2_VAE.pth"
    with zipfile.ZipFile(path) as old:
        members = [(info, old.read(info)) for info in old.infolist()]
    names = [info.filename for info, _ in members if "/data/" in info.filename]
    damaged = sorted(names, key=lambda name: int(name.rsplit("/")[-1]))[which]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as new:
        for info, data in members:
            new.writestr(info.filename, number + data[2:] if info.filename == damaged else data)


def text_of(folder: Path) -> Path:
    return folder / "model.safetensors"


Damage = Callable[[Path], None]
CASES: dict[str, tuple[Damage, str, str, dict[str, Any]]] = {
    "a NaN in the ViT": (
        lambda folder: damage_tensor(folder / "Qwen2.5-VL-ViT/vit.safetensors", "blocks.0.norm1.weight", NAN),
        "vit", "x2t_image", QUESTION,
    ),
    "a NaN in the language model": (
        lambda folder: damage_tensor(text_of(folder), "language_model.model.layers.0.input_layernorm.weight", NAN),
        "text", "x2t_image", QUESTION,
    ),
    "an infinity among the logits' weights": (
        lambda folder: damage_tensor(text_of(folder), "language_model.lm_head.weight", INFINITY, at=5),
        "text", "x2t_image", QUESTION,
    ),
    "a NaN in the generation expert": (
        lambda folder: damage_tensor(text_of(folder), "language_model.model.norm_moe_gen.weight", NAN),
        "denoise, step 1,", "t2i", QUICK,
    ),
    "an infinity in what makes latents": (
        lambda folder: damage_tensor(text_of(folder), "llm2vae.bias", INFINITY, at=7),
        "denoise, step 1,", "t2i", QUICK,
    ),
    "a NaN in the VAE's decoder": (lambda folder: damage_vae(folder, -1, NAN), "decode", "t2i", QUICK),
    "an infinity in the VAE's decoder": (lambda folder: damage_vae(folder, -1, INFINITY), "decode", "t2i", QUICK),
    "a NaN in the VAE's encoder": (lambda folder: damage_vae(folder, 1, NAN), "encode", "encode", {"source": PICTURE}),
}


@pytest.mark.parametrize(("damage", "stage", "task", "request_"), CASES.values(), ids=CASES.keys())
def test_weights_that_are_no_numbers_fail_the_job_and_name_the_stage(
    tmp_path: Path, damage: Damage, stage: str, task: str, request_: dict[str, Any]
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(DEMO_MODEL, folder)
    damage(folder)
    with Lanced(models=(folder, DEMO_AWQ)) as daemon, daemon.client() as client:
        with pytest.raises(BadFile, match=f"^{stage} gave values that are no numbers"):
            client.generate(task, **request_)
        assert client.generate("t2i", model=DEMO_AWQ.name, **QUICK).pixels is not None


def test_a_nan_in_the_scales_of_4_bit_weights_is_found_as_well(tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(DEMO_AWQ, folder)
    scales = "language_model.model.layers.0.mlp_moe_gen.down_proj.scales"
    damage_tensor(folder / "awq_state_dict.safetensors", scales, NAN)
    with Lanced(models=(folder,)) as daemon, daemon.client() as client:
        with pytest.raises(BadFile, match="^denoise, step 1, gave"):
            client.generate("t2i", **QUICK)


def test_latents_far_out_of_range_give_no_black_picture(client: Client) -> None:
    with pytest.raises(BadFile, match="or latents or noise that were given are far out of range"):
        client.decode(np.full((1, 48, 1, 2, 2), 3e38, np.float32))
