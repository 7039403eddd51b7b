#!/usr/bin/env python3
"""Writes tests/golden/data/vision/{vae,vit}.safetensors from the official code and its recorded runs.

vae: the official VAE class on the tiny weights, over 13 synthetic frames of 48x32 (four latent frames, so that every
cache is filled and shifted); of the decoded pixels every second row and column is kept. Inputs are not stored: they are
integer formulas, repeated in tests/unit/test_vae.c.
vit: the picture of a recorded run, its tokens, and the first rows of two blocks.

    python tests/golden/make_vision_vectors.py OFFICIAL_CLONE RECORDED_RUNS
OFFICIAL_CLONE is bytedance/Lance; RECORDED_RUNS holds tiny/downloads and cases/image_edit_a.f32.safetensors.
"""
import importlib.util
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

OUT = Path(__file__).parent / "data/vision"
LATENT_FRAMES, LATENT_HEIGHT, LATENT_WIDTH, CHANNELS = 4, 3, 2, 48


def synthetic(count: int) -> torch.Tensor:
    """Numbers from -1 to 0.999, no two neighbours alike."""
    return (torch.arange(count) * 7919 % 2000).float() / 1000 - 1


def official_vae(clone: Path, weights: Path) -> Any:
    spec = importlib.util.spec_from_file_location("vae2_2", clone / "modeling/vae/wan/vae2_2.py")
    assert spec and spec.loader
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    state = load_file(str(weights))

    def tiny_vae(**_: object) -> torch.nn.Module:
        widths = {"dim": len(state["encoder.conv1.weight"]), "dec_dim": len(state["decoder.head.0.gamma"])}
        model = module.WanVAE_(**widths, z_dim=CHANNELS, temperal_downsample=[False, True, True])
        model.load_state_dict(state)
        return model

    module._video_vae = tiny_vae
    return module.Wan2_2_VAE(device="cpu")


@torch.no_grad()
def main() -> None:
    clone, runs = Path(sys.argv[1]), Path(sys.argv[2])
    OUT.mkdir(parents=True, exist_ok=True)
    vae = official_vae(clone, runs / "tiny/downloads/Wan2.2_VAE.safetensors")
    frames, height, width = 1 + 4 * (LATENT_FRAMES - 1), 16 * LATENT_HEIGHT, 16 * LATENT_WIDTH
    latent = synthetic(LATENT_FRAMES * LATENT_HEIGHT * LATENT_WIDTH * CHANNELS)
    latent = latent.reshape(1, LATENT_FRAMES, LATENT_HEIGHT, LATENT_WIDTH, CHANNELS).permute(0, 4, 1, 2, 3)
    pixels = synthetic(frames * height * width * 3).reshape(1, frames, height, width, 3).permute(0, 4, 1, 2, 3)
    decoded = vae.decode(latent)[0].permute(1, 2, 3, 0)
    mean, log_variance = (x[0].permute(1, 2, 3, 0) for x in vae.encode(pixels))
    save_file({"decoded_every_second": decoded[:, ::2, ::2].contiguous(), "mean": mean.contiguous(),
               "log_variance": log_variance.contiguous()}, str(OUT / "vae.safetensors"))

    run = load_file(str(runs / "cases/image_edit_a.f32.safetensors"))
    picture = run["vit_in.0.pixels_u8"]
    assert torch.equal(picture[:, 0], picture[:, 1])
    save_file({"pixels": picture[:, 0].permute(1, 2, 0).contiguous(), "tokens": run["vit.0.out"],
               "block0_head": run["vit.0.block0"][:64].contiguous(),
               "block1_head": run["vit.0.block1"][:64].contiguous()}, str(OUT / "vit.safetensors"))


if __name__ == "__main__":
    main()
