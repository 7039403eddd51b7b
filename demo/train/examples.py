"""What every task is asked in evaluation and calibration: prompts, sources and the scenes that should come out."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from demo.shapes import CANVAS, Pixels, Scene
from demo.train.layout import Grid
from demo.train.vae_model import Vae, to_input, to_pixels
from demo.train.vit_model import vit_frames, vit_patches
from demo.train.world import (
    CLIP_FRAMES,
    CLIP_SIDE,
    IMAGE_EDITS,
    IMAGE_QUESTIONS,
    VIDEO_EDITS,
    VIDEO_QUESTIONS,
    draw_edit,
)

IMAGE_GRID: Grid = (1, CANVAS // 16, CANVAS // 16)
CLIP_GRID: Grid = (1 + (CLIP_FRAMES - 1) // 4, CLIP_SIDE // 16, CLIP_SIDE // 16)
VIT_IMAGE_GRID: Grid = (1, 4, 4)
VIT_CLIP_GRID: Grid = ((CLIP_FRAMES + 1) // 2, 4, 4)
GENERATION_TASKS = ("t2i", "image_edit", "t2v", "i2v", "video_edit")
QUESTION_TASKS = ("x2t_image", "x2t_video")


def is_clip(task: str) -> bool:
    return task in ("t2v", "i2v", "video_edit", "x2t_video")


def latent_grid(task: str) -> Grid:
    return CLIP_GRID if is_clip(task) else IMAGE_GRID


def vit_grid(task: str) -> Grid:
    return VIT_CLIP_GRID if is_clip(task) else VIT_IMAGE_GRID


def shoot(task: str, scene: Scene) -> Pixels:
    return scene.frames(CLIP_FRAMES, CLIP_SIDE) if is_clip(task) else scene.frames(1, CANVAS)


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


@dataclass
class GenerationExamples:
    """Prompts of a generation task. `wanted` are the scenes that should come out, `sources` what goes in, if any."""

    task: str
    prompts: list[str] = field(default_factory=list)
    wanted: list[Scene] = field(default_factory=list)
    sources: list[Scene] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)  # of edit


def generation_examples(task: str, count: int, rng: random.Random) -> GenerationExamples:
    examples = GenerationExamples(task)
    for i in range(count):
        if task == "t2i":
            scene = Scene.draw(rng)
            examples.prompts.append(scene.caption())
        elif task == "t2v":
            scene = Scene.draw_crossing(rng)
            examples.prompts.append(scene.clip_caption())
        elif task == "i2v":
            scene = Scene.draw_departure(rng)
            examples.prompts.append(f"the {scene.shape} moves {scene.motion}")
            examples.sources.append(scene)
        else:
            source = Scene.draw_crossing(rng) if is_clip(task) else Scene.draw(rng)
            kinds = VIDEO_EDITS if is_clip(task) else IMAGE_EDITS
            examples.kinds.append(kinds[i % len(kinds)])
            edit = draw_edit(source, rng, examples.kinds[-1])
            examples.prompts.append(edit.instruction)
            examples.sources.append(source)
            scene = edit.target
        examples.wanted.append(scene)
    return examples


def conditions(examples: GenerationExamples, vae: Vae, generator: torch.Generator) -> dict[str, Tensor]:
    """What the sampler is given beside the prompts, for the whole set: batches are rows of it."""
    task, sources = examples.task, examples.sources
    if task == "i2v":
        return {"first_frame": torch.stack([encode(vae, s.frames(1, CLIP_SIDE), generator) for s in sources])}
    if sources:
        latents = torch.stack([encode(vae, shoot(task, s), generator) for s in sources])
        return {"source": latents, "patches": patches_of(task, sources)}
    return {}


@dataclass
class Question:
    scene: Scene
    topic: str
    text: str


def questions(task: str, count: int, rng: random.Random) -> list[Question]:
    table = VIDEO_QUESTIONS if is_clip(task) else IMAGE_QUESTIONS
    asked = []
    for i in range(count):
        topic = list(table)[i % len(table)]
        scene = Scene.draw_crossing(rng) if is_clip(task) else Scene.draw(rng)
        asked.append(Question(scene, topic, rng.choice(table[topic])))
    return asked
