"""Trains the VAE's decoder alone on cached latents of whole pictures and clips, outlines weighted; latents stay valid.

    python -m demo.train.train_decoder --run RUN --init RUN/vae_decoder.pt --out RUN/vae_decoder2.pt --minutes 15
"""

from __future__ import annotations

import argparse
import math
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demo.shapes import CANVAS
from demo.train.encode_latents import load_vae
from demo.train.latent_set import LatentSet
from demo.train.optimizer import AverageWeights, Muon, Optimizers
from demo.train.tensors import CLIP_GRID, IMAGE_GRID
from demo.train.train_vae import gradient_difference
from demo.train.vae_model import LATENT_CHANNELS, LOG_VARIANCE, to_input
from demo.train.world import CLIP_FRAMES, CLIP_SIDE


def outline_weights(x: Tensor) -> Tensor:
    """Seven times the weight where a pixel within three of it differs in colour; mean 1."""
    brightest = x.amax(1)
    code = brightest - x.mean(1) + 3 * brightest  # one number a pixel that differs between any two colours
    near = (F.max_pool2d(code, 7, 1, 3) + F.max_pool2d(-code, 7, 1, 3)) > 0.05
    weights = 1 + 6 * near[:, None].float()
    return weights / weights.mean()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--init", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--lr", type=float, default=0.006)
    parser.add_argument("--clips", type=float, default=0.65, help="share of steps on clips")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(3)
    rng = random.Random(3)
    sets = {what: found for what in ("images", "clips") if (found := LatentSet.read(args.run, what))}
    if not sets:
        raise SystemExit(f"no latents in {args.run}: run demo.train.encode_latents first")
    vae = load_vae(args.init, args.device)
    vae.requires_grad_(False)
    vae.decoder.requires_grad_(True)
    vae.conv2.requires_grad_(True)
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in vae.named_parameters():
        if parameter.requires_grad:
            inner = name.startswith(("decoder.middle", "decoder.upsamples")) and "gamma" not in name
            (matrices if inner and parameter.dim() > 1 else rest).append(parameter)
    adam = torch.optim.AdamW(rest, 0.06 * args.lr, betas=(0.9, 0.98), weight_decay=0)
    optimizers = Optimizers(Muon(matrices, args.lr, decay=0), adam)
    average = AverageWeights(vae, longest=0.99, warm_up=10)
    started, step = time.time(), 0
    squares: dict[str, list[float]] = {}
    while (done := (time.time() - started) / 60 / args.minutes) < 1:
        optimizers.scale(min(1, (step + 1) / 30) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))))
        what = "clips" if "clips" in sets and rng.random() < args.clips else "images"
        grid, count = (CLIP_GRID, 1) if what == "clips" else (IMAGE_GRID, 4)
        size = (CLIP_FRAMES, CLIP_SIDE) if what == "clips" else (1, CANVAS)
        chosen = rng.sample(range(len(sets[what].scenes)), count)
        x = torch.stack([to_input(sets[what].scenes[i].frames(*size)) for i in chosen]).to(args.device)
        z = torch.stack([sets[what].latents[i].float().t().reshape(LATENT_CHANNELS, *grid) for i in chosen])
        z = z.to(args.device)
        error = vae.decode(z + torch.randn_like(z) * math.exp(LOG_VARIANCE / 2) * rng.uniform(0.3, 1.6)) - x
        weights = outline_weights(x)
        loss = (error.abs() * weights).mean() + 2 * (error.square() * weights).mean() + 0.5 * gradient_difference(error)
        optimizers.minimise(loss, rest)
        average.update(step)
        squares.setdefault(what, []).append(error.square().mean().item())
        step += 1
        if step % 25 == 0:
            quality = {kind: 10 * math.log10(4 / np.mean(values[-40:])) for kind, values in squares.items()}
            print(f"{step} {done:.3f} " + ", ".join(f"{k} {v:.2f} dB" for k, v in quality.items()), flush=True)
    torch.save(average.weights, args.out)


if __name__ == "__main__":
    main()
