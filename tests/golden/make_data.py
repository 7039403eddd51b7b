#!/usr/bin/env python3
"""Writes tests/golden/data from a full folder of recordings of the official code: the text-to-image cases and a
question about a picture, without what can be generated again or is never compared.

    python tests/golden/make_data.py RECORDINGS

README.md in the data folder says what is kept. Tokenizer files and vectors are left as they are.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
import shutil
import struct
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"
LATENT_CHANNELS = 48

Tensors = dict[str, tuple[str, list[int], bytes]]  # name -> dtype, shape, bytes

FULL_CASES = ["t2i_a.f32"]
SLIM_CASES = [
    "t2i_a.bf16",
    "t2i_a.f32r",
    "t2i_b.f32",
    "t2i_channel.f32",
    "t2i_nocfg.f32",
    "t2i_nokv.f32",
    "t2i_a.awq_g128.f32",
    "t2i_a.awq_g64.f32",
    "t2i_a.nvfp4.f32",
    "t2i_a.nvfp4fp8.f32",
    "x2t_image_a.f32",
]
INPUTS = ["inputs/img_a.png"]
# Inside the model, and both branches' velocities after the first step: one full case has them.
DROPPED = re.compile(r".*\.(x_in|h0|h_last|kv_slots)|step[1-9]\d*\.(cond|uncond)\.v|time_in\.\d+|vae_dec\.\d+\.pixels"
                     r"|vit\.\d+\.block\d+|vit_in\.\d+\..*")
# Pixels are kept where they are the only copy (no output_u8) or show the colour range of another size.
PIXEL_CASES = ["t2i_b.f32"]


def read_safetensors(path: Path) -> Tensors:
    data = path.read_bytes()
    (header_bytes,) = struct.unpack("<Q", data[:8])
    header: dict[str, dict[str, Any]] = json.loads(data[8 : 8 + header_bytes])
    header.pop("__metadata__", None)
    payload = memoryview(data)[8 + header_bytes :]
    tensors: Tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = (str(entry["dtype"]), list(entry["shape"]), bytes(payload[begin:end]))
    return tensors


def write_safetensors(path: Path, tensors: Tensors) -> None:
    header, offset = {}, 0
    for name in sorted(tensors):
        dtype, shape, data = tensors[name]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in sorted(tensors):
            file.write(tensors[name][2])


def digest(tensors: Tensors) -> str:
    """SHA-256 over the tensors' bytes in the order of their names."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(tensors[name][2])
    return total.hexdigest()


def vae_recipe(name: str, shape: list[int]) -> dict[str, object]:
    """How the recordings' random VAE was drawn: std and mean of torch.randn by the role of the tensor."""
    recipe: dict[str, object] = {"shape": shape, "seed": 0, "stream": "vae" + name}
    if name.endswith("gamma"):
        return recipe | {"std": 0.15, "mean": 1.0}
    if name.endswith("bias"):
        return recipe | {"std": 0.05}
    gain = 1.0
    if ".residual.6." in name or "proj.weight" in name:
        gain = 0.7
    if name.startswith(("encoder.head", "decoder.head")):
        gain = 0.8
    if "time_conv" in name:
        gain = 0.9
    return recipe | {"std": gain / math.sqrt(math.prod(shape[1:]))}


def write_vae(recordings: Path) -> str:
    tensors = read_safetensors(recordings / "tiny/downloads/Wan2.2_VAE.safetensors")
    # Scaled by hand after drawing, so no recipe gives them.
    core = {name: tensors[name] for name in ("conv1.weight", "conv1.bias")}
    recipes = {name: vae_recipe(name, shape) for name, (_, shape, _) in sorted(tensors.items()) if name not in core}
    write_safetensors(DATA / "tiny/downloads/Wan2.2_VAE.core.safetensors", core)
    (DATA / "tiny/downloads/Wan2.2_VAE.normals.json").write_text(json.dumps(recipes, indent=0) + "\n")
    return digest(tensors)


def copy(recordings: Path, name: str) -> None:
    (DATA / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(recordings / name, DATA / name)


def write_core(recordings: Path, name: str) -> None:
    tensors = read_safetensors(recordings / name)
    tensors.pop("latent_pos_embed.pos_embed", None)
    write_safetensors(DATA / name, tensors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recordings", type=Path)
    recordings: Path = parser.parse_args().recordings

    for case in FULL_CASES + SLIM_CASES:
        copy(recordings, f"cases/{case}.json")
        tensors = read_safetensors(recordings / f"cases/{case}.safetensors")
        if case in SLIM_CASES:
            keep_pixels = case in PIXEL_CASES or "output_u8" not in tensors
            tensors = {
                name: tensor
                for name, tensor in tensors.items()
                if not DROPPED.fullmatch(name) or (keep_pixels and name.endswith(".pixels"))
            }
        write_safetensors(DATA / f"cases/{case}.safetensors", tensors)

    for name in ("tables.json", "tiny.json", "downloads/Lance_3B/llm_config.json", *INPUTS):
        copy(recordings, f"tiny/{name}")
    for name in ("config.json", "vit.safetensors"):
        copy(recordings, f"tiny/downloads/Qwen2.5-VL-ViT/{name}")
    write_core(recordings, "tiny/downloads/Lance_3B/model.core.safetensors")
    for kind, folder in (("awq", "awq_g128"), ("awq", "awq_g64"), ("nvfp4", "nvfp4")):
        write_core(recordings, f"quant/{folder}/{kind}_core.safetensors")
        copy(recordings, f"quant/{folder}/{kind}_meta.json")
    sums = {"Wan2.2_VAE.safetensors": write_vae(recordings)}
    full = recordings / "tiny/downloads/Lance_3B/model.safetensors"
    if full.exists():  # the recordings' own assembly; without the table that nobody reads
        tensors = read_safetensors(full)
        tensors.pop("latent_pos_embed.pos_embed", None)
        sums["model.safetensors"] = digest(tensors)
    (DATA / "tiny/sha256.json").write_text(json.dumps(sums, indent=1) + "\n")


if __name__ == "__main__":
    main()
