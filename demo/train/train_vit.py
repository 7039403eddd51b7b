"""Teaches the ViT to see first: throw-away linear heads on its mean output name shape, colours, size and place.

    python -m demo.train.train_vit --out RUN/vit.pt --minutes 10
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demo.shapes import COLOUR_NAMES, PLACES, SHAPES, SIZES, Scene
from demo.train.lance_model import LanceConfig
from demo.train.optimizer import Muon, Optimizers
from demo.train.vit_model import Vit, VitConfig, vit_frames, vit_patches
from demo.train.world import CLIP_FRAMES, CLIP_SIDE

BATCH = 32
PATCH_ROWS = 8
Centre = tuple[float, float]
CLASSES = {"shape": SHAPES, "colour": COLOUR_NAMES, "background": COLOUR_NAMES, "size": SIZES}


class Heads(nn.Module):
    """Reads the scene and the centre of its shape off the ViT's output."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.sizes = [len(names) for names in CLASSES.values()]
        self.out = nn.Linear(hidden, sum(self.sizes) + 2)

    def forward(self, seen: Tensor, scenes: list[Scene], centres: list[Centre]) -> tuple[Tensor, list[float]]:
        """seen [batch, tokens, hidden] -> loss, and the share that is right of every class with the error in place"""
        *logits, place = self.out(F.layer_norm(seen.mean(1), seen.shape[-1:])).split([*self.sizes, 2], 1)
        span = PLACES["right"][0]
        error = (place - torch.tensor(centres, device=seen.device) / span).square().mean()
        loss, right = error, []
        for (attribute, names), scores in zip(CLASSES.items(), logits, strict=True):
            wanted = torch.tensor([names.index(getattr(scene, attribute)) for scene in scenes], device=seen.device)
            loss = loss + F.cross_entropy(scores, wanted)
            right.append((scores.argmax(1) == wanted).float().mean().item())
        return loss, [*right, error.item()]


def draw_batch(count: int, rng: random.Random) -> tuple[Tensor, list[Scene], list[Centre]]:
    """Pictures, and in a third of the cases two frames that follow each other in a clip."""
    pairs, scenes, centres = [], [], []
    for _ in range(count):
        scene = Scene.draw_departure(rng) if rng.random() < 0.35 else Scene.draw(rng)
        (x0, y0), (x1, y1) = scene.offsets()
        if scene.motion:
            first = rng.randrange(CLIP_FRAMES - 1)
            frames, time_of = scene.frames(CLIP_FRAMES, CLIP_SIDE)[first : first + 2], (first + 0.5) / (CLIP_FRAMES - 1)
        else:
            frames, time_of = np.repeat(scene.frames(1), 2, 0), 0.0
        pairs.append(vit_frames(frames))
        scenes.append(scene)
        centres.append((x0 + (x1 - x0) * time_of, y0 + (y1 - y0) * time_of))
    return vit_patches(np.stack(pairs))[:, 0], scenes, centres


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    hidden = LanceConfig().hidden
    vit, heads, rng = Vit(VitConfig(), hidden).to(args.device), Heads(hidden).to(args.device), random.Random(11)
    named = list(vit.named_parameters())
    slow = [parameter for name, parameter in named if "merger.mlp.0" in name]
    matrices = [parameter for name, parameter in named if parameter.dim() > 1 and "merger.mlp.0" not in name]
    rest = [parameter for name, parameter in named if parameter.dim() == 1 and "merger.mlp.0" not in name]
    groups = [{"params": [*rest, *heads.parameters()], "lr": 2e-3}, {"params": slow, "lr": 3e-4}]
    optimizers = Optimizers(Muon(matrices, 0.02), torch.optim.AdamW(groups, weight_decay=0))
    started, step = time.time(), 0
    log: list[list[float]] = []
    while (done := (time.time() - started) / 60 / args.minutes) < 1:
        optimizers.scale(min(1, (step + 1) / 20) * min(1, 0.02 + 2 * (1 - done)))
        patches, scenes, centres = draw_batch(BATCH, rng)
        loss, right = heads(vit(patches.to(args.device), PATCH_ROWS, PATCH_ROWS), scenes, centres)
        optimizers.minimise(loss, [])
        log.append(right)
        step += 1
        if step % 40 == 0:
            means = np.mean(log[-40:], 0).round(3)
            print(f"{step} {done:.2f} shape, colour, background, size right, place error: {means}", flush=True)
    torch.save(vit.state_dict(), args.out)


if __name__ == "__main__":
    main()
