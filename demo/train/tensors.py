"""From the scenes of demo/examples.py to the tensors the model takes, and back to pixels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from demo.examples import is_clip, shoot
from demo.shapes import CANVAS, Pixels, Scene
from demo.train.layout import Grid
from demo.train.vae_model import Vae, to_input, to_pixels
from demo.train.vit_model import vit_frames, vit_patches
from demo.train.world import CLIP_FRAMES, CLIP_SIDE

IMAGE_GRID: Grid = (1, CANVAS // 16, CANVAS // 16)
CLIP_GRID: Grid = (1 + (CLIP_FRAMES - 1) // 4, CLIP_SIDE // 16, CLIP_SIDE // 16)
VIT_IMAGE_GRID: Grid = (1, 4, 4)
VIT_CLIP_GRID: Grid = ((CLIP_FRAMES + 1) // 2, 4, 4)


def latent_grid(task: str) -> Grid:
    return CLIP_GRID if is_clip(task) else IMAGE_GRID


def vit_grid(task: str) -> Grid:
    return VIT_CLIP_GRID if is_clip(task) else VIT_IMAGE_GRID


def patches_of(task: str, scenes: list[Scene]) -> Tensor:
    """A still picture goes in twice, as one frame pair."""
    frames = [shoot(task, scene) for scene in scenes]
    return vit_patches(np.stack([vit_frames(f if is_clip(task) else np.repeat(f, 2, 0)) for f in frames]))


@torch.no_grad()
def encode(vae: Vae, frames: Pixels, generator: torch.Generator) -> Tensor:
    """Latents [tokens, 48], sampled from the posterior as officially."""
    mean, log_variance = vae.encode(to_input(frames)[None].to(vae.latent_mean.device))
    noise = torch.randn(mean.shape, generator=generator).to(mean.device)
    return (mean + (log_variance / 2).exp() * noise)[0].flatten(1).t()


@torch.no_grad()
def decode(vae: Vae, latents: Tensor, grid: Grid) -> list[Pixels]:
    """latents [batch, tokens, 48] -> frames of every item"""
    channels = latents.shape[-1]
    return [to_pixels(vae.decode(one.t().reshape(1, channels, *grid)))[0] for one in latents]


def conditions(task: str, sources: list[Scene], vae: Vae, generator: torch.Generator) -> dict[str, Tensor]:
    """What the sampler is given beside the prompts, for the whole set: batches are rows of it."""
    if task == "i2v":
        return {"first_frame": torch.stack([encode(vae, s.frames(1, CLIP_SIDE), generator) for s in sources])}
    if sources:
        latents = torch.stack([encode(vae, shoot(task, s), generator) for s in sources])
        return {"source": latents, "patches": patches_of(task, sources)}
    return {}
